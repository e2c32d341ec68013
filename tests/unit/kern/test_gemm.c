/*
 * test_gemm.c - matrix products against the definition in double: sizes, transposes, strides, alpha, beta, bias and
 * types; bytes around C and scratch stay as they were; the same bits twice. Prints the worst error.
 */
#include "kern/dnn.h"
#include "../isa.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

/*  relative L2; f32 measured 5e-7; bf16: its rounding alone is 1.7e-3  */
static const double limit_f32 = 2e-6, limit_bf16 = 2.5e-3;
static double worst[2];

enum { GUARD = 256 };

static char *guarded(size_t n)
{
    char *p = aligned_alloc(64, (n + 2 * GUARD + 63) & ~(size_t)63);
    memset(p, 0xA5, n + 2 * GUARD);
    return p + GUARD;
}

static void release(char *p, size_t n)
{
    for (int i = 0; i < GUARD; i++) {
        assert_int_equal((unsigned char)p[-1 - i], 0xA5);
        assert_int_equal((unsigned char)p[n + (size_t)i], 0xA5);
    }
    free(p - GUARD);
}

static double get(kw_dtype t, const void *p, int64_t i)
{
    return t == KW_F32    ? (double)((const float *)p)[i]
           : t == KW_BF16 ? (double)kw_bf16_to_f32(((const uint16_t *)p)[i])
                          : (double)kw_f16_to_f32(((const uint16_t *)p)[i]);
}

static char *matrix(kw_dtype t, int64_t rows, int64_t ld, uint64_t seed)
{
    size_t n = (size_t)(rows * ld);
    char *p = guarded(n * kw_dtype_size(t));
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        double x = (double)(int32_t)(seed >> 32) * 0x1p-31;
        kw_convert(t, p + i * kw_dtype_size(t), KW_F64, &x, 1);
    }
    return p;
}

static double product(const kw_gemm_shape *s, const void *a, const void *b, int64_t r, int64_t q)
{
    double sum = 0;
    for (int64_t i = 0; i < s->k; i++)
        sum += get(s->a, a, s->ta ? i * s->lda + r : r * s->lda + i) *
               get(s->b, b, s->tb ? q * s->ldb + i : i * s->ldb + q);
    return sum;
}

static double compare(const kw_gemm_shape *s, const void *a, const void *b, const float *bias, const void *c0,
                      const void *c)
{
    double error = 0, size = 0;
    for (int64_t r = 0; r < s->m; r++)
        for (int64_t q = 0; q < s->ldc; q++) {
            double got = get(s->c, c, r * s->ldc + q), old = get(s->c, c0, r * s->ldc + q), want = old;
            if (q < s->n)
                want = (double)s->alpha * product(s, a, b, r, q) + (s->beta != 0 ? (double)s->beta * old : 0)
                     + (bias ? (double)bias[q] : 0);
            else
                assert_true(got == want);              /* between the rows */
            if (q < s->n) {
                error += (got - want) * (got - want);
                size += want * want;
            }
        }
    return size > 0 ? sqrt(error / size) : sqrt(error);
}

static void one(kw_gemm_shape s, int slack, bool with_bias)
{
    int64_t ra = s.ta ? s.k : s.m, rb = s.tb ? s.n : s.k;
    s.lda = (s.ta ? s.m : s.k) + slack;
    s.ldb = (s.tb ? s.k : s.n) + slack;
    s.ldc = s.n + slack;
    size_t na = (size_t)(ra * s.lda) * kw_dtype_size(s.a), nb = (size_t)(rb * s.ldb) * kw_dtype_size(s.b);
    size_t nc = (size_t)(s.m * s.ldc) * kw_dtype_size(s.c), n_scratch = kw_gemm_scratch_size(&s);
    char *a = matrix(s.a, ra, s.lda, 1), *b = matrix(s.b, rb, s.ldb, 2), *c0 = matrix(s.c, s.m, s.ldc, 3);
    char *bias = matrix(KW_F32, 1, s.n, 4), *c = guarded(nc), *again = guarded(nc), *scratch = guarded(n_scratch);
    memcpy(c, c0, nc);
    memcpy(again, c0, nc);
    kw_gemm(&s, a, b, with_bias ? (float *)bias : NULL, c, scratch);
    memset(scratch, 0xFF, n_scratch);
    kw_gemm(&s, a, b, with_bias ? (float *)bias : NULL, again, scratch);
    assert_memory_equal(c, again, nc);
    double error = compare(&s, a, b, with_bias ? (float *)bias : NULL, c0, c);
    if (!(error <= (s.c != KW_BF16 ? limit_f32 : s.m * s.n < 64 ? 0x1p-8 : limit_bf16)))
        fail_msg("m %d n %d k %d %s%s types %d %d %d alpha %g beta %g: %.2e", (int)s.m, (int)s.n, (int)s.k,
                 s.ta ? "T" : "N", s.tb ? "T" : "N", (int)s.a, (int)s.b, (int)s.c, (double)s.alpha, (double)s.beta,
                 error);
    worst[s.c == KW_BF16] = fmax(worst[s.c == KW_BF16], error);
    release(a, na), release(b, nb), release(c0, nc), release(c, nc), release(again, nc);
    release(bias, (size_t)s.n * 4), release(scratch, n_scratch);
}

