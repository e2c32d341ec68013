/* test_cache.c - pixels, latents and their caches; the decoder children. The program starts itself as such a child. */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <png.h>

static place here;

static int before(void **state) { (void)state; place_open(&here); return 0; }
static int after(void **state) { (void)state; place_close(&here); return 0; }

/* ---- a stand-in for the autoencoder: the mean colour of each 8x8 square ------------------------------- */

typedef struct { int calls; } coder;

static kw_status encode(void *user, const float *image, int w, int h, float *out, kw_err *e)
{
    (void)e;
    ((coder *)user)->calls++;
    memset(out, 0, (size_t)(w / 8 * (h / 8) * 3) * sizeof *out);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++)
                out[(y / 8 * (w / 8) + x / 8) * 3 + c] += image[(y * w + x) * 3 + c] / 64;
    return KW_OK;
}

static kw_dataset *pictures(void)
{
    for (int i = 0; i < 5; i++)
        put_picture(&here, kw_sprintf(here.arena, "p/%d.png", i), 80, 64 + i, i);
    kw_dataset *d;
    kw_bucket_rule r = kw_bucket_rule_for(64, 8, 2);
    assert_int_equal(kw_data_scan(here.arena, path_of(&here, "p"), &(kw_scan){ 0 }, &d, NULL), KW_OK);
    check(d);
    r.single = true;
    assert_int_equal(kw_data_buckets(d, &r, NULL), KW_OK);
    return d;
}

typedef struct { kw_dataset *d; kw_plan *p; kw_loader *loader; kw_cache *cache; kw_latents *l; coder coder; } rig;

static void set_up(rig *r, const char *dir, const char *vae, const kw_plan_config *c)
{
    kw_arena *a = here.arena;
    *r = (rig){ .d = pictures() };
    assert_int_equal(kw_plan_new(a, r->d, c, &r->p, NULL), KW_OK);
    assert_int_equal(kw_loader_new(a, r->d, NULL, NULL, &r->loader, NULL), KW_OK);
    assert_int_equal(kw_cache_new(a, dir, 1 << 20, &r->cache, NULL), KW_OK);
    kw_latents_config l = { .cache = r->cache, .loader = r->loader, .vae_hash = vae, .factor = 8, .channels = 3,
                            .background = { 255, 255, 255 }, .encode = encode, .user = &r->coder };
    assert_int_equal(kw_latents_new(a, r->d, &l, &r->l, NULL), KW_OK);
}

enum { FLOATS = 8 * 8 * 3 };

static size_t get(rig *r, int64_t step, float *out)
{
    kw_batch b;
    kw_err e = { 0 };
    assert_int_equal(kw_plan_batch(r->p, here.arena, step, &b, NULL), KW_OK);
    if (kw_latents_get(r->l, &b, out, &e))
        fail_msg("%s", e.what);
    return b.n;
}

/* ---- tests -------------------------------------------------------------------------------------------- */

static void latents_are_made_once(void **state)
{
    (void)state;
    rig r, s;
    float x[2 * FLOATS], y[2 * FLOATS];
    const char *dir = path_of(&here, "cache");
    kw_plan_config c = { .seed = 3, .batch = 2, .flip = true };
    set_up(&r, dir, "vae", &c);
    assert_int_equal(kw_latents_fill(r.l, r.p, NULL, NULL, NULL), KW_OK);
    assert_int_equal(r.coder.calls, 10);
    assert_int_equal(kw_cache_stats_of(r.cache).stored, 10);
    get(&r, 1, x);
    assert_int_equal(r.coder.calls, 10);
    set_up(&s, dir, "vae", &c);           /* another run: from disk, the same bits */
    get(&s, 1, y);
    assert_int_equal(s.coder.calls, 0);
    assert_int_equal(kw_cache_stats_of(s.cache).from_disk, 2);
    assert_memory_equal(x, y, sizeof x);
    get(&s, 1, y);
    assert_int_equal(kw_cache_stats_of(s.cache).from_disk, 2);
    set_up(&s, NULL, "vae", &c);          /* made anew, without a folder: the same bits */
    get(&s, 1, y);
    assert_int_equal(s.coder.calls, 2);
    assert_memory_equal(x, y, sizeof x);
    set_up(&s, dir, "another", &c);
    get(&s, 1, y);
    assert_int_equal(s.coder.calls, 2);
}

