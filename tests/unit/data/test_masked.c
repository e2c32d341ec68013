/*
 * test_masked.c - what an inpainting base learns by: masks by chance, masks beside pictures, the picture below a mask
 * as the autoencoder sees it, and its cache.
 */
#include "folder.h"

#include <math.h>

static place here;

static int before(void **state) { (void)state; place_open(&here); return 0; }
static int after(void **state) { (void)state; place_close(&here); return 0; }

/* ---- masks by chance --------------------------------------------------------------------------------------------- */

static const char HASH[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
static const char OTHER[] = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

enum { W = 96, H = 64, MANY = 2000 };

static double share(const uint8_t *mask)
{
    int n = 0;
    for (int i = 0; i < W * H; i++) {
        assert_true(mask[i] <= 1);
        n += mask[i];
    }
    return (double)n / (W * H);
}

static void a_quarter_is_everything(void **state)
{
    (void)state;
    uint8_t mask[W * H];
    int whole = 0, nothing = 0, small = 0, large = 0;
    double sum = 0;
    for (uint32_t i = 0; i < MANY; i++) {
        bool all = kw_inpaint_mask(7, HASH, i, W, H, mask);
        double part = share(mask);
        assert_true(!all || part == 1);
        whole += all;
        nothing += part == 0;
        small += part < 0.02;
        large += !all && part > 0.95;
        sum += all ? 0 : part;
    }
    double mean = sum / (MANY - whole);
    print_message("of %d masks %.1f %% are everywhere (25 %% wanted, sd %.1f), the others cover %.1f %% on the mean; "
                  "%d below 2 %%, %d above 95 %%\n", MANY, 100.0 * whole / MANY, 100 * sqrt(0.25 * 0.75 / MANY),
                  100 * mean, small, large);
    assert_true(fabs((double)whole / MANY - 0.25) < 4 * sqrt(0.25 * 0.75 / MANY));
    assert_int_equal(nothing, 0);
    assert_true(small < MANY / 50 && large < MANY / 50 && mean > 0.2 && mean < 0.6);
}

static void masks_are_a_function(void **state)
{
    (void)state;
    uint8_t a[W * H], b[W * H];
    int same[3] = { 0 };
    for (uint32_t i = 0; i < 50; i++) {
        kw_inpaint_mask(7, HASH, i, W, H, a);
        kw_inpaint_mask(7, HASH, i, W, H, b);
        assert_memory_equal(a, b, sizeof a);
        kw_inpaint_mask(8, HASH, i, W, H, b);
        same[0] += !memcmp(a, b, sizeof a);
        kw_inpaint_mask(7, OTHER, i, W, H, b);
        same[1] += !memcmp(a, b, sizeof a);
        kw_inpaint_mask(7, HASH, i + 1, W, H, b);
        same[2] += !memcmp(a, b, sizeof a);
    }
    for (int k = 0; k < 3; k++)           /* two are everywhere in one case of sixteen */
        assert_true(same[k] < 12);
}

/* ---- pictures below them ----------------------------------------------------------------------------------------- */

/* A stand-in for the autoencoder: the mean colour of each 8 x 8 square. */
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

enum { SIDE = 64, LATENT = 8 * 8, FLOATS = LATENT * 3, PIXELS = SIDE * SIDE };

typedef struct { kw_dataset *d; kw_plan *p; kw_loader *loader; kw_cache *cache; kw_latents *l; coder coder; } rig;

static kw_dataset *pictures(void)
{
    kw_dataset *d = scan_with(&here, &(kw_scan){ .masks = true });
    kw_bucket_rule r = kw_bucket_rule_for(SIDE, 8, 2);
    check(d);
    r.single = true;
    assert_int_equal(kw_data_buckets(d, &r, NULL), KW_OK);
    return d;
}

static void set_up(rig *r, const char *dir, bool flip)
{
    kw_plan_config c = { .seed = 3, .batch = 3, .flip = flip };
    for (int i = 0; i < 3; i++)
        put_picture(&here, kw_sprintf(here.arena, "p/%d.png", i), 80, 64, i);
    *r = (rig){ .d = pictures() };
    assert_int_equal(kw_plan_new(here.arena, r->d, &c, &r->p, NULL), KW_OK);
    assert_int_equal(kw_loader_new(here.arena, r->d, NULL, NULL, &r->loader, NULL), KW_OK);
    assert_int_equal(kw_cache_new(here.arena, dir, 1 << 20, &r->cache, NULL), KW_OK);
    kw_latents_config l = { .cache = r->cache, .loader = r->loader, .vae_hash = "vae", .factor = 8, .channels = 3,
                            .background = { 255, 255, 255 }, .encode = encode, .user = &r->coder };
    assert_int_equal(kw_latents_new(here.arena, r->d, &l, &r->l, NULL), KW_OK);
}

typedef struct { float moments[3 * FLOATS], mask[3 * LATENT], masked[3 * FLOATS]; kw_batch b; } got;

static kw_status get(rig *r, int64_t step, uint32_t number, bool keep, got *g, kw_err *e)
{
    const uint32_t numbers[3] = { number, number, number };
    const kw_masking k = { .seed = 42, .number = numbers, .keep = keep };
    assert_int_equal(kw_plan_batch(r->p, here.arena, step, &g->b, NULL), KW_OK);
    return kw_latents_masked(r->l, &g->b, &k, g->moments, g->mask, g->masked, e);
}

/* As diffusers' training: picture · (mask < 0.5), encoded; the mask by nearest neighbour. */
static void judge(rig *r, const got *g, size_t i, const uint8_t *mask)
{
    float image[3 * PIXELS], want[FLOATS];
    coder own = { 0 };
    kw_batch one = g->b;
    one.samples = &g->b.samples[i];
    one.n = 1;
    assert_int_equal(kw_loader_images(r->loader, &one, image, NULL), KW_OK);
    assert_int_equal(encode(&own, image, SIDE, SIDE, want, NULL), KW_OK);
    assert_memory_equal(g->moments + i * FLOATS, want, sizeof want);
    for (int p = 0; p < PIXELS; p++)
        for (int c = 0; c < 3; c++)
            image[3 * p + c] *= mask[p] < 0.5;
    assert_int_equal(encode(&own, image, SIDE, SIDE, want, NULL), KW_OK);
    assert_memory_equal(g->masked + i * FLOATS, want, sizeof want);
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 8; x++)
            assert_true(g->mask[i * LATENT + (size_t)(8 * y + x)] == mask[8 * y * SIDE + 8 * x]);
}

