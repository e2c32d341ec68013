/* test_simd.c - elementwise kernels, activations, updates and sums against double, for every instruction set. */
#include "simd_check.h"

#include "kern/conv_tile.h"
#include "kern/gemm_tile.h"

static const int64_t lengths[] = { 1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 1000, 16384, 16385, 50001 };

/* ---- choice of the instruction set ---------------------------------------------------------------------- */

static void choice_is_checked(void **state)
{
    (void)state;
    kw_err e = { 0 };
    assert_int_equal(kw_kern_choose("mmx", &e), KW_EUSAGE);
    assert_non_null(strstr(e.what, "mmx"));
    assert_int_equal(kw_kern_choose("scalar", &e), KW_OK);
    assert_string_equal(kw_kern_get()->isa, "scalar");
    assert_int_equal(kw_kern_choose(NULL, &e), KW_OK);
    print_message("best here: %s, %d threads\n", kw_kern_get()->isa, kw_threads());
}

/* Tables that are looked up by name must know every name: without one the scalar tiles would run, silently. */
static void tiles_follow(void)
{
    assert_string_equal(kw_conv_tile_get()->isa, kern->isa);
    assert_string_equal(kw_gemm_tile_get()->isa, kern->isa);
}
static void tiles_are_of_the_same_set(void **state) { (void)state; for_each_isa(tiles_follow); }

/* ---- elementwise -------------------------------------------------------------------------------------------- */

static void elementwise_case(kw_dtype t, int64_t n)
{
    const double limit = t == KW_F32 ? 1.0e-7 : bf16_limit(n);
    tensor x = make_random(t, n, 0.5, 2), z = make_random(t, n, 0, 1), y = make(t, n);
    double *r = malloc((size_t)n * sizeof *r);
    SAME_BITS(y.p, (size_t)n * element(t), kern->lincomb(t, 0.75f, x.p, -1.5f, z.p, y.p, n));
    for (int64_t i = 0; i < n; i++)
        r[i] = 0.75 * x.exact[i] - 1.5 * z.exact[i];
    check("lincomb", t, error_of(&y, r), limit);
    kern->lincomb(t, 3, x.p, 7, NULL, y.p, n);
    for (int64_t i = 0; i < n; i++)
        r[i] = 3 * x.exact[i];
    check("scale", t, error_of(&y, r), limit);
    SAME_BITS(y.p, (size_t)n * element(t), kern->mul(t, x.p, z.p, y.p, n));
    for (int64_t i = 0; i < n; i++)
        r[i] = x.exact[i] * z.exact[i];
    check("mul", t, error_of(&y, r), limit);
    drop(&x), drop(&z), drop(&y);
    free(r);
}

static void channels_case(kw_dtype t, int64_t n, int64_t hw, int c)
{
    tensor x = make_random(t, n * hw * c, 3, 2), v = make_random(t, n * c, 0, 1), y = make(t, n * hw * c);
    tensor s = make(KW_F32, n * c);
    double *r = calloc((size_t)(n * hw * c), sizeof *r), *sum = calloc((size_t)(n * c), sizeof *sum);
    for (int64_t i = 0; i < n * hw * c; i++) {
        r[i] = x.exact[i] + v.exact[i / c / hw * c + i % c];
        sum[i / c / hw * c + i % c] += x.exact[i];
    }
    SAME_BITS(y.p, (size_t)y.n * element(t), kern->add_channels(t, x.p, v.p, y.p, n, hw, c));
    check("add_channels", t, error_of(&y, r), t == KW_F32 ? 1e-7 : bf16_limit(y.n));
    SAME_BITS(s.p, (size_t)s.n * 4, kern->sum_pixels(t, x.p, s.p, n, hw, c));
    check("sum_pixels", t, error_of(&s, sum), 1e-6);      /* measured 2e-7 */
    drop(&x), drop(&v), drop(&y), drop(&s);
    free(r), free(sum);
}

static void elementwise_all(void)
{
    for (size_t k = 0; k < KW_LEN(types); k++) {
        for (size_t i = 0; i < KW_LEN(lengths); i++)
            elementwise_case(types[k], lengths[i]);
        channels_case(types[k], 1, 1, 1);
        channels_case(types[k], 2, 1, 33);
        channels_case(types[k], 3, 5, 7);
        channels_case(types[k], 2, 700, 130);
        channels_case(types[k], 1, 1000, 20000 / 1000);
    }
}
static void elementwise_is_right(void **state) { (void)state; for_each_isa(elementwise_all); report(); }

