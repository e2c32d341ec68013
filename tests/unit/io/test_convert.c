/*
 * test_convert.c - conversions: every tensor of LDM files made by others comes back bit for bit, a failure at any call
 * leaves what was there, and numbers that a type cannot hold are refused. Against diffusers: tools/golden/convert.py.
 */
#include "fixture.h"

#include <errno.h>
#include <math.h>

static kw_conversion *plan(kw_source *s, bool folder, kw_convert_type type)
{
    kw_conversion *c;
    must(kw_conversion_plan(arena, s, &(kw_conversion_want){ .folder = folder, .type = type }, &c, &err));
    return c;
}

static kw_source *convert(const char *from, const char *to, bool folder)
{
    kw_source *s;
    must(kw_source_open(arena, from, &s, &err));
    must(kw_conversion_write(plan(s, folder, KW_KEEP), in_dir(to), false, NULL, NULL, &err));
    must(kw_source_open(arena, in_dir(to), &s, &err));
    return s;
}

/* ---- there and back ------------------------------------------------------------------------------------------- */

/* Of the file's tensors those that are parameters must be in the new file, under their names, bit for bit. */
static size_t compare(const char *a, const char *b, const kw_conversion *there)
{
    kw_tensors *was, *is;
    size_t same = 0;
    must(kw_tensors_open(arena, a, &was, &err));
    must(kw_tensors_open(arena, b, &is, &err));
    for (size_t i = 0; i < kw_tensors_n(was); i++) {
        const kw_tensor *x = kw_tensors_at(was, i), *y = kw_tensors_find(is, x->name);
        bool left = false;
        for (size_t k = 0; k < kw_conversion_n_left(there); k++)
            left |= !strcmp(kw_conversion_left(there, k), x->name);
        if (left == (y != NULL))
            fail_msg("%s: %s", x->name, left ? "was left and is there" : "is missing");
        if (left)
            continue;
        if (x->dtype != y->dtype || x->rank != y->rank || memcmp(x->shape, y->shape, sizeof *x->shape * (size_t)x->rank)
            || memcmp(x->data, y->data, x->bytes))
            fail_msg("%s: other numbers or another shape", x->name);
        same++;
    }
    assert_int_equal(same, kw_tensors_n(is));
    return same;
}

static void files_come_back(void **state)
{
    (void)state;
    static const struct { const char *name; size_t left; } rows[] = { { "v1", 3 }, { "v2", 14 }, { "xl", 1 } };
    for (size_t k = 0; k < KW_LEN(rows); k++) {
        char *from = kw_sprintf(arena, GOLDEN "%s.safetensors", rows[k].name);
        char *folder = kw_sprintf(arena, "%s-folder", rows[k].name);
        char *back = kw_sprintf(arena, "%s.safetensors", rows[k].name);
        kw_source *s, *f, *b;
        must(kw_source_open(arena, from, &s, &err));
        kw_conversion *there = plan(s, true, KW_KEEP);
        assert_int_equal(kw_conversion_n_left(there), rows[k].left);
        f = convert(from, folder, true);
        b = convert(in_dir(folder), back, false);
        for (int p = 0; p <= KW_N_PARTS; p++) {
            char x[65], y[65], z[65];
            must(kw_source_hash(s, (kw_part)p, x, &err));
            must(kw_source_hash(f, (kw_part)p, y, &err));
            must(kw_source_hash(b, (kw_part)p, z, &err));
            assert_string_equal(x, y);
            assert_string_equal(x, z);
        }
        print_message("%s: %zu tensors, %zu left\n", rows[k].name, compare(from, in_dir(back), there), rows[k].left);
    }
}

/* What a folder says of itself the file made of it says too; what was guessed is not written down. */
static void configurations_go_along(void **state)
{
    (void)state;
    kw_source *s = convert(GOLDEN "xl.safetensors", "m", true), *file;
    json_t *unet = kw_source_config(s, KW_PART_UNET);
    bool noted = false;
    for (size_t i = 0; i < kw_source_n_notes(s); i++)
        noted |= strstr(kw_source_note(s, i), "inferred") != NULL;
    assert_false(noted);
    file = convert(in_dir("m"), "m.safetensors", false);
    assert_true(json_equal(unet, kw_source_config(file, KW_PART_UNET)));
    assert_false(kw_source_noise(file)->is_guess);
    assert_int_equal(kw_source_n_notes(file), 0);
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &s, &err));
    must(kw_conversion_write(plan(s, false, KW_KEEP), in_dir("g.safetensors"), false, NULL, NULL, &err));
    must(kw_source_open(arena, in_dir("g.safetensors"), &file, &err));
    assert_true(kw_source_n_notes(file) > 5 && kw_source_noise(file)->is_guess);
}