static void the_picture_is_grey_below_the_mask(void **state)
{
    (void)state;
    static got g, h;
    rig r;
    uint8_t mask[PIXELS];
    kw_err e = { 0 };
    set_up(&r, NULL, true);
    for (uint32_t number = 0; number < 8; number++) {
        if (get(&r, number, number, true, &g, &e))
            fail_msg("%s", e.what);
        for (size_t i = 0; i < 3; i++) {
            kw_inpaint_mask(42, r.d->items[g.b.samples[i].item].hash, number, SIDE, SIDE, mask);
            judge(&r, &g, i, mask);
        }
        assert_int_equal(get(&r, number, number, true, &h, &e), KW_OK);      /* out of the cache */
        assert_memory_equal(g.masked, h.masked, sizeof g.masked);
        assert_memory_equal(g.mask, h.mask, sizeof g.mask);
    }
}

static void masked_pictures_are_made_once(void **state)
{
    (void)state;
    static got g, h;
    rig r, s;
    const char *dir = path_of(&here, "cache");
    set_up(&r, dir, false);
    assert_int_equal(get(&r, 0, 0, true, &g, NULL), KW_OK);
    assert_int_equal(r.coder.calls, 6);   /* three pictures, and each below its mask */
    assert_int_equal(get(&r, 1, 0, true, &g, NULL), KW_OK);
    assert_int_equal(r.coder.calls, 6);
    assert_int_equal(get(&r, 0, 1, true, &g, NULL), KW_OK);
    assert_int_equal(r.coder.calls, 9);   /* other masks */
    set_up(&s, dir, false);
    assert_int_equal(get(&s, 0, 1, true, &h, NULL), KW_OK);                 /* another run: from the folder */
    assert_int_equal(s.coder.calls, 0);
    assert_memory_equal(g.masked, h.masked, sizeof g.masked);
    assert_int_equal(get(&r, 0, 2, false, &g, NULL), KW_OK);
    assert_int_equal(get(&r, 0, 2, false, &h, NULL), KW_OK);
    assert_int_equal(r.coder.calls, 15);  /* not to be kept */
    assert_memory_equal(g.masked, h.masked, sizeof g.masked);
}

/* Its file is gone: latents and masked picture are of the one that steps in, whichever of them was cached. */
static void both_show_the_same_picture(void **state)
{
    (void)state;
    static got g;
    rig r;
    uint8_t mask[PIXELS];
    kw_err e = { 0 };
    set_up(&r, NULL, false);
    assert_int_equal(get(&r, 0, 0, true, &g, NULL), KW_OK);
    assert_int_equal(unlink(path_of(&here, "p/1.png")), 0);
    if (get(&r, 0, 5, true, &g, &e))
        fail_msg("%s", e.what);
    int replaced = 0;
    for (size_t i = 0; i < 3; i++) {
        replaced += g.b.samples[i].replaced;
        assert_int_not_equal(g.b.samples[i].item, 1);
        kw_inpaint_mask(42, r.d->items[g.b.samples[i].item].hash, 5, SIDE, SIDE, mask);
        judge(&r, &g, i, mask);
    }
    assert_int_equal(replaced, 1);
}