static void an_edited_picture_is_made_again(void **state)
{
    (void)state;
    rig r;
    const char *dir = path_of(&here, "cache");
    kw_plan_config c = { .seed = 3, .batch = 5 };
    float x[5 * FLOATS];
    set_up(&r, dir, "vae", &c);
    get(&r, 0, x);
    assert_int_equal(r.coder.calls, 5);
    set_up(&r, dir, "vae", &c);
    get(&r, 0, x);
    assert_int_equal(r.coder.calls, 0);
    for (int i = 0; i < 5; i++)           /* all are written anew with the same bytes but the first */
        put_picture(&here, kw_sprintf(here.arena, "p/%d.png", i), 80, 64 + i, i ? i : 77);
    kw_dataset *d;
    assert_int_equal(kw_data_scan(here.arena, path_of(&here, "p"), &(kw_scan){ 0 }, &d, NULL), KW_OK);
    check(d);
    kw_bucket_rule rule = kw_bucket_rule_for(64, 8, 2);
    rule.single = true;
    assert_int_equal(kw_data_buckets(d, &rule, NULL), KW_OK);
    *r.d = *d;
    get(&r, 0, x);
    assert_int_equal(r.coder.calls, 1);
}

static void damage(const char *dir, int how, int *n)
{
    DIR *f = opendir(dir);
    assert_non_null(f);
    for (struct dirent *t; (t = readdir(f));) {
        if (t->d_name[0] == '.')
            continue;
        const char *path = kw_path_join(here.arena, dir, t->d_name);
        FILE *file = fopen(path, "r+b");
        assert_non_null(file);
        assert_int_equal(fseek(file, how ? -8 : -16, SEEK_END), 0);
        if (how == 0)
            fputc(0x55, file);            /* one byte of the numbers */
        else
            assert_int_equal(ftruncate(fileno(file), ftell(file)), 0);
        fclose(file);
        ++*n;
    }
    closedir(f);
}

static void damaged_entries_are_made_again(void **state)
{
    (void)state;
    const char *dir = path_of(&here, "cache");
    kw_plan_config c = { .seed = 3, .batch = 5 };
    float x[5 * FLOATS], y[5 * FLOATS];
    rig r;
    set_up(&r, dir, "vae", &c);
    get(&r, 0, x);
    for (int how = 0; how < 2; how++) {
        int n = 0;
        damage(dir, how, &n);
        assert_int_equal(n, 5);
        set_up(&r, dir, "vae", &c);
        get(&r, 0, y);
        assert_int_equal(r.coder.calls, 5);
        assert_int_equal(kw_cache_stats_of(r.cache).damaged, 5);
        assert_memory_equal(x, y, sizeof x);
    }
    set_up(&r, dir, "vae", &c);           /* and are whole afterwards */
    get(&r, 0, y);
    assert_int_equal(r.coder.calls, 0);
}

static void a_full_disk_costs_the_cache_alone(void **state)
{
    (void)state;
    kw_plan_config c = { .seed = 3, .batch = 5 };
    float x[5 * FLOATS];
    rig r;
    set_up(&r, path_of(&here, "cache"), "vae", &c);
    kw_io_fault_start(&(kw_io_fault){ .at = 1, .error = ENOSPC, .persistent = true, .only = "write" });
    get(&r, 0, x);
    kw_io_fault_stop();
    kw_cache_stats s = kw_cache_stats_of(r.cache);
    assert_int_equal(s.stored, 0);
    assert_int_equal(s.unwritten, 5);
    assert_non_null(strstr(s.trouble, "No space left"));
    get(&r, 0, x);
    assert_int_equal(r.coder.calls, 5);   /* in memory they are */
}

