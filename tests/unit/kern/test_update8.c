/*
 * test_update8.c - moments of one byte and weights in bf16, on every instruction set. Truth: the table of values as
 * bitsandbytes' create_dynamic_map makes it (Dettmers et al. 2022, arXiv:2110.02861), searched in double; AdamW in double
 * over what the codes stand for; the mean of many roundings.
 */
#include "kern/kern.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static const kw_kern *kern;
static uint64_t drawn;

static void for_each_isa(void (*body)(void))
{
    static const char *const names[] = { "scalar", "avx2", "avx512" };
    for (size_t i = 0; i < KW_LEN(names); i++) {
        if (kw_kern_choose(names[i], NULL)) {
            print_message("SKIPPED: this machine has no %s; that build is compiled, not run\n", names[i]);
            continue;
        }
        kern = kw_kern_get();
        drawn = 0;                        /* the same numbers for each */
        body();
    }
    assert_int_equal(kw_kern_choose(NULL, NULL), KW_OK);
}

static double random_uniform(void) { return kw_rng_double((kw_rng){ .seed = 1, .stream = KW_RNG_TEST }, drawn++); }
static double random_normal(void) { return kw_rng_normal((kw_rng){ .seed = 2, .stream = KW_RNG_TEST }, drawn++); }

enum { BLOCK = 256, MOST = 5000 };

/* create_dynamic_map(signed, max_exponent_bits = 7, total_bits = 8): means of the cells of linspace(0.1, 1, n + 1). */
static void make_map(bool two, double map[256])
{
    int n = 0;
    for (int i = 0; i < 7; i++) {
        int cells = two ? 1 << i : 1 << (i + 1);
        for (int k = 0; k < cells; k++) {
            double low = 0.1 + 0.9 * k / cells, high = 0.1 + 0.9 * (k + 1) / cells, x = pow(10, i - 6) * (low + high) / 2;
            map[n++] = x;
            if (two)
                map[n++] = -x;
        }
    }
    map[n++] = 0;
    map[n++] = 1;
    for (int i = 1; i < 256; i++)
        for (int k = i; k > 0 && map[k] < map[k - 1]; k--) {
            double swap = map[k];
            map[k] = map[k - 1], map[k - 1] = swap;
        }
}

static double distance_to_nearest(const double map[256], double x)
{
    double best = INFINITY;
    for (int i = 0; i < 256; i++)
        best = fmin(best, fabs(map[i] - x));
    return best;
}

/* Numbers over nine decades, with zeros among them. */
static void spread(float *x, int64_t n, bool two)
{
    for (int64_t i = 0; i < n; i++) {
        double y = pow(10, -9 * random_uniform()) * (two && random_uniform() < 0.5 ? -1 : 1);
        x[i] = random_uniform() < 0.02 ? 0 : (float)(y * 3e-5);
    }
}

static void codes_stand_for_the_map(bool two)
{
    double map[256];
    uint8_t code[256];
    float scale = 1, got[256];
    make_map(two, map);
    for (int i = 0; i < 256; i++)
        code[i] = (uint8_t)i;
    kern->expand(two, code, &scale, got, 256);
    for (int i = 0; i < 256; i++)
        if (fabs((double)got[i] - map[i]) > 4e-7 * fabs(map[i]))
            fail_msg("%s: code %d is %.9g, not %.9g", kern->isa, i, (double)got[i], map[i]);
}

/* Each number becomes a nearest value: within half the gap between its neighbours, and so is the error of the moment. */
static void nearest_codes(bool two, int64_t n)
{
    static float x[MOST], back[MOST], scale[MOST / BLOCK + 1];
    static uint8_t code[MOST + 1];
    double map[256];
    make_map(two, map);
    spread(x, n, two);
    code[n] = 77;
    kern->compress(two, x, code, scale, n);
    kern->expand(two, code, scale, back, n);
    assert_int_equal(code[n], 77);
    for (int64_t i = 0; i < n; i++) {
        double s = (double)scale[i / BLOCK], error = fabs((double)back[i] - (double)x[i]);
        double best = s * distance_to_nearest(map, (double)x[i] / s);
        if (!two && x[i] > 0 && code[i] == 0)
            fail_msg("%s: %g became zero", kern->isa, (double)x[i]);
        if (!two && x[i] > 0 && (double)x[i] / s < 0.1625e-6)
            continue;                     /* would be zero, and is the smallest value instead */
        if (error > best * (1 + 1e-4) + 2e-7 * fabs((double)x[i]))
            fail_msg("%s: %.9g of %g became %.9g; %.3g off, the nearest is %.3g", kern->isa, (double)x[i], s,
                     (double)back[i], error, best);
    }
}