static void what_has_no_place_is_refused(void **state)
{
    (void)state;
    kw_source *s = convert(GOLDEN "v1.safetensors", "m", true);
    kw_conversion *c;
    size_t n = kw_source_n(s, KW_PART_UNET);
    float one = 1;
    kw_tensor *all = kw_alloc_array(arena, n + 1, sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i] = *kw_source_at(s, KW_PART_UNET, i);
    all[n] = (kw_tensor){ "encoder_hid_proj.weight", KW_F32, 1, { 1 }, &one, 4, false };
    must(kw_tensors_save(in_dir("x.safetensors"), all, n + 1, NULL, 0, &err));
    must(kw_remove_all(in_dir("m/unet/diffusion_pytorch_model.safetensors"), &err));
    assert_int_equal(rename(in_dir("x.safetensors"), in_dir("m/unet/diffusion_pytorch_model.safetensors")), 0);
    must(kw_source_open(arena, in_dir("m"), &s, &err));
    kw_status status = kw_conversion_plan(arena, s, &(kw_conversion_want){ .folder = false }, &c, &err);
    assert_int_equal(status, KW_EDATA);
    assert_non_null(strstr(err.what, "encoder_hid_proj.weight"));
    assert_non_null(strstr(err.advice, "folder"));
}

/* ---- numbers -------------------------------------------------------------------------------------------------- */

static kw_status as(kw_convert_type type, const float *v, size_t n, kw_tensors **out)
{
    const kw_tensor t = { "x", KW_F32, 1, { (int64_t)n }, v, n * 4, false };
    kw_conversion *c;
    must(kw_tensors_save(in_dir("in.safetensors"), &t, 1, NULL, 0, &err));
    must(kw_tensors_open(arena, in_dir("in.safetensors"), out, &err));
    must(kw_conversion_of_tensors(arena, *out, &(kw_conversion_want){ .type = type }, &c, &err));
    KW_TRY(kw_conversion_write(c, in_dir("out.safetensors"), true, NULL, NULL, &err));
    return kw_tensors_open(arena, in_dir("out.safetensors"), out, &err);
}

static void numbers_too_large_are_refused(void **state)
{
    (void)state;
    kw_tensors *t;
    const float fine[] = { 65504, INFINITY, NAN, -1 }, large[] = { 0, 65520, 1 };
    must(as(KW_TO_F16, fine, 4, &t));                              /* what is infinite already stays so */
    assert_int_equal(as(KW_TO_F16, large, 3, &t), KW_ENUMERIC);
    assert_non_null(strstr(err.what, "\"x\" holds 65520"));
    assert_non_null(strstr(err.advice, "bf16"));
    must(as(KW_TO_BF16, large, 3, &t));
}

/* Each of the 256 values of e4m3 is itself again, and halfway between two the even one is taken. */
static void fp8_is_rounded_to_even(void **state)
{
    (void)state;
    for (int b = 0; b < 0x7e; b++) {
        const uint8_t pair[] = { (uint8_t)b, (uint8_t)(b + 1) };
        float v[2], x[5];
        uint8_t back[5];
        kw_convert(KW_F32, v, KW_F8_E4M3, pair, 2);
        x[0] = v[0];
        x[1] = (v[0] + v[1]) / 2;
        x[2] = nextafterf(x[1], 0);
        x[3] = nextafterf(x[1], 1000);
        x[4] = -v[1];
        kw_convert(KW_F8_E4M3, back, KW_F32, x, 5);
        assert_int_equal(back[0], b);
        assert_int_equal(back[1], b % 2 ? b + 1 : b);
        assert_int_equal(back[2], b);
        assert_int_equal(back[3], b + 1);
        assert_int_equal(back[4], 0x80 | (b + 1));
    }
    const float ends[] = { 448, 464, 464.1f, INFINITY, NAN, -0.f };
    static const uint8_t want[] = { 0x7e, 0x7e, 0x7f, 0x7f, 0x7f, 0x80 };
    uint8_t back[6];
    kw_convert(KW_F8_E4M3, back, KW_F32, ends, 6);
    assert_memory_equal(back, want, 6);
}

