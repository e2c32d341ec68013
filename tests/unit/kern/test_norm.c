/* test_norm.c - GroupNorm and LayerNorm and their gradients against double, for every instruction set. */
#include "simd_check.h"

typedef struct { int n; int64_t hw; int c, groups; double mean; bool silu; } group_case;

static const group_case groups_of[] = {
    { 1, 1, 1, 1, 0, false }, { 2, 1, 6, 6, 0, true }, { 1, 1, 64, 32, 0, true }, { 3, 7, 30, 3, 0, true },
    { 2, 64, 320, 32, 0, true }, { 1, 255, 8, 4, 20, false }, { 2, 257, 65, 5, 20, true }, { 1, 4099, 24, 8, 20, true },
    { 1, 600, 1030, 2, 0, true }, { 2, 16, 300, 1, 20, false }, { 1, 9000, 5, 1, -20, true },
    { 1, 300, 700, 350, 0, true },
};

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static float *floats(int n, double mean, double sigma)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = (float)(mean + sigma * random_normal());
    return x;
}

typedef struct { double *y, *mean, *rstd, *dx, *dgamma, *dbeta; } reference;

static reference reference_new(int64_t size, int64_t stats, int c)
{
    return (reference){ calloc((size_t)size, 8), calloc((size_t)stats, 8), calloc((size_t)stats, 8),
                        calloc((size_t)size, 8), calloc((size_t)c, 8), calloc((size_t)c, 8) };
}
static void reference_free(reference *r)
{
    free(r->y), free(r->mean), free(r->rstd), free(r->dx), free(r->dgamma), free(r->dbeta);
}

/* One group of one picture: elements i(p, j) = p * c + j for channels j in [c0, c1). LayerNorm: hw = 1, one group. */
static void group_reference(const double *x, const double *dy, const float *gamma, const float *beta, int64_t hw, int c,
                            int c0, int c1, double eps, bool silu, double *y, double *dx, double *dgamma,
                            double *dbeta, double *mean, double *rstd)
{
    const double n = (double)hw * (c1 - c0);
    double m = 0, v = 0, m1 = 0, m2 = 0;
    for (int64_t p = 0; p < hw; p++)
        for (int j = c0; j < c1; j++)
            m += x[p * c + j] / n;
    for (int64_t p = 0; p < hw; p++)
        for (int j = c0; j < c1; j++)
            v += (x[p * c + j] - m) * (x[p * c + j] - m) / n;
    const double s = 1 / sqrt(v + eps);
    double *dz = malloc((size_t)hw * (size_t)c * sizeof *dz);
    for (int64_t p = 0; p < hw; p++)
        for (int j = c0; j < c1; j++) {
            const int64_t i = p * c + j;
            const double xh = (x[i] - m) * s, z = (double)gamma[j] * xh + (double)beta[j], g = sigmoid(z);
            y[i] = silu ? z * g : z;
            dz[i] = silu ? dy[i] * g * (1 + z * (1 - g)) : dy[i];
            dbeta[j] += dz[i];
            dgamma[j] += dz[i] * xh;
            m1 += (double)gamma[j] * dz[i] / n;
            m2 += (double)gamma[j] * dz[i] * xh / n;
        }
    for (int64_t p = 0; p < hw; p++)
        for (int j = c0; j < c1; j++) {
            const int64_t i = p * c + j;
            dx[i] = s * ((double)gamma[j] * dz[i] - m1 - (x[i] - m) * s * m2);
        }
    free(dz);
    *mean = m, *rstd = s;
}

/* The norm of the difference relative to that of r, and of `unit` for each element. */
static double distance(const float *x, const double *r, int64_t n, double unit)
{
    double d = 0, s = (double)n * unit * unit;
    for (int64_t i = 0; i < n; i++)
        d += ((double)x[i] - r[i]) * ((double)x[i] - r[i]), s += r[i] * r[i];
    return sqrt(d / (s > 1e-30 ? s : 1e-30));
}

