/*
 * test_forms.c - the forms in which people have models: published families by their weights alone (names and shapes
 * from diffusers: tools/golden/families.py), 8 bit numbers with scales, numbers at odd bytes, markers of what is
 * predicted, compressed pickles. Against diffusers itself: tools/golden/forms.py.
 */
#include "fixture.h"

#include "io/zip.h"

#include <fcntl.h>
#include <math.h>
#include <sys/wait.h>

/* ---- files made of names and shapes: the numbers are a hole ------------------------------------------------------ */

typedef struct { kw_str header; uint64_t bytes; size_t n; } sketch;

static void add(sketch *s, const char *name, const char *shape)
{
    uint64_t count = 2;
    char list[64] = "", *to = list;
    for (const char *p = shape; *p; p += strspn(p, "x")) {
        unsigned long v = strtoul(p, (char **)(uintptr_t)&p, 10);
        count *= v;
        to += sprintf(to, to > list ? ",%lu" : "%lu", v);
    }
    kw_str_printf(&s->header, "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
                  s->n++ ? "," : "{",
                  name, list, (unsigned long long)s->bytes, (unsigned long long)(s->bytes + count));
    s->bytes += count;
}

static char *write_sketch(sketch *s, const char *name)
{
    char *path = in_dir(name);
    kw_str_add(&s->header, "}");
    while (s->header.n % 8)
        kw_str_add(&s->header, " ");
    uint64_t n = s->header.n;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(&n, 8, 1, f) + fwrite(s->header.s, n, 1, f), 2);
    assert_int_equal(fflush(f) | ftruncate(fileno(f), (off_t)(8 + n + s->bytes)), 0);
    fclose(f);
    kw_str_free(&s->header);
    return path;
}

static void check_config(kw_source *s, const char *name, json_t *want)
{
    const char *key;
    json_t *value;
    json_object_foreach(want, key, value) {
        json_t *have = json_object_get(kw_source_config(s, KW_PART_UNET), key);
        if (!json_equal(have, value))
            fail_msg("%s: %s is %s", name, key, have ? json_dumps(have, JSON_ENCODE_ANY) : "missing");
    }
}

static void check_family(const char *path, const char *name, json_t *want)
{
    kw_source *s;
    kw_arena *a = kw_arena_new();
    char *digit = strpbrk(name, "589");
    if (!strcmp(name, "refiner")) {
        assert_int_equal(kw_source_open(a, path, &s, &err), KW_EDATA);
        assert_non_null(strstr(err.what, "the SDXL refiner"));
        kw_arena_free(a);
        return;
    }
    must(kw_source_open(a, path, &s, &err));
    size_t n = digit ? (size_t)(digit - name - 1) : strlen(name);
    if (strncmp(kw_source_family(s), name, n))
        fail_msg("%s is taken for %s", name, kw_source_family(s));
    assert_true(digit ? *kw_source_input(s) == *digit : !kw_source_input(s));
    check_config(s, name, want);
    for (size_t i = 0; i < kw_source_n_notes(s); i++)              /* what is published is no guess */
        if (strstr(kw_source_note(s, i), "attention heads"))
            assert_true(!strcmp(name, "like SDXL"));
    kw_arena_free(a);
}

/* The shape by which names in LDM's spelling are numbered. */
static kw_key_shape shape_of(json_t *c)
{
    json_t *up = json_object_get(c, "up_block_types");
    kw_key_shape s = { .levels = (int)json_array_size(up),
                       .layers = (int)json_integer_value(json_object_get(c, "layers_per_block")) };
    for (int i = 0; i < s.levels; i++)
        s.up_attention |= (uint32_t)!strncmp(json_string_value(json_array_get(up, (size_t)i)), "Cross", 5) << i;
    return s;
}

static void families_are_known_by_their_weights(void **state)
{
    (void)state;
    static const char head[] = "model.diffusion_model.";
    char line[2048], name[64] = "", ldm[KW_KEY_ROOM + sizeof head];
    sketch own = { .n = 0 }, single = { .n = 0 };
    json_t *config = NULL;
    kw_key_shape shape = { 0 };
    int n = 0;
    FILE *f = fopen(GOLDEN "families.txt", "r");
    assert_non_null(f);
    for (bool more = true; more;) {
        more = fgets(line, sizeof line, f) != NULL;
        if ((!more || *line == '=') && config) {
            check_family(write_sketch(&own, "own.safetensors"), name, config);
            check_family(write_sketch(&single, "ldm.safetensors"), name, config);
            own = single = (sketch){ .n = 0 };
            n++;
        }
        if (more && *line == '=') {
            char *bar = strstr(line, " | ");
            snprintf(name, sizeof name, "%.*s", (int)(bar - line - 2), line + 2);
            must(kw_json_parse(arena, name, bar + 3, strlen(bar + 3), &config, &err));
            shape = shape_of(config);
        } else if (more) {
            char *space = strchr(line, ' ');
            *space = 0;
            space[strcspn(space + 1, "\n") + 1] = 0;
            memcpy(ldm, head, sizeof head);
            assert_true(kw_key_to_ldm(KW_KEYS_UNET, &shape, line, ldm + sizeof head - 1));
            add(&own, line, space + 1);
            add(&single, ldm, space + 1);
        }
    }
    fclose(f);
    print_message("%d families, in two spellings\n", n);
    assert_int_equal(n, 17);
}