/* All 65536 patterns of 16 bits, and f32 values around every rounding: the same bits as base's conversions. */
static void conversions_all(void)
{
    enum { N = 65536 };
    static uint16_t h[N], back[N];
    static float f[N];
    static const kw_dtype halves[] = { KW_BF16, KW_F16 };
    for (int i = 0; i < N; i++)
        h[i] = (uint16_t)i;
    for (size_t k = 0; k < 2; k++) {
        kern->convert(KW_F32, f, halves[k], h, N);
        for (int i = 0; i < N; i++) {
            float r = k ? kw_f16_to_f32(h[i]) : kw_bf16_to_f32(h[i]);
            assert_true((isnan(r) && isnan(f[i])) || !memcmp(&r, &f[i], 4));
        }
        for (int step = -2; step <= 2; step++) {        /* next to each value, and half-way to the next */
            for (int i = 0; i < N; i++) {
                union { uint32_t u; float f; } v = { .f = k ? kw_f16_to_f32(h[i]) : kw_bf16_to_f32(h[i]) };
                v.u += (uint32_t)(step % 2) + (step / 2 ? (uint32_t)(k ? 0x1000 : 0x8000) * (uint32_t)(step / 2) : 0);
                f[i] = v.f;
            }
            kern->convert(halves[k], back, KW_F32, f, N);
            for (int i = 0; i < N; i++) {
                uint16_t r = k ? kw_f32_to_f16(f[i]) : kw_f32_to_bf16(f[i]);
                if (isnan(f[i]))
                    assert_true(isnan(k ? kw_f16_to_f32(back[i]) : kw_bf16_to_f32(back[i])));
                else
                    assert_int_equal(r, back[i]);
            }
        }
    }
    kern->convert(KW_BF16, back, KW_BF16, h, 1001);
    assert_memory_equal(back, h, 2002);
    kern->convert(KW_BF16, back, KW_F16, h, 1001);
    for (int i = 0; i < 1001; i++)
        assert_int_equal(back[i], kw_f32_to_bf16(kw_f16_to_f32(h[i])));
}
static void conversions_are_exact(void **state) { (void)state; for_each_isa(conversions_all); }

/* ---- activations ---------------------------------------------------------------------------------------------- */

static double sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static double phi(double x) { return exp(-x * x / 2) / sqrt(2 * M_PI); }
static double cdf(double x) { return erfc(-x / M_SQRT2) / 2; }

static double value(kw_unary f, double x)
{
    const double u = sqrt(8 / M_PI) * (x + 0.044715 * x * x * x);
    switch (f) {
    case KW_SILU: return x * sigmoid(x);
    case KW_GELU: return x * cdf(x);
    case KW_QUICK_GELU: return x * sigmoid(1.702 * x);
    case KW_GELU_TANH: return x * sigmoid(u);
    default: return sigmoid(x);
    }
}

static double slope(kw_unary f, double x)
{
    const double u = sqrt(8 / M_PI) * (x + 0.044715 * x * x * x);
    double s = sigmoid(f == KW_QUICK_GELU ? 1.702 * x : f == KW_GELU_TANH ? u : x);
    switch (f) {
    case KW_SILU: return s * (1 + x * (1 - s));
    case KW_GELU: return cdf(x) + x * phi(x);
    case KW_QUICK_GELU: return s * (1 + 1.702 * x * (1 - s));
    case KW_GELU_TANH: return s * (1 + x * (1 - s) * sqrt(8 / M_PI) * (1 + 3 * 0.044715 * x * x));
    default: return s * (1 - s);
    }
}

static const char *const names[] = { "silu", "gelu", "quick gelu", "gelu tanh", "sigmoid" };

/* One function over [-14, 14]: largest absolute error, and largest relative error where the value is not tiny. */
static void activation_case(kw_unary f)
{
    enum { N = 40001 };
    tensor x = make(KW_F32, N), dy = make(KW_F32, N), y = make(KW_F32, N), dx = make(KW_F32, N);
    for (int i = 0; i < N; i++)
        set(&x, i, -14 + 28.0 * i / (N - 1)), set(&dy, i, 1);
    exact_of(&x);
    SAME_BITS(y.p, N * 4, kern->unary(KW_F32, f, x.p, y.p, N));
    SAME_BITS(dx.p, N * 4, kern->unary_grad(KW_F32, f, x.p, dy.p, dx.p, N));
    exact_of(&y), exact_of(&dx);
    double absolute = 0, relative = 0, slopes = 0;
    for (int i = 0; i < N; i++) {
        double v = x.exact[i], r = value(f, v), d = fabs(y.exact[i] - r), scale = fmax(1, fabs(v));
        absolute = fmax(absolute, d / scale);           /* of the factor beside x */
        if (fabs(r) > 1e-30)
            relative = fmax(relative, d / fabs(r));
        slopes = fmax(slopes, fabs(dx.exact[i] - slope(f, v)));
    }
    char name[32];
    snprintf(name, sizeof name, "%s absolute", names[f]);
    check(name, KW_F32, absolute, 2.0e-7);
    snprintf(name, sizeof name, "%s relative", names[f]);
    check(name, KW_F32, relative, f == KW_GELU_TANH ? 2e-5 : 4e-6);      /* 2.3e-6; 3.02e-6 at -O1 */
    snprintf(name, sizeof name, "%s slope", names[f]);
    check(name, KW_F32, slopes, 1e-6);
    drop(&x), drop(&dy), drop(&y), drop(&dx);
}