static void group_norm_case(kw_dtype t, group_case k)
{
    const int64_t size = k.n * k.hw * k.c, per = k.hw * k.c;
    const int stats = k.n * k.groups, width = k.c / k.groups;
    tensor x = make_random(t, size, k.mean, 1), dy = make_random(t, size, 0, 1), y = make(t, size), dx = make(t, size);
    float *gamma = floats(k.c, 1, 0.3), *beta = floats(k.c, 0, 0.5);
    float *mean = floats(stats, 0, 1), *rstd = floats(stats, 0, 1);
    float *dgamma = floats(2 * k.c, 0, 0), *dbeta = dgamma + k.c;
    reference r = reference_new(size, stats, k.c);
    for (int i = 0; i < stats; i++) {
        const int64_t at = i / k.groups * per;
        const int g = i % k.groups;
        group_reference(x.exact + at, dy.exact + at, gamma, beta, k.hw, k.c, g * width, (g + 1) * width, 1e-5, k.silu,
                        r.y + at, r.dx + at, r.dgamma, r.dbeta, &r.mean[i], &r.rstd[i]);
    }
    float *scratch = aligned_alloc(64, (kern->group_norm_grad_scratch(k.n, k.hw, k.c) + 63) / 64 * 64);
    SAME_BITS(y.p, (size_t)size * element(t),
              kern->group_norm(t, x.p, gamma, beta, y.p, mean, rstd, k.n, k.hw, k.c, k.groups, 1e-5f, k.silu));
    SAME_BITS(dx.p, (size_t)size * element(t),
              kern->group_norm_grad(t, x.p, dy.p, gamma, beta, mean, rstd, dx.p, dgamma, dbeta,
              k.n, k.hw, k.c, k.groups, k.silu, scratch));
    const bool alone = k.hw * width <= 2;               /* of two values dx is what rounding leaves of zero */
    const double limit = t == KW_BF16 ? bf16_limit(size) : k.mean != 0 ? 3e-6 : 1e-6;
    check("group norm y", t, error_of(&y, r.y), limit);
    check("group norm mean", t, distance(mean, r.mean, stats, 1), 1e-6);
    check("group norm rstd", t, distance(rstd, r.rstd, stats, 0), 1e-6);
    if (!alone)
        check("group norm dx", t, error_of(&dx, r.dx), t == KW_BF16 ? limit : 3e-6);
    if (!alone)
        check("group norm dgamma", t, distance(dgamma, r.dgamma, k.c, 0), 5e-6);
    check("group norm dbeta", t, distance(dbeta, r.dbeta, k.c, 0), 1e-5);  /* sums of random signs cancel */
    SAME_BITS(dgamma, 8 * (size_t)k.c, kern->group_norm_grad(t, x.p, dy.p, gamma, beta, mean, rstd, NULL, dgamma, dbeta,
              k.n, k.hw, k.c, k.groups, k.silu, scratch));
    kern->group_norm_grad(t, x.p, dy.p, gamma, beta, mean, rstd, dx.p, NULL, NULL, k.n, k.hw, k.c, k.groups, k.silu,
                          scratch);
    kern->group_norm(t, x.p, gamma, beta, x.p, mean, rstd, k.n, k.hw, k.c, k.groups, 1e-5f, k.silu);     /* in place */
    assert_memory_equal(x.p, y.p, (size_t)size * element(t));
    drop(&x), drop(&dy), drop(&y), drop(&dx), reference_free(&r);
    free(gamma), free(beta), free(mean), free(rstd), free(dgamma), free(scratch);
}

/* In two halves, each pixel a row: by one call or two the same bits, and what group norm gives. */
static void group_halves_case(kw_dtype t, group_case k)
{
    const int64_t size = k.n * k.hw * k.c, cut = k.hw / 2;
    const int stats = k.n * k.groups;
    tensor x = make_random(t, size, k.mean, 1), y = make(t, size), want = make(t, size);
    float *gamma = floats(k.c, 1, 0.3), *beta = floats(k.c, 0, 0.5);
    float *mean = floats(stats, 0, 1), *rstd = floats(stats, 0, 1);
    double *m = calloc((size_t)(6 * stats), sizeof *m), *two = m + 3 * stats;
    void *scratch = malloc((size_t)(stats * k.hw) * 3 * sizeof *m);
    kern->group_moments(t, x.p, m, k.n, k.hw, 1, k.c, k.groups, scratch);
    if (k.n == 1 && cut) {
        kern->group_moments(t, x.p, two, 1, cut, 1, k.c, k.groups, scratch);
        kern->group_moments(t, (char *)x.p + (size_t)(cut * k.c) * element(t), two, 1, k.hw - cut, 1, k.c, k.groups,
                            scratch);
        assert_memory_equal(m, two, (size_t)(3 * stats) * sizeof *m);
    }
    kern->group_norm(t, x.p, gamma, beta, want.p, mean, rstd, k.n, k.hw, k.c, k.groups, 1e-5f, k.silu);
    for (int i = 0; i < stats; i++) {
        assert_true(m[3 * i] == (double)(k.hw * (k.c / k.groups)));
        mean[i] = (float)m[3 * i + 1];
        rstd[i] = (float)(1 / sqrt(m[3 * i + 2] / m[3 * i] + 1e-5));
    }
    SAME_BITS(y.p, (size_t)size * element(t),
              kern->group_apply(t, x.p, gamma, beta, mean, rstd, y.p, k.n, k.hw, k.c, k.groups, k.silu));
    double *exact = calloc((size_t)size, sizeof *exact);
    for (int64_t i = 0; i < size; i++)
        exact[i] = t == KW_F32 ? (double)((float *)want.p)[i] : (double)kw_bf16_to_f32(((uint16_t *)want.p)[i]);
    check("group norm halves", t, error_of(&y, exact), t == KW_BF16 ? bf16_limit(size) : 3e-6);
    kern->group_apply(t, x.p, gamma, beta, mean, rstd, x.p, k.n, k.hw, k.c, k.groups, k.silu);     /* in place */
    assert_memory_equal(x.p, y.p, (size_t)size * element(t));
    drop(&x), drop(&y), drop(&want);
    free(gamma), free(beta), free(mean), free(rstd), free(m), free(scratch), free(exact);
}