static void memory_has_a_limit(void **state)
{
    (void)state;
    kw_cache *c;
    float x[100] = { 1, 2, 3 }, y[100];
    int64_t shape[] = { 100 }, other[] = { 10, 10 };
    char key[65];
    int found = 0;
    assert_int_equal(kw_cache_new(here.arena, NULL, 300 * sizeof x, &c, NULL), KW_OK);
    for (int32_t i = 0; i < 500; i++) {
        assert_int_equal(kw_text_key("e", 1, &i, 1, key, NULL), KW_OK);
        x[0] = (float)i;
        assert_int_equal(kw_cache_put(c, key, shape, 1, x, NULL), KW_OK);
    }
    for (int32_t i = 0; i < 500; i++) {
        assert_int_equal(kw_text_key("e", 1, &i, 1, key, NULL), KW_OK);
        if (kw_cache_find(c, key, shape, 1, y)) {
            assert_true(y[0] == (float)i && y[2] == 3);
            found++;
        }
    }
    assert_int_equal(found, 300);
    assert_int_equal(kw_text_key("e", 2, (int32_t[]){ 0 }, 1, key, NULL), KW_OK);
    assert_false(kw_cache_find(c, key, other, 2, y));
}

static void prefetching_changes_nothing(void **state)
{
    (void)state;
    kw_plan_config c = { .seed = 9, .batch = 2, .flip = true, .random_crop = true };
    float x[3][2 * FLOATS], y[2 * FLOATS];
    rig r, s;
    set_up(&r, NULL, "vae", &c);
    set_up(&s, NULL, "vae", &c);
    for (int i = 0; i < 3; i++)
        get(&r, i, x[i]);
    for (int i = 0; i < 3; i++) {
        kw_batch next;
        size_t n = get(&s, i, y);
        assert_memory_equal(x[i], y, n * FLOATS * sizeof *y);
        assert_int_equal(kw_plan_batch(s.p, here.arena, i + 1, &next, NULL), KW_OK);
        kw_latents_prefetch(s.l, &next);
        kw_latents_prefetch(s.l, &next);
    }
}

static void a_changed_file_is_replaced(void **state)
{
    (void)state;
    kw_plan_config c = { .seed = 3, .batch = 5 };
    float x[5 * 64 * 64 * 3];
    char why[256];
    rig r;
    kw_batch b;
    set_up(&r, NULL, "vae", &c);
    put_picture(&here, "p/1.png", 80, 65, 99);
    assert_int_equal(unlink(path_of(&here, "p/4.png")), 0);
    for (int prefetched = 0; prefetched < 2; prefetched++) {
        assert_int_equal(kw_plan_batch(r.p, here.arena, 0, &b, NULL), KW_OK);
        if (prefetched)
            kw_loader_prefetch(r.loader, &b);
        assert_int_equal(kw_loader_images(r.loader, &b, x, NULL), KW_OK);
        int items[5] = { 0 }, n = 0;
        for (size_t i = 0; i < b.n; i++) {
            items[b.samples[i].item]++;
            n += b.samples[i].replaced;
        }
        assert_int_equal(n, 2);
        assert_int_equal(items[2], 2);
        assert_int_equal(items[0], 2);
    }
    assert_int_equal(kw_loader_replaced(r.loader, why), 4);
    assert_true(strstr(why, "1.png") || strstr(why, "4.png"));
    for (int i = 0; i < 4; i++)
        unlink(path_of(&here, kw_sprintf(here.arena, "p/%d.png", i)));
    kw_err e = { 0 };
    assert_int_equal(kw_plan_batch(r.p, here.arena, 0, &b, NULL), KW_OK);
    assert_int_equal(kw_loader_images(r.loader, &b, x, &e), KW_EDATA);
}