/* At the ends: what the limit is, and no NaN that was not there. */
static void extremes_case(kw_unary f)
{
    const float x[] = { NAN, 1e30f, -1e30f, 3e38f, -3e38f, 0, -0.0f, 1e-40f, 88.5f, -88.5f, 90, -90, 104, -104, 700,
                       -700, 20, -20 };
    float y[KW_LEN(x)], dx[KW_LEN(x)], one[KW_LEN(x)];
    for (size_t i = 0; i < KW_LEN(x); i++)
        one[i] = 1;
    kern->unary(KW_F32, f, x, y, (int64_t)KW_LEN(x));
    kern->unary_grad(KW_F32, f, x, one, dx, (int64_t)KW_LEN(x));
    assert_true(isnan(y[0]) && isnan(dx[0]));
    for (size_t i = 1; i < KW_LEN(x); i++) {
        double r = value(f, (double)x[i]), s = slope(f, (double)x[i]);
        if (isfinite(r) && fabs((double)y[i] - r) > 1e-6 * fmax(1e-6, fabs(r)))
            fail_msg("%s %s(%g) = %g, not %g", kern->isa, names[f], (double)x[i], (double)y[i], r);
        if (fabs(x[i]) < 1e3f && fabs((double)dx[i] - s) > 1e-6)
            fail_msg("%s %s'(%g) = %g, not %g", kern->isa, names[f], (double)x[i], (double)dx[i], s);
        assert_true(isfinite(dx[i]));
    }
}

static void bf16_case(kw_unary f, int64_t n)
{
    tensor x = make_random(KW_BF16, n, 0, 3), dy = make_random(KW_BF16, n, 0, 1), y = make(KW_BF16, n);
    double *r = malloc((size_t)n * sizeof *r);
    for (int64_t i = 0; i < n; i++)
        r[i] = value(f, x.exact[i]);
    kern->unary(KW_BF16, f, x.p, y.p, n);
    check("activations", KW_BF16, error_of(&y, r), bf16_limit(n));
    for (int64_t i = 0; i < n; i++)
        r[i] = dy.exact[i] * slope(f, x.exact[i]);
    kern->unary_grad(KW_BF16, f, x.p, dy.p, y.p, n);
    check("activation slopes", KW_BF16, error_of(&y, r), bf16_limit(n));
    drop(&x), drop(&dy), drop(&y);
    free(r);
}

static void geglu_case(kw_dtype t, int64_t rows, int c)
{
    const double limit = t == KW_F32 ? 3e-7 : bf16_limit(rows * c);
    tensor x = make_random(t, rows * 2 * c, 0, 2), dy = make_random(t, rows * c, 0, 1);
    tensor y = make(t, rows * c), dx = make(t, rows * 2 * c);
    double *r = malloc((size_t)(rows * c) * sizeof *r), *dr = malloc((size_t)(rows * 2 * c) * sizeof *r);
    for (int64_t i = 0; i < rows * c; i++) {
        const int64_t v = i / c * 2 * c + i % c, g = v + c;
        r[i] = x.exact[v] * value(KW_GELU, x.exact[g]);
        dr[v] = dy.exact[i] * value(KW_GELU, x.exact[g]);
        dr[g] = dy.exact[i] * x.exact[v] * slope(KW_GELU, x.exact[g]);
    }
    SAME_BITS(y.p, (size_t)y.n * element(t), kern->geglu(t, x.p, y.p, rows, c));
    SAME_BITS(dx.p, (size_t)dx.n * element(t), kern->geglu_grad(t, x.p, dy.p, dx.p, rows, c));
    check("geglu", t, error_of(&y, r), limit);
    check("geglu grad", t, error_of(&dx, dr), limit);
    drop(&x), drop(&dy), drop(&y), drop(&dx);
    free(r), free(dr);
}

