/*
 * test_parity.c - `kiwame debug run` against PyTorch's values in tests/golden/models: outputs, every gradient of every
 * parameter and input. Limits are the project's promise: outputs |y - y*| <= 1e-5 |y*|; gradients
 * |g - g*| <= 1e-4 |g*| + 1e-6 |all gradients|. Measured: outputs 2e-7 to 6e-7, gradients at most 4 % of their limit.
 */
#include "io/io.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *binary;

typedef struct { const char *part, *model, *in, *out; } row;
static const row rows[] = {
    { "unet", "unet-tiny", "in", "out" }, { "unet", "unet-sdxl-tiny", "in", "out" },
    { "text", "text-tiny", "in", "out" },
    { "vae-encode", "vae-tiny", "encode-in", "encode-out" }, { "vae-decode", "vae-tiny", "decode-in", "decode-out" },
    { "text2", "text2-tiny", "in", "out" }, { "unet", "unet-ssd-tiny", "in", "out" },
};

static double at(const kw_tensor *t, int64_t i)
{
    double x;
    kw_convert(KW_F64, &x, t->dtype, (const char *)t->data + (size_t)i * kw_dtype_size(t->dtype), 1);
    return x;
}

static double norm(const kw_tensor *a, const kw_tensor *b)
{
    double sum = 0;
    for (int64_t i = 0; i < kw_tensor_count(a); i++) {
        double d = at(a, i) - (b ? at(b, i) : 0);
        sum += d * d;
    }
    return sqrt(sum);
}

static double all_gradients(const kw_tensors *t)
{
    double sum = 0;
    for (size_t i = 0; i < kw_tensors_n(t); i++)
        if (kw_starts_with(kw_tensors_at(t, i)->name, "grad."))
            sum += norm(kw_tensors_at(t, i), NULL) * norm(kw_tensors_at(t, i), NULL);
    return sqrt(sum);
}

typedef struct { double output, gradient, rest; } limits;      /* of the value's norm; rest: of all gradients' norm */
static const limits promise = { 1e-5, 1e-4, 1e-6 };

static void compare(const row *r, const limits *most, const kw_tensors *want, const kw_tensors *got)
{
    double total = all_gradients(want), worst_output = 0, worst_gradient = 0;
    assert_int_equal(kw_tensors_n(got), kw_tensors_n(want));
    for (size_t i = 0; i < kw_tensors_n(want); i++) {
        const kw_tensor *w = kw_tensors_at(want, i), *g = kw_tensors_find(got, w->name);
        if (!g || kw_tensor_count(g) != kw_tensor_count(w))
            fail_msg("%s: %s is missing or of another shape", r->model, w->name);
        double off = norm(g, w), size = norm(w, NULL), *worst = &worst_output, limit = most->output * size;
        if (kw_starts_with(w->name, "grad.")) {
            limit = most->gradient * size + most->rest * total;
            worst = &worst_gradient;
        }
        *worst = fmax(*worst, off / fmax(limit, 1e-300));
    }
    printf("%-12s %-16s outputs at %.3f, gradients at %.3f of their limits\n", r->part, r->model, worst_output,
           worst_gradient);
    assert_true(worst_output <= 1 && worst_gradient <= 1);
}

static void run(const row *r, const limits *most, const char *options)
{
    char command[2048], out[] = "/tmp/kiwame-parity-XXXXXX", path[1024];
    kw_err e = { 0 };
    kw_arena *a = kw_arena_new();
    kw_tensors *want, *got;
    int fd = mkstemp(out);
    assert_true(fd >= 0);
    close(fd);
    snprintf(command, sizeof command,
             "'%s' debug run %s --base %s/golden/models/%s --in %s/golden/models/%s/%s.safetensors --out %s --grad %s",
             binary,
             r->part, KW_TESTS, r->model, KW_TESTS, r->model, r->in, out, options);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/golden/models/%s/%s.safetensors", KW_TESTS, r->model, r->out);
    if (kw_tensors_open(a, path, &want, &e) || kw_tensors_open(a, out, &got, &e))
        fail_msg("%s", e.what);
    compare(r, most, want, got);
    kw_arena_free(a);
    unlink(out);
}

static void parts_agree_with_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < KW_LEN(rows); i++)
        run(&rows[i], &promise, "");
}

/* One part's outputs and gradients into a file of this name. */
static void write_out(const char *recompute, const char *out)
{
    char command[2048];
    snprintf(command, sizeof command,
             "'%s' debug run unet --base %s/golden/models/unet-tiny --in %s/golden/models/unet-tiny/in.safetensors "
             "--out %s --grad "
             "--recompute %s", binary, KW_TESTS, KW_TESTS, out, recompute);
    assert_int_equal(system(command), 0);
}

/* Recomputation changes no bit: kernels are deterministic and round where they did before. */
static void recomputation_changes_no_bit(void **state)
{
    (void)state;
    static const char *const levels[] = { "none", "lean", "floor" };
    char dir[] = "/tmp/kiwame-bits-XXXXXX", path[64], first[65], hex[65];
    kw_err e = { 0 };
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < KW_LEN(levels); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, levels[i]);
        write_out(levels[i], path);
        assert_int_equal(kw_sha256_file(path, i ? hex : first, &e), KW_OK);
        if (i)
            assert_string_equal(hex, first);
    }
    assert_int_equal(kw_remove_all(dir, &e), KW_OK);
}

static void double_precision_agrees(void **state)
{
    (void)state;
    run(&rows[0], &promise, "--dtype f64");
    run(&rows[2], &promise, "--dtype f64");
}

/*
 * bf16 has 8 bits: a rounding is 1.7e-3 of a value on the average, some tens of them follow each other in these models.
 * The same promise where products are of widened numbers (AVX2) and where they are of bf16 (AVX512-BF16).
 */
static void bf16_stays_near(void **state)
{
    static const limits near = { 3e-2, 6e-2, 2e-2 };
    (void)state;
    for (size_t i = 0; i < KW_LEN(rows); i++)
        run(&rows[i], &near, "--dtype bf16");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_agree_with_pytorch), cmocka_unit_test(recomputation_changes_no_bit),
        cmocka_unit_test(double_precision_agrees),
        cmocka_unit_test(bf16_stays_near),
    };
    binary = argc > 1 ? argv[1] : "build/kiwame";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