static void pixels_are_the_pictures(void **state)
{
    (void)state;
    kw_plan_config c = { .batch = 1, .held_out = false };
    static float x[64 * 64 * 3], want[64 * 64 * 3];
    rig r;
    set_up(&r, NULL, "vae", &c);
    kw_sample s = { .item = 2, .flip = true, .fit = r.d->items[2].fit };
    kw_batch b = { .w = 64, .h = 64, .samples = &s, .n = 1 };
    kw_picture p, q;
    assert_int_equal(kw_loader_images(r.loader, &b, x, NULL), KW_OK);
    assert_int_equal(kw_picture_read(path_of(&here, "p/2.png"), kw_picture_white, &p, NULL), KW_OK);
    assert_int_equal(kw_picture_fit(&p, kw_fit_cover(80, 66, 64, 64), &q, NULL), KW_OK);
    kw_picture_to_float(&q, true, want);
    assert_memory_equal(x, want, sizeof x);
    kw_picture_free(&p);
    kw_picture_free(&q);
}

/* ---- transparency ------------------------------------------------------------------------------------- */

static const uint8_t ink[3] = { 200, 100, 0 };

/* One colour, the opacity of a column from f. */
static void put_transparent(const char *name, int side, int (*f)(int x))
{
    uint8_t *rgba = kw_alloc_array(here.arena, (size_t)side * (size_t)side, 4), *file = kw_alloc(here.arena, 1 << 20);
    png_image image = { .version = PNG_IMAGE_VERSION, .width = (png_uint_32)side, .height = (png_uint_32)side,
                        .format = PNG_FORMAT_RGBA };
    png_alloc_size_t n = 1 << 20;
    for (int i = 0; i < side * side; i++)
        memcpy(rgba + 4 * i, (uint8_t[]){ ink[0], ink[1], ink[2], (uint8_t)f(i % side) }, 4);
    assert_true(png_image_write_to_memory(&image, file, &n, 0, rgba, 0, NULL));
    put_bytes(&here, name, file, n);
}

static int rising(int x) { return 4 * x; }
static int striped(int x) { return x % 2 ? 255 : 0; }

static kw_dataset *transparent(const uint8_t background[3])
{
    put_transparent("t/0.png", 64, rising);
    put_transparent("t/1.png", 128, striped);
    put_picture(&here, "t/2.png", 64, 64, 3);
    kw_dataset *d;
    kw_bucket_rule r = kw_bucket_rule_for(64, 8, 2);
    assert_int_equal(kw_data_scan(here.arena, path_of(&here, "t"), &(kw_scan){ 0 }, &d, NULL), KW_OK);
    assert_int_equal(kw_data_check(d, &(kw_check){ .workers = 1, .background = background }, NULL), KW_OK);
    r.single = true;
    assert_int_equal(kw_data_buckets(d, &r, NULL), KW_OK);
    assert_int_equal(kw_data_transparent(d), 2);
    return d;
}

/*
 * What the autoencoder gets: v = round((a c + (255 - a) b) / 255) as (v / 255 - 0.5) / 0.5; laid on the background
 * before it is scaled, so stripes of c and b at half the size are (c + b) / 2 (these are whole).
 */
static void transparent_pixels_are_laid_on_the_background(void **state)
{
    (void)state;
    static const uint8_t backgrounds[][3] = { { 255, 255, 255 }, { 0, 0, 0 }, { 10, 20, 30 } };
    static float x[64 * 64 * 3];
    for (size_t k = 0; k < KW_LEN(backgrounds); k++) {
        const uint8_t *b = backgrounds[k];
        kw_dataset *d = transparent(b);
        kw_loader *l;
        assert_int_equal(kw_loader_new(here.arena, d, NULL, b, &l, NULL), KW_OK);
        for (uint32_t item = 0; item < 2; item++) {
            kw_sample s = { .item = item, .fit = d->items[item].fit };
            kw_batch batch = { .w = 64, .h = 64, .samples = &s, .n = 1 };
            assert_int_equal(kw_loader_images(l, &batch, x, NULL), KW_OK);
            for (int i = 0; i < 64 * 64 * 3; i++) {
                int a = rising(i / 3 % 64), c = ink[i % 3], g = b[i % 3];
                int v = item ? (c + g + 1) / 2 : (2 * (a * c + (255 - a) * g) + 255) / 510;
                float want = ((float)v / 255.0f - 0.5f) / 0.5f;
                if (x[i] != want && !(item && (c + g) % 2))
                    fail_msg("item %u, %d: %g, not %g", item, i, (double)x[i], (double)want);
            }
        }
    }
}