/* ---- masks beside pictures --------------------------------------------------------------------------------------- */

/* White from column `from` on. */
static void put_mask(const char *name, int w, int h, int from)
{
    kw_picture q;
    kw_str png = { 0 };
    assert_int_equal(kw_picture_new(w, h, &q, NULL), KW_OK);
    for (int i = 0; i < w * h; i++)
        memset(q.rgb + 3 * i, i % w >= from ? 255 : 0, 3);
    assert_int_equal(kw_png_encode(&q, NULL, 0, &png, NULL), KW_OK);
    put_bytes(&here, name, png.s, png.n);
    kw_str_free(&png);
    kw_picture_free(&q);
}

static void a_mask_beside_a_picture(void **state)
{
    (void)state;
    static got g;
    rig r;
    uint8_t mask[PIXELS], other[PIXELS];
    kw_err e = { 0 };
    int whole = 0, flipped = 0;
    put_mask("p/1.mask.png", 160, 128, 80);        /* of twice the picture's size */
    set_up(&r, NULL, true);
    assert_int_equal(r.d->n, 3);
    for (uint32_t number = 0; number < 16; number++) {
        if (get(&r, number, number, true, &g, &e))
            fail_msg("%s", e.what);
        for (size_t i = 0; i < 3; i++) {
            const kw_sample *s = &g.b.samples[i];
            bool all = kw_inpaint_mask(42, r.d->items[s->item].hash, number, SIDE, SIDE, mask);
            for (int p = 0; p < PIXELS; p++)       /* 80 columns, of which 8 are cut on each side: half of 64 */
                other[p] = s->flip ? p % SIDE < SIDE / 2 : p % SIDE >= SIDE / 2;
            judge(&r, &g, i, s->item == 1 && !all ? other : mask);
            whole += s->item == 1 && all;
            flipped += s->item == 1 && !all && s->flip;
        }
    }
    assert_true(whole && flipped);
}

static void a_changed_mask_is_told(void **state)
{
    (void)state;
    static got g;
    rig r;
    kw_err e = { 0 };
    char before_[65], after_[65];
    uint8_t mask[PIXELS];
    uint32_t number = 0;
    put_mask("p/1-masklabel.png", 80, 64, 40);
    set_up(&r, NULL, false);
    while (kw_inpaint_mask(42, r.d->items[1].hash, number, SIDE, SIDE, mask))
        number++;
    assert_int_equal(kw_data_fingerprint(r.d, before_, NULL), KW_OK);
    put_mask("p/1-masklabel.png", 80, 64, 41);
    assert_int_equal(get(&r, 0, number, true, &g, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "1-masklabel.png"));
    assert_int_equal(kw_data_fingerprint(pictures(), after_, NULL), KW_OK);
    assert_string_not_equal(before_, after_);      /* resuming would not give the same bits */
}

static void which_files_are_masks(void **state)
{
    (void)state;
    put_picture(&here, "a.png", 80, 64, 1);
    put_picture(&here, "b.png", 80, 64, 2);
    put_mask("a.mask.png", 80, 64, 3);
    put_mask("a-masklabel.png", 80, 64, 3);
    put_mask("nobody.mask.jpg", 80, 64, 3);
    put_text(&here, "b-masklabel.png", "no picture");
    kw_dataset *d = scan(&here);          /* for other bases */
    assert_int_equal(d->n, 2);
    assert_int_equal(n_remarks(d, KW_REMARK_MASK), 4);
    assert_null(d->items[0].mask);
    d = scan_with(&here, &(kw_scan){ .masks = true });
    assert_int_equal(d->n, 2);
    assert_non_null(d->items[0].mask);
    assert_string_equal(d->items[0].mask_name, "a-masklabel.png");
    remark(d, KW_REMARK_MASK_ALONE, "a.mask.png");
    remark(d, KW_REMARK_MASK_ALONE, "nobody.mask.jpg");
    assert_int_equal(n_remarks(d, KW_REMARK_MASK), 0);
    assert_int_equal(kw_data_check(d, &(kw_check){ .workers = 2, .most_bad = 0.6 }, NULL), KW_OK);
    assert_non_null(d->items[1].bad);     /* its mask is none */
    assert_non_null(strstr(d->items[1].bad, "b-masklabel.png"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_quarter_is_everything), T(masks_are_a_function), T(the_picture_is_grey_below_the_mask),
        T(masked_pictures_are_made_once), T(both_show_the_same_picture), T(a_mask_beside_a_picture),
        T(a_changed_mask_is_told), T(which_files_are_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