static void strange_blocks(void)
{
    float x[BLOCK] = { 0 }, scale;
    uint8_t code[BLOCK];
    kern->compress(true, x, code, &scale, BLOCK);
    assert_true(scale == 0 && code[0] == 127 && code[255] == 127);
    kern->compress(false, x, code, &scale, BLOCK);
    assert_true(scale == 0 && code[0] == 0 && code[255] == 0);
    x[100] = NAN;
    x[101] = 5;
    kern->compress(true, x, code, &scale, BLOCK);
    assert_true(isnan(scale));
    x[100] = -5;
    kern->compress(true, x, code, &scale, BLOCK);
    assert_true(scale == 5 && code[100] == 0 && code[101] == 255);       /* there is a one, and no minus one */
}

static void codes_all(void)
{
    static const int64_t sizes[] = { 1, 3, 255, 256, 257, 1000, MOST };
    for (int two = 0; two < 2; two++) {
        codes_stand_for_the_map(two);
        for (size_t i = 0; i < KW_LEN(sizes); i++)
            nearest_codes(two, sizes[i]);
    }
    strange_blocks();
}
static void codes_are_the_nearest(void **state) { (void)state; for_each_isa(codes_all); }

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static float p[MOST], g[MOST], m[MOST], v[MOST], want_p[MOST], want_m[MOST], want_v[MOST];

static const kw_adamw options = { .rate = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .decay = 0.01f,
                                  .bias1 = 0.1f, .bias2 = 0.001f, .clip = 0.5f };

static void expect(int64_t n)
{
    double b1 = 0.9, b2 = 0.999;
    for (int64_t i = 0; i < n; i++) {
        double gi = (double)g[i] * 0.5, mi = b1 * (double)m[i] + (1 - b1) * gi, vi = b2 * (double)v[i] + (1 - b2) * gi * gi;
        want_m[i] = (float)mi;
        want_v[i] = (float)vi;
        want_p[i] = (float)((double)p[i] * (1 - 1e-3 * 0.01)
                            - 1e-3 / 0.1 * mi / (sqrt(vi) / sqrt((double)options.bias2) + 1e-8));
    }
}

/* New weights from the moments before they are rounded; new moments as far from the true ones as their codes allow. */
static void step8(int64_t n)
{
    static uint8_t mc[MOST], vc[MOST];
    static float ms[MOST / BLOCK + 1], vs[MOST / BLOCK + 1];
    double map[2][256];
    kw_moments8 s = { mc, vc, ms, vs };
    make_map(true, map[0]);
    make_map(false, map[1]);
    spread(m, n, true);
    spread(v, n, false);
    for (int64_t i = 0; i < n; i++)
        p[i] = (float)random_normal(), g[i] = (float)random_normal() * 1e-4f;
    kern->compress(true, m, mc, ms, n);
    kern->compress(false, v, vc, vs, n);
    kern->expand(true, mc, ms, m, n);
    kern->expand(false, vc, vs, v, n);
    expect(n);
    kern->adamw8(&options, KW_F32, p, g, &s, n, 0, 0);
    kern->expand(true, mc, ms, m, n);
    kern->expand(false, vc, vs, v, n);
    for (int64_t i = 0; i < n; i++) {
        assert_true(fabs((double)p[i] - (double)want_p[i]) <= 3e-7 * fabs((double)want_p[i]) + 1e-9);
        double a = (double)ms[i / BLOCK], b = (double)vs[i / BLOCK];
        assert_true(fabs((double)m[i] - (double)want_m[i])
                    <= a * distance_to_nearest(map[0], (double)want_m[i] / a) * (1 + 1e-3) + 1e-6 * fabs((double)want_m[i]));
        assert_true(fabs((double)v[i] - (double)want_v[i])
                    <= b * distance_to_nearest(map[1], (double)want_v[i] / b) * (1 + 1e-3) + 1e-6 * fabs((double)want_v[i])
                           + 0.33e-6 * b);
    }
}