static const int sizes[][3] = {
    { 1, 1, 1 }, { 1, 320, 320 }, { 7, 5, 3 }, { 64, 64, 64 }, { 77, 33, 129 }, { 200, 16, 320 }, { 200, 320, 16 },
    { 16, 320, 300 }, { 4, 1280, 40 }, { 33, 1, 65 }, { 257, 4, 12 }, { 130, 100, 513 }, { 3, 3, 1000 },
};

static void sizes_and_transposes(void **state)
{
    (void)state;
    for (size_t i = 0; i < KW_LEN(sizes); i++)
        for (int k = 0; k < 32; k++)
            one((kw_gemm_shape){ .m = sizes[i][0], .n = sizes[i][1], .k = sizes[i][2], .ta = k & 1, .tb = k & 2,
                                 .a = KW_F32, .b = KW_F32, .c = KW_F32, .alpha = k & 4 ? 1 : -0.75f,
                                 .beta = k & 4 ? 0 : k & 2 ? 1 : 0.5f }, k & 8 ? 3 : 0, k & 16);
}

static void types(void **state)
{
    static const kw_dtype sources[] = { KW_F32, KW_BF16, KW_F16 };
    (void)state;
    for (size_t i = 0; i < KW_LEN(sizes); i += 2)
        for (int k = 0; k < 18; k++)
            for (int t = 0; t < 4; t++)
                one((kw_gemm_shape){ .m = sizes[i][0], .n = sizes[i][1], .k = sizes[i][2], .ta = t & 1, .tb = t & 2,
                                     .a = sources[k % 3], .b = sources[k / 3 % 3], .c = k < 9 ? KW_F32 : KW_BF16,
                                     .alpha = 0.5f, .beta = t & 1 ? 1.0f : 0 }, k & 1, t & 2);
    print_message("worst relative error: %.1e f32, %.1e bf16\n", worst[0], worst[1]);
}

static void nothing_to_sum_or_to_write(void **state)
{
    (void)state;
    static _Alignas(64) float scratch[1 << 14];
    float c[6] = { 1, 2, 3, 4, 5, 6 }, bias[2] = { 10, 20 };
    kw_gemm_shape s = { .m = 2, .n = 2, .k = 0, .lda = 1, .ldb = 2, .ldc = 3, .alpha = 1, .beta = 2 };
    assert_true(kw_gemm_scratch_size(&s) <= sizeof scratch);
    kw_gemm(&s, c, c, bias, c, scratch);
    assert_true(c[0] == 12 && c[1] == 24 && c[2] == 3 && c[3] == 18 && c[4] == 30 && c[5] == 6);
    s.m = 0;
    kw_gemm(&s, c, c, bias, c, scratch);
    assert_true(c[0] == 12);
}

/* With beta = 0, C is not read: what lies there may be no number. */
static void beta_zero_does_not_read(void **state)
{
    (void)state;
    static _Alignas(64) float scratch[1 << 14];
    float a[64], b[64], c[64];
    for (int i = 0; i < 64; i++)
        a[i] = b[i] = 1, c[i] = NAN;
    kw_gemm_shape s = { .m = 8, .n = 8, .k = 8, .lda = 8, .ldb = 8, .ldc = 8, .alpha = 1 };
    assert_true(kw_gemm_scratch_size(&s) <= sizeof scratch);
    kw_gemm(&s, a, b, NULL, c, scratch);
    for (int i = 0; i < 64; i++)
        assert_true(c[i] == 8);
}