static void layer_norm_case(kw_dtype t, int64_t rows, int c, double at)
{
    const int64_t size = rows * c;
    tensor x = make_random(t, size, at, 1), dy = make_random(t, size, 0, 1), y = make(t, size), dx = make(t, size);
    float *gamma = floats(c, 1, 0.3), *beta = floats(c, 0, 0.5);
    float *mean = floats((int)rows, 0, 1), *rstd = floats((int)rows, 0, 1);
    float *dgamma = floats(2 * c, 0, 0), *dbeta = dgamma + c;
    reference r = reference_new(size, rows, c);
    for (int64_t i = 0; i < rows; i++)
        group_reference(x.exact + i * c, dy.exact + i * c, gamma, beta, 1, c, 0, c, 1e-5, false, r.y + i * c,
                        r.dx + i * c,
                        r.dgamma, r.dbeta, &r.mean[i], &r.rstd[i]);
    float *scratch = aligned_alloc(64, (kern->layer_norm_grad_scratch(rows, c) + 63) / 64 * 64);
    SAME_BITS(y.p, (size_t)size * element(t), kern->layer_norm(t, x.p, gamma, beta, y.p, mean, rstd, rows, c, 1e-5f));
    SAME_BITS(dx.p, (size_t)size * element(t),
              kern->layer_norm_grad(t, x.p, dy.p, gamma, mean, rstd, dx.p, dgamma, dbeta, rows, c, scratch));
    /* the mean, as an f32 near 20, is good to 1e-6; of a few values the spread may be small */
    const double limit = t == KW_BF16 ? bf16_limit(c < 8 ? 1 : size) : at == 0 ? 1e-6 : c < 8 ? 3e-5 : 3e-6;
    check("layer norm y", t, error_of(&y, r.y), limit);
    check("layer norm mean", t, distance(mean, r.mean, rows, 1), 1e-6);
    check("layer norm rstd", t, distance(rstd, r.rstd, rows, 0), 1e-6);
    if (c > 2) {                          /* of two values dx is what rounding leaves of zero */
        check("layer norm dx", t, error_of(&dx, r.dx), t == KW_BF16 ? limit : 3 * limit);
        check("layer norm dgamma", t, distance(dgamma, r.dgamma, c, 0), c < 8 ? 3e-5 : 3e-6);
    }
    check("layer norm dbeta", t, distance(dbeta, r.dbeta, c, 0), 1e-6);
    SAME_BITS(dgamma, 8 * (size_t)c,
              kern->layer_norm_grad(t, x.p, dy.p, gamma, mean, rstd, NULL, dgamma, dbeta, rows, c, scratch));
    kern->layer_norm_grad(t, x.p, dy.p, gamma, mean, rstd, dx.p, NULL, NULL, rows, c, scratch);
    kern->layer_norm(t, x.p, gamma, beta, x.p, mean, rstd, rows, c, 1e-5f);
    assert_memory_equal(x.p, y.p, (size_t)size * element(t));
    drop(&x), drop(&dy), drop(&y), drop(&dx), reference_free(&r);
    free(gamma), free(beta), free(mean), free(rstd), free(dgamma), free(scratch);
}

static void norms_all(void)
{
    for (size_t k = 0; k < KW_LEN(types); k++) {
        for (size_t i = 0; i < KW_LEN(groups_of); i++)
            group_norm_case(types[k], groups_of[i]), group_halves_case(types[k], groups_of[i]);
        const int64_t rows[] = { 1, 5, 33, 77, 600 };
        const int channels[] = { 1, 2, 3, 7, 8, 33, 64, 100, 320, 768 };
        for (size_t i = 0; i < KW_LEN(rows); i++)
            for (size_t j = 0; j < KW_LEN(channels); j++)
                layer_norm_case(types[k], rows[i], channels[j], j % 2 ? 20 : 0);
        layer_norm_case(types[k], 20001, 5, 0);
    }
}
static void norms_are_right(void **state) { (void)state; for_each_isa(norms_all); report(); }

/* A NaN reaches every output of its group, and no other group's. */
static void nan_all(void)
{
    enum { HW = 300, C = 24, GROUPS = 3 };
    static float x[HW * C], y[HW * C], gamma[C], beta[C], mean[GROUPS], rstd[GROUPS];
    for (int i = 0; i < HW * C; i++)
        x[i] = (float)random_normal();
    for (int i = 0; i < C; i++)
        gamma[i] = 1;
    x[271 * C + 9] = NAN;
    kern->group_norm(KW_F32, x, gamma, beta, y, mean, rstd, 1, HW, C, GROUPS, 1e-5f, true);
    for (int i = 0; i < HW * C; i++)
        assert_int_equal(isnan(y[i]), i % C / 8 == 1);
    float lm[HW], ls[HW];
    kern->layer_norm(KW_F32, x, gamma, beta, y, lm, ls, HW, C, 1e-5f);
    for (int i = 0; i < HW * C; i++)
        assert_int_equal(isnan(y[i]), i / C == 271);
}
static void nan_survives(void **state) { (void)state; for_each_isa(nan_all); }

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(norms_are_right), cmocka_unit_test(nan_survives) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