/* ---- failures ------------------------------------------------------------------------------------------------- */

static void assert_only(const char *name)
{
    char **names;
    size_t n;
    must(kw_dir_list(arena, in_dir("out"), &names, &n, &err));
    if (n != (size_t)(name != NULL) || (name && strcmp(names[0], name)))
        fail_msg("left: %s", n ? names[0] : "nothing");
}

/* Every call on files fails once: nothing is left, or (replacing) the old model stands. */
static long fail_everywhere(bool folder, bool replace)
{
    const char *name = folder ? "m" : "m.safetensors";
    char *path = kw_path_join(arena, in_dir("out"), name);
    kw_source *s, *old;
    long calls = 0;
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &s, &err));
    for (long at = 1;; at += at < 12 ? 1 : 41, calls++) {          /* the last calls of each file are its commit */
        must(kw_remove_all(in_dir("out"), &err));
        must(kw_mkdirs(in_dir("out"), &err));
        if (replace)
            must(kw_conversion_write(plan(s, folder, KW_KEEP), path, false, NULL, NULL, &err));
        kw_conversion *c = plan(s, folder, KW_TO_F32);
        kw_io_fault_start(&(kw_io_fault){ .at = at, .error = ENOSPC });
        kw_status status = kw_conversion_write(c, path, replace, NULL, NULL, &err);
        long counted = kw_io_fault_stop();
        if (at > counted && !status)
            break;
        if (!status || (replace && folder))                        /* a folder is exchanged in two steps */
            continue;
        if (status && replace) {
            assert_only(name);
            must(kw_source_open(arena, path, &old, &err));
        } else if (status && !kw_is_dir(path) && !kw_is_file(path))
            assert_only(NULL);
    }
    return calls;
}

static void failures_leave_nothing(void **state)
{
    (void)state;
    long file = fail_everywhere(false, false), over = fail_everywhere(false, true);
    long folder = fail_everywhere(true, false);
    print_message("%ld + %ld + %ld calls failed\n", file, over, folder);
    assert_true(file > 20 && folder > 20);
}

static kw_status stop_at_once(void *user, uint64_t done, kw_err *e)
{
    (void)user;
    return done > 10000 ? kw_fail(e, KW_ESTOP, "stop") : KW_OK;
}

static void a_stop_leaves_nothing(void **state)
{
    (void)state;
    kw_source *s;
    must(kw_mkdirs(in_dir("out"), &err));
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &s, &err));
    for (int folder = 0; folder < 2; folder++) {
        char *path = kw_path_join(arena, in_dir("out"), folder ? "m" : "m.safetensors");
        kw_status status = kw_conversion_write(plan(s, folder, KW_KEEP), path, false, stop_at_once, NULL, &err);
        assert_int_equal(status, KW_ESTOP);
        assert_only(NULL);
    }
}

static void memory_may_run_out(void **state)
{
    (void)state;
    for (long n = 1;; n += n < 20 ? 1 : 311) {
        kw_arena *a = kw_arena_new();
        kw_source *s;
        kw_conversion *c;
        must(kw_source_open(a, GOLDEN "xl.safetensors", &s, &err));
        kw_alloc_fail_after(n);
        kw_status status = kw_conversion_plan(a, s, &(kw_conversion_want){ .folder = n % 2 }, &c, &err);
        if (!status)
            status = kw_conversion_write(c, in_dir(n % 2 ? "m" : "m.safetensors"), false, NULL, NULL, &err);
        kw_alloc_fail_after(0);
        kw_arena_free(a);
        if (!status)
            break;
        assert_int_equal(status, KW_ENOMEM);
        assert_true(n < 100000);
    }
}

#define U(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        U(files_come_back),
        U(configurations_go_along),
        U(what_has_no_place_is_refused),
        U(numbers_too_large_are_refused),
        U(fp8_is_rounded_to_even),
        U(failures_leave_nothing),
        U(a_stop_leaves_nothing),
        U(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