/* ---- a small model's file, with one thing changed ---------------------------------------------------------------- */

typedef struct { kw_tensor t[1024]; size_t n; kw_tensors *file; } model;

static model *small(const char *path)
{
    model *m = kw_alloc(arena, sizeof *m);
    must(kw_tensors_open(arena, path, &m->file, &err));
    for (; m->n < kw_tensors_n(m->file); m->n++)
        m->t[m->n] = *kw_tensors_at(m->file, m->n);
    return m;
}

static char *save(const model *m, const char *name, const kw_meta *meta, size_t n)
{
    char *path = in_dir(name);
    must(kw_tensors_save(path, m->t, m->n, meta, n, &err));
    return path;
}

static kw_source *open_model(const char *path)
{
    kw_source *s;
    must(kw_source_open(arena, path, &s, &err));
    return s;
}

static bool noted(const kw_source *s, const char *text)
{
    for (size_t i = 0; i < kw_source_n_notes(s); i++)
        if (strstr(kw_source_note(s, i), text))
            return true;
    return false;
}

static void add_tensor(model *m, const char *name, kw_dtype type, int64_t count, const void *data)
{
    m->t[m->n++] = (kw_tensor){ .name = name, .dtype = type, .rank = 1, .shape = { count }, .data = data,
                                .bytes = (uint64_t)count * kw_dtype_size(type) };
}

static void what_is_predicted_is_found(void **state)
{
    (void)state;
    static const char none[8];
    static const kw_meta meta = { "modelspec.prediction_type", "v" };
    model *m = small(GOLDEN "xl.safetensors");
    kw_source *s = open_model(save(m, "a", NULL, 0));
    assert_string_equal(kw_source_noise(s)->prediction_type, "epsilon");
    assert_string_equal(kw_source_noise(s)->prediction_from, "the usual one, a guess");
    s = open_model(save(m, "b", &meta, 1));
    assert_string_equal(kw_source_noise(s)->prediction_type, "v_prediction");
    assert_non_null(strstr(kw_source_noise(s)->prediction_from, "modelspec"));
    add_tensor(m, "v_pred", KW_F32, 0, none);
    s = open_model(save(m, "c", NULL, 0));
    assert_string_equal(kw_source_noise(s)->prediction_type, "v_prediction");
    assert_non_null(strstr(kw_source_noise(s)->prediction_from, "v_pred"));
    assert_false(kw_source_noise(s)->rescale_betas_zero_snr);
    add_tensor(m, "ztsnr", KW_F32, 0, none);
    s = open_model(save(m, "d", NULL, 0));
    assert_true(kw_source_noise(s)->rescale_betas_zero_snr);
    assert_string_equal(kw_source_noise(s)->timestep_spacing, "trailing");
    assert_true(noted(s, "ztsnr"));
}