static void activations_all(void)
{
    for (int f = 0; f < KW_N_UNARY; f++) {
        activation_case((kw_unary)f);
        extremes_case((kw_unary)f);
        for (size_t i = 0; i < KW_LEN(lengths); i++)
            bf16_case((kw_unary)f, lengths[i]);
    }
    for (size_t k = 0; k < KW_LEN(types); k++) {
        geglu_case(types[k], 1, 1);
        geglu_case(types[k], 5, 3);
        geglu_case(types[k], 77, 65);
        geglu_case(types[k], 300, 160);
    }
}
static void activations_are_right(void **state) { (void)state; for_each_isa(activations_all); report(); }

/* ---- updates ---------------------------------------------------------------------------------------------------- */

enum { STEPS = 30 };

/* 30 steps of AdamW with decay against the formula in double. */
static void adamw_case(int64_t n)
{
    tensor p = make_random(KW_F32, n, 0, 1), m = make(KW_F32, n), v = make(KW_F32, n);
    double *dp = malloc((size_t)n * 8), *dm = calloc((size_t)n, 8), *dv = calloc((size_t)n, 8);
    memcpy(dp, p.exact, (size_t)n * 8);
    memset(m.p, 0, (size_t)n * 4), memset(v.p, 0, (size_t)n * 4);
    for (int s = 1; s <= STEPS; s++) {
        tensor g = make_random(KW_F32, n, 0, 1e-3);
        kw_adamw o = { .rate = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .decay = 0.01f, .clip = 0.5f,
                       .bias1 = (float)(1 - pow(0.9, s)), .bias2 = (float)(1 - pow(0.999, s)) };
        kern->adamw(&o, p.p, g.p, m.p, v.p, n);
        for (int64_t i = 0; i < n; i++) {
            const double gi = 0.5 * g.exact[i];
            dp[i] *= 1 - 1e-3 * 0.01;
            dm[i] = 0.9 * dm[i] + 0.1 * gi;
            dv[i] = 0.999 * dv[i] + 0.001 * gi * gi;
            dp[i] -= 1e-3 / (1 - pow(0.9, s)) * dm[i] / (sqrt(dv[i]) / sqrt(1 - pow(0.999, s)) + 1e-8);
        }
        drop(&g);
    }
    check("adamw p", KW_F32, error_of(&p, dp), 3e-6);          /* a few numbers may nearly cancel: 1e-6 */
    check("adamw m", KW_F32, error_of(&m, dm), 3e-6);
    check("adamw v", KW_F32, error_of(&v, dv), 3e-6);
    drop(&p), drop(&m), drop(&v);
    free(dp), free(dm), free(dv);
}

static void lerp_case(int64_t n)
{
    tensor y = make_random(KW_F32, n, 0, 1), x = make_random(KW_F32, n, 0, 1);
    double *r = malloc((size_t)n * sizeof *r);
    for (int64_t i = 0; i < n; i++)
        r[i] = 0.9999 * y.exact[i] + 0.0001 * x.exact[i];
    kern->lerp(y.p, x.p, 0.9999f, n);
    check("lerp", KW_F32, error_of(&y, r), 1e-7);
    drop(&y), drop(&x);
    free(r);
}

static void squares_case(int64_t n)
{
    tensor x = make_random(KW_F32, n, 0, 1);
    long double s = 0;
    double got[1];
    for (int64_t i = 0; i < n; i++)
        s += (long double)(x.exact[i] * x.exact[i]);
    SAME_BITS(got, sizeof got, got[0] = kern->sum_squares(x.p, n));
    check("sum_squares", KW_F32, fabs(got[0] / (double)s - 1), 1e-13);
    drop(&x);
}

static void updates_all(void)
{
    for (size_t i = 0; i < KW_LEN(lengths); i++) {
        adamw_case(lengths[i]);
        lerp_case(lengths[i]);
        squares_case(lengths[i]);
    }
    squares_case(3000001);
    assert_true(kern->sum_squares(NULL, 0) == 0);
    const float bad[] = { 1, 2, 3, NAN, 5 };
    assert_true(isnan(kern->sum_squares(bad, 5)));
}
static void updates_are_right(void **state) { (void)state; for_each_isa(updates_all); report(); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choice_is_checked), cmocka_unit_test(tiles_are_of_the_same_set), cmocka_unit_test(elementwise_is_right),
        cmocka_unit_test(conversions_are_exact),
        cmocka_unit_test(activations_are_right), cmocka_unit_test(updates_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
