/* test_rng.c - random numbers against published known answers, torch and closed forms. */
#include "base/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a over the bits, so that a long row of numbers is pinned by one line of the golden file */
static uint64_t fnv(const float *x, size_t n)
{
    uint64_t h = 14695981039346656037ull;
    for (size_t i = 0; i < 4 * n; i++)
        h = (h ^ ((const unsigned char *)x)[i]) * 1099511628211ull;
    return h;
}

/* Random123's kat_vectors */
static void philox_known_answers(void **state)
{
    (void)state;
    static const struct { uint32_t counter[4]; uint64_t key; uint32_t want[4]; } rows[] = {
        { { 0, 0, 0, 0 }, 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { ~0u, ~0u, ~0u, ~0u }, ~0ull, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, 0x299f31d0a4093822ull,
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        uint32_t out[4];
        kw_philox(rows[i].counter, rows[i].key, out);
        assert_memory_equal(out, rows[i].want, sizeof out);
    }
}

static void each_key_part_counts(void **state)
{
    (void)state;
    kw_rng r = { .seed = 7, .stream = KW_RNG_TEST, .step = 3, .sample = 2 };
    uint32_t w = kw_rng_u32(r, 5);
    kw_rng q = r;
    q.seed ^= 1ull << 40;
    assert_int_not_equal(kw_rng_u32(q, 5), w);
    q = r, q.stream++;
    assert_int_not_equal(kw_rng_u32(q, 5), w);
    q = r, q.step++;
    assert_int_not_equal(kw_rng_u32(q, 5), w);
    q = r, q.sample++;
    assert_int_not_equal(kw_rng_u32(q, 5), w);
    assert_int_equal(kw_rng_u32(r, 5), w);
}

static void uniforms_fill_their_range(void **state)
{
    (void)state;
    kw_rng r = { .seed = 1, .stream = KW_RNG_TEST };
    enum { N = 200000 };
    double sum = 0, squares = 0, low = 1, high = 0;
    int count[7] = { 0 };
    for (int i = 0; i < N; i++) {
        double u = kw_rng_double(r, (uint64_t)i), f = kw_rng_float(r, (uint64_t)i);
        assert_true(u >= 0 && u < 1 && f >= 0 && f < 1);
        sum += u, squares += u * u, low = fmin(low, u), high = fmax(high, u);
        count[kw_rng_below(r, (uint64_t)i, 7)]++;
    }
    assert_true(fabs(sum / N - 0.5) < 0.003 && fabs(squares / N - 1.0 / 3) < 0.003);      /* 4.6 sigma */
    assert_true(low < 1e-4 && high > 1 - 1e-4);
    for (int i = 0; i < 7; i++)
        assert_true(abs(count[i] - N / 7) < 5 * 157);                                     /* 5 sigma */
    assert_int_equal(kw_rng_below(r, 9, 1), 0);
    for (uint64_t i = 0; i < 1000; i++)                             /* against the compiler's 128-bit product */
        assert_true(kw_rng_below(r, i, 0xfedcba9876543211ull) ==
                    (uint64_t)((unsigned __int128)kw_rng_u64(r, i) * 0xfedcba9876543211ull >> 64));
}

static void exact_functions_are_right(void **state)
{
    (void)state;
    double log_error = 0, sine_error = 0;
    for (int i = 1; i <= 300000; i++) {
        double x = i / 300000.0 * (i % 3 ? 1 : 1e-9), s, c;
        long double want = logl(x);
        log_error = fmax(log_error, (double)(fabsl(kw_exact_log(x) - want) / fmaxl(fabsl(want), 1e-300L)));
        kw_exact_sincos(99 * x, &s, &c);
        sine_error = fmax(sine_error, (double)fabsl(s - sinl(99 * x)));
        sine_error = fmax(sine_error, (double)fabsl(c - cosl(99 * x)));
    }
    assert_true(log_error < 1e-15);                                 /* measured 4.4e-16 */
    assert_true(sine_error < 3e-16);                                /* measured 1.8e-16 */
}

static void normals_are_the_documented_pairs(void **state)
{
    (void)state;
    kw_rng r = { .seed = 42, .stream = KW_RNG_TEST, .step = 8, .sample = 1 };
    enum { N = 100003 };
    float *x = malloc(N * sizeof *x), part[10];
    kw_rng_normals(r, 0, x, N);
    for (uint64_t i = 0; i < 2000; i += 2) {
        double u = (kw_rng_u32(r, i) + 0.5) * 0x1p-32, turn = 2 * acos(-1) * (kw_rng_u32(r, i + 1) * 0x1p-32);
        double radius = sqrt(-2 * log(u));
        assert_float_equal(x[i], radius * cos(turn), 1e-6);         /* rounding to float: 2.4e-7 at most */
        assert_float_equal(x[i + 1], radius * sin(turn), 1e-6);
        assert_true(x[i] == (float)kw_rng_normal(r, i) && x[i + 1] == (float)kw_rng_normal(r, i + 1));
    }
    for (uint64_t first = 0; first < 9; first++) {                  /* any window gives the same numbers */
        kw_rng_normals(r, first, part, 10);
        assert_memory_equal(part, x + first, sizeof part);
    }
    double m[5] = { 0 };
    for (int i = 0; i < N; i++)
        for (int p = 1; p <= 4; p++)
            m[p] += pow(x[i], p) / N;
    assert_true(fabs(m[1]) < 0.015 && fabs(m[2] - 1) < 0.02 && fabs(m[3]) < 0.05 && fabs(m[4] - 3) < 0.15);
    assert_true(fnv(x, N) == 0xc9ac7b8d149679aaull);              /* these bits are promised to resumed runs */
    free(x);
}

static void permutation_is_one(void **state)
{
    (void)state;
    uint32_t order[1000], first[4] = { 0 }, small[4];
    bool seen[1000] = { false };
    kw_rng_permute((kw_rng){ .seed = 5, .stream = KW_RNG_SHUFFLE }, order, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_true(order[i] < 1000 && !seen[order[i]]);
        seen[order[i]] = true;
    }
    int fixed = 0;
    for (uint32_t s = 0; s < 8000; s++) {
        kw_rng_permute((kw_rng){ .seed = 5, .stream = KW_RNG_SHUFFLE, .step = s }, small, 4);
        first[small[0]]++;
        fixed += small[0] == 0 && small[1] == 1 && small[2] == 2 && small[3] == 3;
    }
    for (int i = 0; i < 4; i++)
        assert_true(first[i] > 1800 && first[i] < 2200);            /* 2000, 5 sigma */
    assert_true(fixed > 240 && fixed < 427);                        /* 8000/24 = 333, 5 sigma */
    kw_rng_permute((kw_rng){ 0 }, small, 0);
}

/* golden lines: KIND SEED N HASH FIRST LAST, in the order of the calls; a new seed or kind starts a generator */
static void torch_and_cuda_numbers_are_the_users(void **state)
{
    (void)state;
    FILE *f = fopen(KW_TESTS "/golden/diffusion/rng.txt", "r");
    assert_non_null(f);
    char kind[16], last_kind[16] = "", line[256];
    uint64_t seed, hash, last_seed = 0;
    size_t n;
    float first, last, *x = malloc(20000 * sizeof *x);
    int rows = 0;
    kw_torch_rng g;
    kw_cuda_rng c;
    while (fgets(line, sizeof line, f)) {
        if (*line == '#')
            continue;
        assert_int_equal(sscanf(line, "%15s %lu %zu %lx %f %f", kind, &seed, &n, &hash, &first, &last), 6);
        assert_true(n <= 20000);
        if (strcmp(kind, last_kind) || seed != last_seed) {
            kw_torch_seed(&g, seed);
            c = (kw_cuda_rng){ .seed = seed };
        }
        strcpy(last_kind, kind);
        last_seed = seed;
        if (strcmp(kind, "torch") == 0)
            kw_torch_randn(&g, x, n);
        else
            kw_cuda_randn(&c, x, n);
        assert_float_equal(x[0], first, 1e-6);
        assert_float_equal(x[n - 1], last, 1e-6);
        if (fnv(x, n) != hash)
            fail_msg("%s seed %lu, %zu numbers: not the same bits", kind, seed, n);
        rows++;
    }
    assert_true(rows >= 60);
    fclose(f);
    free(x);
}

/* the row in rng_philox.py's own comment */
static void cuda_numbers_of_the_comment(void **state)
{
    (void)state;
    static const float want[12] = { -0.92466259f, -0.42534415f, -2.6438457f, 0.14518388f, -0.12086647f, -0.57972564f,
                                    -0.62285122f, -0.32838709f, -1.07454231f, -0.36314407f, -1.67105067f, 2.26550497f };
    float x[12];
    kw_cuda_rng c = { .seed = 0 };
    kw_cuda_randn(&c, x, 12);
    for (int i = 0; i < 12; i++)
        assert_float_equal(x[i], want[i], 3e-7);                    /* measured 2.6e-7: see rng.h */
    assert_int_equal(c.calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(each_key_part_counts),
        cmocka_unit_test(uniforms_fill_their_range),
        cmocka_unit_test(exact_functions_are_right),
        cmocka_unit_test(normals_are_the_documented_pairs),
        cmocka_unit_test(permutation_is_one),
        cmocka_unit_test(torch_and_cuda_numbers_are_the_users),
        cmocka_unit_test(cuda_numbers_of_the_comment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