/* e4m3: 0x38 is 1, 0x40 is 2, 0xb8 is -1; with a scale for all, or for each row. */
static void scales_are_applied(void **state)
{
    (void)state;
    static const float one[] = { 0.5f };
    static const uint8_t bytes[64] = { 0x38, 0x40, 0xb8, 0x00 };
    float rows[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, v[64];
    for (int k = 0; k < 2; k++) {
        model *m = small(GOLDEN "v1.safetensors");
        char *name = NULL;
        size_t out = 0;
        const kw_tensor *was = NULL;
        for (size_t i = 0; i < m->n && !name; i++)
            if (strstr(m->t[i].name, "middle_block.1.transformer_blocks.0.attn1.to_q.weight")
                && kw_starts_with(m->t[i].name, "model.diffusion_model.")) {
                was = kw_tensors_at(m->file, i);
                m->t[i].dtype = KW_F8_E4M3;
                m->t[i].data = bytes;
                m->t[i].bytes = (uint64_t)kw_tensor_count(was);
                out = (size_t)was->shape[0];
                name = kw_strdup(arena, was->name);
            }
        assert_non_null(name);
        assert_true(out == 8 && kw_tensor_count(was) == 64);
        name = kw_sprintf(arena, "%.*s%s", (int)(strlen(name) - 6), name, k ? "weight_scale" : "scale_weight");
        add_tensor(m, name, KW_F32, k ? 8 : 1, k ? (const void *)rows : one);
        kw_source *s = open_model(save(m, k ? "rows" : "one", NULL, 0));
        const kw_tensor *t = kw_source_find(s, KW_PART_UNET,
                                            "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight");
        assert_int_equal(t->dtype, KW_BF16);
        kw_convert(KW_F32, v, t->dtype, t->data, 64);
        assert_true(v[0] == (k ? 1 : 0.5f) && v[1] == (k ? 2 : 1) && v[2] == (k ? -1 : -0.5f) && v[3] == 0);
        assert_true(noted(s, "1 matrices of 8 bit"));
        assert_int_equal(kw_source_n_unknown(s), 1);              /* strange.weight alone */
    }
}

/* A header of one more byte: every number at an odd place; hashes and numbers are those of the file that was. */
static void odd_places_are_no_matter(void **state)
{
    (void)state;
    char *data, hex[65], other[65];
    size_t n;
    must(kw_file_read(arena, GOLDEN "v1.safetensors", 1 << 24, &data, &n, &err));
    char *moved = kw_alloc(arena, n + 2);
    uint64_t size;
    memcpy(&size, data, 8);
    memcpy(moved, data, 8 + size);
    moved[8 + size] = ' ';
    memcpy(moved + 9 + size, data + 8 + size, n - 8 - size);
    size++;
    memcpy(moved, &size, 8);
    must(kw_file_write_atomic(in_dir("odd"), moved, n + 1, &err));
    kw_source *a = open_model(GOLDEN "v1.safetensors"), *b = open_model(in_dir("odd"));
    for (int p = 0; p < KW_N_PARTS; p++) {
        must(kw_source_hash(a, (kw_part)p, hex, &err));
        must(kw_source_hash(b, (kw_part)p, other, &err));
        assert_string_equal(hex, other);
        for (size_t i = 0; i < kw_source_n(a, (kw_part)p); i++) {
            const kw_tensor *x = kw_source_at(a, (kw_part)p, i), *y = kw_source_find(b, (kw_part)p, x->name);
            assert_true((uintptr_t)y->data % kw_dtype_size(y->dtype) == 0);
            assert_memory_equal(x->data, y->data, x->bytes);
        }
    }
    kw_conversion *c;
    must(kw_conversion_plan(arena, b, &(kw_conversion_want){ .type = KW_TO_F32 }, &c, &err));
    must(kw_conversion_write(c, in_dir("wide.safetensors"), false, NULL, NULL, &err));
    must(kw_conversion_plan(arena, a, &(kw_conversion_want){ .type = KW_TO_F32 }, &c, &err));
    must(kw_conversion_write(c, in_dir("want.safetensors"), false, NULL, NULL, &err));
    must(kw_sha256_file(in_dir("wide.safetensors"), hex, &err));
    must(kw_sha256_file(in_dir("want.safetensors"), other, &err));
    assert_string_equal(hex, other);
}

/* Every code of the small types against its value; 9984 is the least that bf16 has from 10^4 on. */
static void numbers_that_are_none_are_found(void **state)
{
    (void)state;
    static const kw_dtype types[] = { KW_F16, KW_BF16, KW_F8_E4M3, KW_F8_E5M2 };
    static const float odd[] = { 1, 1e-39f, 1e-40f, -2, INFINITY, 3, NAN, 1e4f };
    static const double odd64[] = { 1, 1e-310, 1e-320, -2, -INFINITY, 3, NAN, -1e4 };
    float x;
    for (size_t k = 0; k < KW_LEN(types); k++)
        for (uint32_t code = 0; code < (kw_dtype_size(types[k]) > 1 ? 65536u : 256u); code++) {
            kw_numbers n = { .bad = { 0 } };
            kw_tensor_numbers(&(kw_tensor){ .dtype = types[k], .data = &code }, "x", &n);
            kw_convert(KW_F32, &x, types[k], &code, 1);
            const float most = types[k] == KW_BF16 ? 9984 : 10000;
            if (n.bad.n != !isfinite(x) || n.huge.n != (isfinite(x) && fabsf(x) >= most))
                fail_msg("%s %x is %g: %zu, %zu", kw_dtype_name(types[k]), code, (double)x, n.bad.n, n.huge.n);
        }
    for (size_t wide = 0; wide < 2; wide++)
        for (size_t i = 0; i < 8; i++) {
            kw_tensor t = { .dtype = wide ? KW_F64 : KW_F32, .rank = 1, .shape = { 1 } };
            kw_numbers n = { .bad = { 0 } };
            t.data = wide ? (const void *)&odd64[i] : (const void *)&odd[i];
            kw_tensor_numbers(&t, "x", &n);
            assert_int_equal(n.bad.n, i == 4 || i == 6);
            assert_int_equal(n.huge.n, i == 7);
        }
    kw_numbers n = { .bad = { 0 } };
    kw_tensor_numbers(&(kw_tensor){ .dtype = KW_F32, .rank = 1, .shape = { 8 }, .data = odd }, "odd", &n);
    assert_true(n.faint.n == 1 && n.bad.n == 1 && !n.zero.n);
    static const float zeros[6];
    kw_tensor_numbers(&(kw_tensor){ .dtype = KW_F32, .rank = 2, .shape = { 2, 3 }, .data = zeros }, "zeros", &n);
    assert_true(n.zero.n == 1 && !strcmp(n.zero.first, "zeros"));
}

/* ---- what a killed conversion left ------------------------------------------------------------------------------- */

static void leftovers_of_the_dead_go(void **state)
{
    (void)state;
    kw_conversion *c;
    char *held, *dead;
    pid_t pid = fork();
    if (!pid)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    char *folder = kw_sprintf(arena, "%s/.tmp-%ld-0123456789abcdef", dir, (long)pid);
    dead = kw_sprintf(arena, "%s/.tmp-%ld-1123456789abcdef", dir, (long)pid);
    held = kw_sprintf(arena, "%s/.tmp-%ld-2123456789abcdef", dir, (long)pid);
    must(kw_mkdirs(kw_path_join(arena, folder, "unet"), &err));
    must(kw_file_write_atomic(kw_path_join(arena, folder, "unet/x"), "x", 1, &err));
    must(kw_file_write_atomic(dead, "x", 1, &err));
    must(kw_file_write_atomic(held, "x", 1, &err));
    int fd = open(held, O_RDWR);                                   /* as if its writer could not be seen from here */
    assert_int_equal(kw_io_system.flock(fd, 2), 0);                /* LOCK_EX */
    kw_source *s = open_model(GOLDEN "v1.safetensors");
    must(kw_conversion_plan(arena, s, &(kw_conversion_want){ .folder = false }, &c, &err));
    must(kw_conversion_write(c, in_dir("new.safetensors"), false, NULL, NULL, &err));
    assert_false(kw_is_dir(folder));
    assert_false(kw_is_file(dead));
    assert_true(kw_is_file(held));
    close(fd);
}

/* ---- DEFLATE ----------------------------------------------------------------------------------------------------- */

/* A stored block, and what zlib makes of "abc" 20 times (fixed codes) and of i² mod 7 + 16 (i mod 5) (codes of its
   own). */
static void streams_are_unpacked(void **state)
{
    (void)state;
    static const unsigned char stored[] = "\1\3\0\xfc\xff" "abc", fixed[] = "\x4b\x4c\x4a\x4e\x24\x17\x01\x00",
        own[] = "\x63\x10\x54\x31\x72\x62\x11\x54\x30\x74\x61\x12\x52\x31\x74\x60\x14\x51\x32\x72\x61\x14\x50\x34"
                "\x71\x62\x12\x51\x34\x70\x64\x11\x52\x32\x71\x64\x18\x55\x02\x51\x02\x00";
    char out[300], want[300];
    for (int i = 0; i < 60; i++)
        want[i] = "abc"[i % 3];
    assert_true(kw__inflate(stored, sizeof stored - 1, out, 3));
    assert_memory_equal(out, "abc", 3);
    memset(out, 0, sizeof out);
    assert_true(kw__inflate(fixed, sizeof fixed - 1, out, 60));
    assert_memory_equal(out, want, 60);
    for (int i = 0; i < 300; i++)
        want[i] = (char)(i * i % 7 + i % 5 * 16);
    assert_true(kw__inflate(own, sizeof own - 1, out, 300));
    assert_memory_equal(out, want, 300);
    for (size_t n = 0; n < sizeof own - 1; n++)
        assert_false(kw__inflate(own, n, out, 300));
    assert_false(kw__inflate(fixed, sizeof fixed - 1, out, 59));
    assert_false(kw__inflate(fixed, sizeof fixed - 2, out, 60));
    assert_false(kw__inflate("\7", 1, out, 0));                    /* a block of no kind */
    assert_false(kw__inflate("\1\3\0\xfc\xfe" "abc", 8, out, 3));
    assert_false(kw__inflate("\x4b\x04\x12\x00", 4, out, 10));     /* a distance before the start, or cut off */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_are_known_by_their_weights), cmocka_unit_test(what_is_predicted_is_found),
        cmocka_unit_test(scales_are_applied), cmocka_unit_test(odd_places_are_no_matter),
        cmocka_unit_test(numbers_that_are_none_are_found), cmocka_unit_test(leftovers_of_the_dead_go),
        cmocka_unit_test(streams_are_unpacked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