static void steps_all(void)
{
    static const int64_t sizes[] = { 1, 256, 300, MOST };
    for (size_t i = 0; i < KW_LEN(sizes); i++)
        step8(sizes[i]);
}
static void steps_are_adamw(void **state) { (void)state; for_each_isa(steps_all); }

/* ---- rounding by chance ------------------------------------------------------------------------------------------ */

static uint16_t few[4 * MOST], first[4 * MOST];

/* Weights 1 + k/8 of a step of bf16 (2^-7), which nothing moves but rounding. */
static void round_all(void)
{
    static float zero[4 * MOST], m0[4 * MOST], v0[4 * MOST];
    static int keep;
    const int64_t n = 4 * MOST;
    const kw_adamw still = { .rate = 1, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1, .bias1 = 1, .bias2 = 1, .clip = 1 };
    for (int k = 0; k <= 8; k++) {
        kw_adamw o = still;
        o.decay = (float)(-k / 8.0 / 128);            /* 1 (1 - rate decay) = 1 + k/8 2^-7 */
        for (int64_t i = 0; i < n; i++)
            few[i] = 0x3f80;
        memset(m0, 0, sizeof m0), memset(v0, 0, sizeof v0);
        kern->adamw_bf16(&o, few, zero, m0, v0, n, 0x123456789abcdef0u + (uint64_t)k, 11);
        int64_t up = 0;
        for (int64_t i = 0; i < n; i++) {
            assert_true(few[i] == 0x3f80 || few[i] == 0x3f81);
            up += few[i] == 0x3f81;
        }
        double share = (double)up / (double)n, sigma = sqrt(k / 8.0 * (1 - k / 8.0) / (double)n);
        if (fabs(share - k / 8.0) > 4 * sigma)
            fail_msg("%s: %d/8 of a step went up in %.4f of %d cases", kern->isa, k, share, (int)n);
        if (k == 3 && !keep++)
            memcpy(first, few, sizeof few);
        else if (k == 3)
            assert_memory_equal(first, few, sizeof few);                 /* every instruction set draws the same */
    }
}

/* A number depends on its place alone, not on where a call begins. */
static void place_all(void)
{
    static float zero[MOST], m0[MOST], v0[MOST];
    static uint16_t whole[MOST], parts[MOST];
    const kw_adamw o = { .rate = 1, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1, .bias1 = 1, .bias2 = 1, .clip = 1, .decay = 0.003f };
    for (int64_t i = 0; i < MOST; i++)
        whole[i] = parts[i] = (uint16_t)(0x3f80 + i % 128);
    kern->adamw_bf16(&o, whole, zero, m0, v0, MOST, 99, (1ll << 33) + 5);
    for (int64_t i = 0; i < MOST; i += 1000)
        kern->adamw_bf16(&o, parts + i, zero, m0, v0, KW_MIN(1000, MOST - i), 99, (1ll << 33) + 5 + i);
    assert_memory_equal(whole, parts, sizeof whole);
}

static void bf16_is_rounded_by_chance(void **state)
{
    (void)state;
    for_each_isa(round_all);
    for_each_isa(place_all);
}

/* What has no neighbour above stays finite; what is no number stays none. */
static void ends_all(void)
{
    uint16_t x[4] = { 0x7f7f, 0xff7f, 0x7f80, 0x7fc0 };
    float zero[4] = { 0 }, m0[4] = { 0 }, v0[4] = { 0 };
    const kw_adamw o = { .rate = 1, .eps = 1, .bias1 = 1, .bias2 = 1, .clip = 1, .beta1 = 0.9f, .beta2 = 0.9f };
    kern->adamw_bf16(&o, x, zero, m0, v0, 4, 1, 0);
    assert_true(x[0] == 0x7f7f && x[1] == 0xff7f && x[2] == 0x7f80 && (x[3] & 0x7fff) > 0x7f80);
}
static void ends_hold(void **state) { (void)state; for_each_isa(ends_all); }

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(codes_are_the_nearest), cmocka_unit_test(steps_are_adamw),
                                        cmocka_unit_test(bf16_is_rounded_by_chance), cmocka_unit_test(ends_hold) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
