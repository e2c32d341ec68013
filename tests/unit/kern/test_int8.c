/*
 * test_int8.c - matrices of one byte a number: exact cases, what is refused, the error of a number; products and packed
 * convolution weights made from them against the matrix that they stand for; every number of threads, guarded memory.
 */
#include "kern/conv.h"
#include "../isa.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 256 };

static char *guarded(size_t n)
{
    char *p = aligned_alloc(64, (n + 2 * GUARD + 63) & ~(size_t)63);
    memset(p, 0xA5, n + 2 * GUARD);
    return p + GUARD;
}

static void release(void *at, size_t n)
{
    unsigned char *p = at;
    for (int i = 0; i < GUARD; i++) {
        assert_int_equal(p[-1 - i], 0xA5);
        assert_int_equal(p[n + (size_t)i], 0xA5);
    }
    free(p - GUARD);
}

static void fill(float *x, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)((double)(int32_t)(seed >> 32) * 0x1p-31);
    }
}

static void *made(const float *x, int64_t rows, int64_t n)
{
    void *w = guarded(kw_int8_size(rows, n));
    memset(w, 0, kw_int8_size(rows, n));
    assert_true(kw_kern_get()->int8_make(KW_F32, x, rows, n, w));
    return w;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void exact_cases(void **state)
{
    enum { ROWS = 6, N = 37 };
    float x[ROWS * N] = { 0 }, y[ROWS * N];
    (void)state;
    for (int i = 0; i < N; i++) {
        x[N + i] = 0.37f;                                          /* equal numbers */
        x[2 * N + i] = (float)(i * 7 % 255 - 127) * 0x1p-9f;       /* whole numbers of a power of two, 127 among them */
        x[3 * N + i] = i & 1 ? -3e38f : 3e38f;                     /* the ends of the range */
        x[4 * N + i] = i ? 0 : -5;                                 /* one number alone */
        x[5 * N + i] = i & 1 ? 1e-38f : -1e-40f;                   /* below what is kept */
    }
    x[2 * N + 36] = -127 * 0x1p-9f;
    char *w = made(x, ROWS, N);
    const int8_t *code = (const int8_t *)w;
    const float *scale = kw_int8_scales(w, ROWS, N);
    kw_int8_rows(KW_F32, w, ROWS, N, y);
    for (int i = 0; i < N; i++) {
        assert_true(code[i] == 0 && scale[0] == 0 && y[i] == 0);
        assert_true(code[N + i] == 127 && fabs((double)y[N + i] - 0.37) < 1e-7);
        assert_true(y[2 * N + i] == x[2 * N + i] && scale[2] == 0x1p-9f);
        assert_true(code[3 * N + i] == (i & 1 ? -127 : 127) && isfinite(y[3 * N + i]));
        assert_true(code[4 * N + i] == (i ? 0 : -127));
        assert_true(code[5 * N + i] == 0 && y[5 * N + i] == 0);
    }
    release(w, kw_int8_size(ROWS, N));
}

/* Every number is within half a step, and the largest of a row is itself. */
static void error_of_a_number(void **state)
{
    static const kw_dtype type[] = { KW_F32, KW_BF16, KW_F16 };
    double worst = 0;
    (void)state;
    for (int64_t n = 1; n < 80; n += n < 20 ? 1 : 7)
        for (int t = 0; t < 3; t++) {
            int64_t rows = 5;
            float x[5 * 80], y[5 * 80];
            uint16_t narrow[5 * 80];
            fill(x, rows * n, (uint64_t)n);
            if (t) {
                kw_convert(type[t], narrow, KW_F32, x, (size_t)(rows * n));
                kw_convert(KW_F32, x, type[t], narrow, (size_t)(rows * n));
            }
            char *w = guarded(kw_int8_size(rows, n));
            assert_true(kw_kern_get()->int8_make(type[t], t ? (void *)narrow : x, rows, n, w));
            kw_int8_rows(KW_F32, w, rows, n, y);
            for (int64_t i = 0; i < rows * n; i++) {
                double step = (double)kw_int8_scales(w, rows, n)[i / n], off = fabs((double)y[i] - (double)x[i]);
                worst = fmax(worst, off / step);
                assert_true(off <= 0.50001 * step && abs(((const int8_t *)w)[i]) <= 127);
            }
            release(w, kw_int8_size(rows, n));
        }
    print_message("largest error of a number: %.5f of a step\n", worst);
}

static void not_finite_is_refused(void **state)
{
    static const float odd[] = { NAN, INFINITY, -INFINITY };
    float x[3 * 41];
    char *w = guarded(kw_int8_size(3, 41));
    (void)state;
    for (int at = 0; at < 3 * 41; at++)
        for (int k = 0; k < 3; k++) {
            fill(x, 3 * 41, 1);
            x[at] = odd[k];
            assert_false(kw_kern_get()->int8_make(KW_F32, x, 3, 41, w));
        }
    release(w, kw_int8_size(3, 41));
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* relative L2, measured 5e-7 */
static const double limit = 2e-6, limit_bf16 = 2.5e-3;
static double worst;

static double number(kw_dtype t, const void *p, int64_t i)
{
    return t == KW_F32 ? (double)((const float *)p)[i] : (double)kw_bf16_to_f32(((const uint16_t *)p)[i]);
}

static double error_of(const kw_gemm_shape *s, const void *a, const char *w, const float *bias, const void *c)
{
    int64_t rows = s->tb ? s->n : s->k, each = s->tb ? s->k : s->n;
    const float *scale = kw_int8_scales(w, rows, each);
    double error = 0, size = 0;
    for (int64_t r = 0; r < s->m; r++)
        for (int64_t q = 0; q < s->n; q++) {
            double sum = 0;
            for (int64_t i = 0; i < s->k; i++) {
                int64_t row = s->tb ? q : i, column = s->tb ? i : q;
                sum += number(s->a, a, r * s->lda + i) * ((const int8_t *)w)[row * each + column] * (double)scale[row];
            }
            double want = (double)s->alpha * sum + (bias ? (double)bias[q] : 0) + (s->beta != 0 ? (double)s->beta : 0);
            double got = number(s->c, c, r * s->ldc + q);
            error += (got - want) * (got - want);
            size += want * want;
        }
    return size > 0 ? sqrt(error / size) : sqrt(error);
}

static void ones(kw_dtype t, void *c, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (t == KW_F32)
            ((float *)c)[i] = 1;
        else
            ((uint16_t *)c)[i] = 0x3f80;
}

/* With 1, 2 and 5 threads: the same bits. */
static void one(kw_gemm_shape s, bool with_bias)
{
    int64_t rows = s.tb ? s.n : s.k, each = s.tb ? s.k : s.n;
    s.lda = s.k, s.ldb = each, s.ldc = s.n;
    size_t na = (size_t)(s.m * s.k) * kw_dtype_size(s.a), nc = (size_t)(s.m * s.n) * kw_dtype_size(s.c);
    float *x = malloc((size_t)KW_MAX(s.m * s.k, rows * each) * 4), *bias = malloc((size_t)s.n * 4);
    char *a = guarded(na), *c = guarded(nc), *first = guarded(nc);
    fill(x, rows * each, 2), fill(bias, s.n, 4);
    char *w = made(x, rows, each);
    fill(x, s.m * s.k, 1);
    kw_convert(s.a, a, KW_F32, x, (size_t)(s.m * s.k));
    int usual = kw_threads();
    for (int t = 1; t <= 5; t += t == 1 ? 1 : 3) {
        kw_threads_set(t);
        size_t n_scratch = kw_gemm_scratch_size(&s);
        char *scratch = guarded(n_scratch);
        ones(s.c, c, s.m * s.n);
        kw_gemm(&s, a, w, with_bias ? bias : NULL, c, scratch);
        if (t == 1)
            memcpy(first, c, nc);
        assert_memory_equal(c, first, nc);
        release(scratch, n_scratch);
    }
    kw_threads_set(usual);
    double error = error_of(&s, a, w, with_bias ? bias : NULL, c);
    if (!(error <= (s.c == KW_BF16 ? s.m * s.n < 64 ? 0x1p-8 : limit_bf16 : limit)))
        fail_msg("m %d n %d k %d %s alpha %g: %.2e", (int)s.m, (int)s.n, (int)s.k, s.tb ? "T" : "N", (double)s.alpha, error);
    if (s.c == KW_F32)
        worst = fmax(worst, error);
    release(a, na), release(c, nc), release(first, nc), release(w, kw_int8_size(rows, each));
    free(x), free(bias);
}

static void products(void **state)
{
    static const int sizes[][3] = {
        { 1, 1, 1 }, { 1, 320, 320 }, { 7, 5, 3 }, { 64, 64, 64 }, { 77, 33, 129 }, { 200, 16, 320 }, { 16, 320, 300 },
        { 4, 1280, 40 }, { 33, 1, 65 }, { 257, 4, 12 }, { 130, 100, 513 }, { 3, 3, 1000 }, { 300, 50, 70 },
    };
    (void)state;
    for (size_t i = 0; i < KW_LEN(sizes); i++)
        for (int k = 0; k < 16; k++)
            one((kw_gemm_shape){ .m = sizes[i][0], .n = sizes[i][1], .k = sizes[i][2], .tb = k & 1,
                                 .a = k & 2 ? KW_BF16 : KW_F32, .b = KW_I8, .c = k & 4 ? KW_BF16 : KW_F32,
                                 .alpha = k & 8 ? -0.75f : 1, .beta = k & 8 ? 1 : 0 }, k & 1);
    print_message("worst relative error of a product: %.1e\n", worst);
}

/*
 * In whole numbers, where the instruction set has them (else the same as above). Of the rounding of A: at most half a step
 * a number, |A[r]| / (2 most), so |error| <= |A[r]| / (2 most) sum |b[j]| and a rounding of the result.
 */
static void whole_one(kw_gemm_shape s, bool with_bias)
{
    s.lda = s.k + 3, s.ldb = s.k, s.ldc = s.n + 1, s.b = KW_I8, s.tb = true, s.whole = true;
    size_t na = (size_t)(s.m * s.lda) * kw_dtype_size(s.a), nc = (size_t)(s.m * s.ldc) * kw_dtype_size(s.c);
    float *x = malloc((size_t)KW_MAX(s.m * s.lda, s.n * s.k) * 4), *bias = malloc((size_t)s.n * 4);
    char *a = guarded(na), *c = guarded(nc), *first = guarded(nc);
    fill(x, s.n * s.k, 2), fill(bias, s.n, 4);
    char *w = made(x, s.n, s.k);
    fill(x, s.m * s.lda, 1);
    for (int64_t i = 0; i < s.lda; i++)
        x[i] *= 1e6f;                     /* each row has a scale of its own */
    memset(x + s.lda, 0, (size_t)s.lda * 4);
    kw_convert(s.a, a, KW_F32, x, (size_t)(s.m * s.lda));
    int usual = kw_threads();
    for (int t = 1; t <= 5; t += t == 1 ? 1 : 3) {
        kw_threads_set(t);
        size_t n_scratch = kw_gemm_scratch_size(&s);
        char *scratch = guarded(n_scratch);
        memset(scratch, t, n_scratch);
        ones(s.c, c, s.m * s.ldc);
        kw_gemm(&s, a, w, with_bias ? bias : NULL, c, scratch);
        if (t == 1)
            memcpy(first, c, nc);
        assert_memory_equal(c, first, nc);
        release(scratch, n_scratch);
    }
    kw_threads_set(usual);
    const float *scale = kw_int8_scales(w, s.n, s.k);
    int64_t top = INT32_MAX / (127 * s.k);
    double most = (double)KW_MIN(top, 32767), of_result = s.c == KW_BF16 ? 0x1p-8 : 1e-6;
    for (int64_t r = 0; r < s.m; r++) {
        double largest = 0;
        for (int64_t i = 0; i < s.k; i++)
            largest = fmax(largest, fabs(number(s.a, a, r * s.lda + i)));
        for (int64_t q = 0; q < s.n; q++) {
            double sum = 0, size = 0;
            for (int64_t i = 0; i < s.k; i++) {
                double b = ((const int8_t *)w)[q * s.k + i] * (double)scale[q];
                sum += number(s.a, a, r * s.lda + i) * b;
                size += fabs(b);
            }
            double want = (double)s.alpha * sum + (with_bias ? (double)bias[q] : 0) + (double)s.beta;
            double bound = fabs((double)s.alpha) * largest * size * (0.5001 / most + 2e-7 * sqrt((double)s.k)) + of_result * (fabs(want) + 1);
            double off = fabs(number(s.c, c, r * s.ldc + q) - want);
            if (!(off <= bound))
                fail_msg("m %d n %d k %d at %d, %d: off by %g, at most %g", (int)s.m, (int)s.n, (int)s.k, (int)r, (int)q, off, bound);
        }
    }
    release(a, na), release(c, nc), release(first, nc), release(w, kw_int8_size(s.n, s.k));
    free(x), free(bias);
}

static void whole_products(void **state)
{
    static const int sizes[][3] = {
        { 31, 16, 64 }, { 32, 16, 16 }, { 33, 1, 17 }, { 40, 33, 31 }, { 200, 16, 320 }, { 97, 100, 513 }, { 35, 40, 5121 },
        { 64, 700, 40 }, { 300, 50, 70 },
    };
    (void)state;
    for (size_t i = 0; i < KW_LEN(sizes); i++)
        for (int k = 0; k < 8; k++)
            whole_one((kw_gemm_shape){ .m = sizes[i][0], .n = sizes[i][1], .k = sizes[i][2], .a = k & 1 ? KW_BF16 : KW_F32,
                                       .c = k & 2 ? KW_BF16 : KW_F32, .alpha = k & 4 ? -0.75f : 1, .beta = k & 4 ? 1 : 0 },
                      k & 1);
}

/* The largest codes against the largest numbers do not leave 32 bits; a number that is none spoils its own row alone. */
static void ends_of_the_range(void **state)
{
    enum { M = 40, N = 20, K = 4099 };
    float *x = malloc((size_t)M * K * 4), *w = malloc((size_t)N * K * 4), *c = malloc((size_t)M * N * 4);
    (void)state;
    for (int i = 0; i < M * K; i++)
        x[i] = i / K % 2 ? -2.5f : 2.5f;
    for (int i = 0; i < N * K; i++)
        w[i] = i / K % 3 ? -127 : 127;
    x[7 * K + 4000] = NAN;
    char *codes = made(w, N, K);
    kw_gemm_shape s = { .m = M, .n = N, .k = K, .lda = K, .ldb = K, .ldc = N, .tb = true, .b = KW_I8, .alpha = 1, .whole = true };
    char *scratch = guarded(kw_gemm_scratch_size(&s));
    kw_gemm(&s, x, codes, NULL, c, scratch);
    for (int r = 0; r < M; r++)
        for (int q = 0; q < N; q++) {
            double want = (r % 2 ? -2.5 : 2.5) * (q % 3 ? -127 : 127) * K, got = (double)c[r * N + q];
            assert_true(r == 7 ? isnan(got) : fabs(got / want - 1) < 1e-5);
        }
    release(scratch, kw_gemm_scratch_size(&s)), release(codes, kw_int8_size(N, K));
    free(x), free(w), free(c);
}

/* ---- convolutions ------------------------------------------------------------------------------------------------ */

/* Packed from codes and from the numbers they stand for: the same bits, in every way that is there. */
static void packed_weights(void **state)
{
    static const kw_conv_shape shapes[] = {
        { 1, 9, 9, 40, 24, 3, 3, 1, 1, 1, 1, 1 }, { 1, 9, 9, 70, 33, 3, 3, 1, 1, 1, 1, 1 }, { 1, 9, 9, 16, 20, 1, 1, 1, 0, 0, 0, 0 },
        { 1, 9, 9, 17, 16, 3, 3, 2, 1, 1, 1, 1 }, { 1, 9, 9, 5, 3, 3, 3, 1, 1, 1, 1, 1 },
    };
    int tried = 0;
    (void)state;
    for (size_t i = 0; i < KW_LEN(shapes); i++)
        for (int k = 0; k < 4 * KW_CONV_N_WAYS; k++) {
            const kw_conv_shape *s = &shapes[i];
            int64_t n = (int64_t)s->in * s->kh * s->kw;
            kw_conv *c;
            if (kw_conv_new_by((kw_conv_way)(k / 4), s, k & 1 ? KW_BACKWARD_DATA : KW_FORWARD, k & 2 ? KW_BF16 : KW_F32,
                               false, &c, NULL))
                continue;
            size_t size = kw_conv_packed_size(c);
            float *x = malloc((size_t)(s->out * n) * 4);
            char *from_codes = guarded(size), *from_numbers = guarded(size);
            fill(x, s->out * n, 3);
            char *w = made(x, s->out, n);
            kw_int8_rows(KW_F32, w, s->out, n, x);
            memset(from_codes, 0, size), memset(from_numbers, 0, size);
            kw_conv_pack(c, KW_I8, w, from_codes);
            kw_conv_pack(c, KW_F32, x, from_numbers);
            assert_memory_equal(from_codes, from_numbers, size);
            release(from_codes, size), release(from_numbers, size), release(w, kw_int8_size(s->out, n));
            free(x), kw_conv_free(c);
            tried++;
        }
    assert_true(tried > 20);
}

/* [instruction set [test]]: only these, for emulated machines. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_cases), cmocka_unit_test(error_of_a_number), cmocka_unit_test(not_finite_is_refused),
        cmocka_unit_test(products),
        cmocka_unit_test(whole_products), cmocka_unit_test(ends_of_the_range), cmocka_unit_test(packed_weights),
    };
    static const char *const isa[] = { "scalar", "avx2", "avx512", "avx512_bf16" };
    int failed = 0;
    for (size_t i = 0; i < KW_LEN(isa); i++)
        if ((argc < 2 || !strcmp(argv[1], isa[i])) && !kw_kern_choose(isa[i], NULL)) {
            cmocka_set_test_filter(argc > 2 ? argv[2] : NULL);
            print_message("%s\n", isa[i]);
            failed += cmocka_run_group_tests(tests, NULL, NULL);
        }
    return failed;
}