static void another_background_is_another_key(void **state)
{
    (void)state;
    static const uint8_t white[3] = { 255, 255, 255 }, black[3] = { 0, 0, 0 };
    static const struct { const uint8_t *background; int calls; } runs[] = { { white, 3 }, { white, 0 }, { black, 3 },
                                                                             { black, 0 }, { white, 0 } };
    static float x[3 * FLOATS], first[3 * FLOATS];
    const char *dir = path_of(&here, "cache");
    for (size_t i = 0; i < KW_LEN(runs); i++) {
        const uint8_t *b = runs[i].background;
        rig r = { .d = transparent(b) };
        assert_int_equal(kw_plan_new(here.arena, r.d, &(kw_plan_config){ .seed = 3, .batch = 3 }, &r.p, NULL), KW_OK);
        assert_int_equal(kw_loader_new(here.arena, r.d, NULL, b, &r.loader, NULL), KW_OK);
        assert_int_equal(kw_cache_new(here.arena, dir, 1 << 20, &r.cache, NULL), KW_OK);
        kw_latents_config c = { .cache = r.cache, .loader = r.loader, .vae_hash = "vae", .factor = 8, .channels = 3,
                                .background = { b[0], b[1], b[2] }, .encode = encode, .user = &r.coder };
        assert_int_equal(kw_latents_new(here.arena, r.d, &c, &r.l, NULL), KW_OK);
        get(&r, 0, i ? x : first);
        assert_int_equal(r.coder.calls, runs[i].calls);
        assert_int_equal(i && !memcmp(x, first, sizeof x), i && b == white);
    }
}

static void decoder_children_give_the_same(void **state)
{
    (void)state;
    static const char *const self[] = { "/proc/self/exe", "worker", NULL };
    kw_decoder *decoder;
    kw_err e = { 0 };
    kw_dataset *d = pictures(), *other;
    assert_int_equal(kw_decoder_new(self, 2, &decoder, &e), KW_OK);
    put_text(&here, "p/bad.jpg", "\xff\xd8\xff\xe0 no more");
    assert_int_equal(kw_data_scan(here.arena, path_of(&here, "p"), &(kw_scan){ 0 }, &other, NULL), KW_OK);
    if (kw_data_check(other, &(kw_check){ .decoder = decoder, .workers = 3, .most_bad = 0.2 }, &e))
        fail_msg("%s", e.what);
    assert_int_equal(other->n, 6);
    assert_non_null(other->items[5].bad);
    for (size_t i = 0; i < d->n; i++) {
        assert_string_equal(d->items[i].hash, other->items[i].hash);
        assert_memory_equal(&d->items[i].info, &other->items[i].info, sizeof d->items[i].info);
        assert_int_equal(d->items[i].w, other->items[i].w);
    }
    kw_decoder_free(decoder);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "worker"))
        return kw_picture_worker_main(KW_PICTURE_WORKER_FD);
#define T(name) cmocka_unit_test_setup_teardown(name, before, after)
    const struct CMUnitTest tests[] = {
        T(latents_are_made_once), T(an_edited_picture_is_made_again), T(damaged_entries_are_made_again),
        T(a_full_disk_costs_the_cache_alone), T(memory_has_a_limit), T(prefetching_changes_nothing),
        T(a_changed_file_is_replaced), T(pixels_are_the_pictures),
        T(transparent_pixels_are_laid_on_the_background), T(another_background_is_another_key),
        T(decoder_children_give_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