/* The primitive that bf16 products go through where the machine has them, tried with f32 on every machine. */
static void cached_product(void **state)
{
    (void)state;
    for (int k = 0; k < 16; k++) {
        kw_gemm_shape s = { .m = 37, .n = 50, .k = 29, .ta = k & 1, .tb = k & 2, .a = KW_F32, .b = KW_F32, .c = KW_F32,
                            .alpha = k & 4 ? 1 : 0.5f, .beta = k & 8 ? 0.25f : 0 };
        s.lda = (s.ta ? s.m : s.k) + 3, s.ldb = (s.tb ? s.k : s.n) + 1, s.ldc = s.n + 2;
        const kw_dnn_matmul *p = kw_dnn_matmul_get(&s);
        if (!p)
            continue;
        assert_ptr_equal(p, kw_dnn_matmul_get(&s));
        size_t n_scratch = kw_dnn_matmul_scratch_size(p), nc = (size_t)(s.m * s.ldc) * 4;
        char *a = matrix(KW_F32, s.ta ? s.k : s.m, s.lda, 1), *b = matrix(KW_F32, s.tb ? s.n : s.k, s.ldb, 2);
        char *c0 = matrix(KW_F32, s.m, s.ldc, 3), *bias = matrix(KW_F32, 1, s.n, 4), *c = guarded(nc),
             *scratch = guarded(n_scratch);
        float scaled[50];
        for (int i = 0; i < s.n; i++)
            scaled[i] = s.alpha * ((float *)bias)[i];
        memcpy(c, c0, nc);
        kw_dnn_matmul_run(p, a, b, (float *)bias, c, scratch);
        assert_true(compare(&s, a, b, scaled, c0, c) <= limit_f32);
        release(a, (size_t)((s.ta ? s.k : s.m) * s.lda) * 4), release(b, (size_t)((s.tb ? s.n : s.k) * s.ldb) * 4);
        release(c0, nc), release(c, nc), release(bias, (size_t)s.n * 4), release(scratch, n_scratch);
    }
}

/* Where matrices are cut among threads changes no bit. */
static void any_number_of_threads(void **state)
{
    static const int shapes[][3] = { { 300, 330, 700 }, { 64, 1280, 200 }, { 4096, 16, 40 }, { 16, 320, 4096 } };
    int threads = kw_threads();
    (void)state;
    for (size_t i = 0; i < KW_LEN(shapes); i++)
        for (int k = 0; k < 8; k++) {
            kw_gemm_shape s = { .m = shapes[i][0], .n = shapes[i][1], .k = shapes[i][2], .ta = k & 1, .tb = k & 2,
                                .a = KW_F32, .b = k & 4 ? KW_F16 : KW_F32, .c = k & 4 ? KW_BF16 : KW_F32, .alpha = 1 };
            s.lda = s.ta ? s.m : s.k, s.ldb = s.tb ? s.k : s.n, s.ldc = s.n;
            size_t nc = (size_t)(s.m * s.n) * kw_dtype_size(s.c);
            char *a = matrix(s.a, s.ta ? s.k : s.m, s.lda, 1), *b = matrix(s.b, s.tb ? s.n : s.k, s.ldb, 2);
            char *one_thread = guarded(nc), *c = guarded(nc);
            for (int t = 1; t <= 9; t += t == 4 ? 5 : 1) {
                kw_threads_set(t);
                size_t n_scratch = kw_gemm_scratch_size(&s);
                char *scratch = guarded(n_scratch);
                kw_gemm(&s, a, b, NULL, t == 1 ? one_thread : c, scratch);
                if (t > 1)
                    assert_memory_equal(c, one_thread, nc);
                release(scratch, n_scratch);
            }
            release(a, (size_t)((s.ta ? s.k : s.m) * s.lda) * kw_dtype_size(s.a));
            release(b, (size_t)((s.tb ? s.n : s.k) * s.ldb) * kw_dtype_size(s.b));
            release(one_thread, nc), release(c, nc);
        }
    kw_threads_set(threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_transposes),
        cmocka_unit_test(types),
        cmocka_unit_test(nothing_to_sum_or_to_write),
        cmocka_unit_test(beta_zero_does_not_read),
        cmocka_unit_test(any_number_of_threads),
        cmocka_unit_test(cached_product),
    };
    static const char *const isa[] = { "scalar", "avx2", "avx512", "avx512_bf16" };
    int failed = 0;
    for (size_t i = 0; i < KW_LEN(isa); i++)
        if (!kw_kern_choose(isa[i], NULL)) {
            print_message("%s\n", isa[i]);
            failed += cmocka_run_group_tests(tests, NULL, NULL);
        }
    return failed;
}
