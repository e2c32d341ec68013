/*
 * test_svd.c - singular values against NumPy's (LAPACK), what the factors make, and kohya's rules for ranks.
 */
#include "kern/kern.h"
#include "merge/merge.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define GOLDEN KW_TESTS "/golden/merge/values.safetensors"

/* |D - up · down|² over the first r vectors, and how far down's rows are from being of length 1 and at right angles
 * (those of values that are not tiny: a Gram matrix cannot tell the others apart). */
static double rest(const float *d, int64_t rows, int64_t columns, const kw_svd *s, int64_t r, double *skew)
{
    float *up = kw_block_new((size_t)(rows * r) * sizeof *up),
          *down = kw_block_new((size_t)(r * columns) * sizeof *down);
    double sum = 0;
    kw_svd_factors(s, d, r, up, down);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            double x = d[i * columns + j];
            for (int64_t k = 0; k < r; k++)
                x -= (double)up[i * r + k] * down[k * columns + j];
            sum += x * x;
        }
    *skew = 0;
    for (int64_t i = 0; i < r && kw_svd_values(s)[i] > 1e-4 * kw_svd_values(s)[0]; i++)
        for (int64_t k = 0; k <= i; k++) {
            double dot = 0;
            for (int64_t j = 0; j < columns; j++)
                dot += (double)down[i * columns + j] * down[k * columns + j];
            *skew = fmax(*skew, fabs(dot - (i == k)));
        }
    kw_block_free(up);
    kw_block_free(down);
    return sum;
}

static void one(const kw_tensors *t, const char *name, int64_t rank)
{
    char key[64];
    kw_svd *s;
    kw_err e;
    snprintf(key, sizeof key, "svd.%s", name);
    const kw_tensor *d = kw_tensors_find(t, key);
    snprintf(key, sizeof key, "values.%s", name);
    const double *want = kw_tensors_find(t, key)->data;
    const int64_t rows = d->shape[0], columns = d->shape[1];
    if (kw_svd_new(d->data, rows, columns, rank, &s, &e))
        fail_msg("%s", e.what);
    const double *got = kw_svd_values(s);
    double worst = 0, all = 0, behind = 0, skew;
    for (int64_t i = 0; i < kw_svd_n(s); i++) {
        worst = fmax(worst, want[i] > 1e-5 * want[0] ? fabs(got[i] - want[i]) / want[i] : 0);
        all += want[i] * want[i];
        behind += i >= 3 ? want[i] * want[i] : 0;
    }
    const double whole = sqrt(rest(d->data, rows, columns, s, rank, &skew) / all);
    print_message("%s: singular values %.2g of NumPy's, all factors %.2g, angles %.2g\n", name, worst, whole, skew);
    assert_true(worst < 1e-5 && whole < 1e-6 && skew < 1e-5);
    const double three = rest(d->data, rows, columns, s, 3, &skew);
    assert_true(fabs(three - behind) < 1e-6 * all);       /* Eckart and Young: what is left is the least possible */
    kw_svd_free(s);
}

static void values(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_tensors *t;
    kw_err e;
    if (kw_tensors_open(a, GOLDEN, &t, &e))
        fail_msg("%s", e.what);
    one(t, "wide", 20);
    one(t, "tall", 33);
    one(t, "low", 5);
    one(t, "square", 65);
    kw_arena_free(a);
}

/* Larger than all tiles and collected sweeps: D = random, checked by its own factors and its norm. */
static void large(void **state)
{
    (void)state;
    enum { ROWS = 331, COLUMNS = 702 };
    float *d = kw_block_new(ROWS * COLUMNS * sizeof *d);
    kw_svd *s;
    double norm = 0, sum = 0, skew;
    kw_rng_normals((kw_rng){ .seed = 5, .stream = KW_RNG_TEST }, 0, d, ROWS * COLUMNS);
    assert_int_equal(kw_svd_new(d, ROWS, COLUMNS, ROWS, &s, NULL), KW_OK);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        norm += (double)d[i] * d[i];
    for (int i = 0; i < ROWS; i++)
        sum += kw_svd_values(s)[i] * kw_svd_values(s)[i];
    assert_true(fabs(sum / norm - 1) < 1e-12);
    const double whole = sqrt(rest(d, ROWS, COLUMNS, s, ROWS, &skew) / norm);
    print_message("%d x %d: energy %.2g, factors %.2g, angles %.2g\n", ROWS, COLUMNS, sum / norm - 1, whole, skew);
    assert_true(whole < 1e-6 && skew < 1e-5);
    kw_svd_free(s);
    kw_block_free(d);
}

/* A sum of few products: what is zero is rounding's, and must not keep the iteration from ending. */
static void low(void **state)
{
    (void)state;
    enum { ROWS = 128, COLUMNS = 96, RANK = 6 };
    float *d = kw_block_new(ROWS * COLUMNS * sizeof *d), u[ROWS * RANK], v[RANK * COLUMNS];
    for (uint64_t seed = 0; seed < 60; seed++) {
        kw_svd *s;
        kw_err e;
        kw_rng_normals((kw_rng){ .seed = seed, .stream = KW_RNG_TEST }, 0, u, ROWS * RANK);
        kw_rng_normals((kw_rng){ .seed = seed, .stream = KW_RNG_TEST, .step = 1 }, 0, v, RANK * COLUMNS);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++) {
                float sum = 0;
                for (int k = 0; k < RANK; k++)
                    sum += u[i * RANK + k] * v[k * COLUMNS + j];
                d[i * COLUMNS + j] = sum;
            }
        if (kw_svd_new(d, ROWS, COLUMNS, ROWS, &s, &e))
            fail_msg("seed %d: %s", (int)seed, e.what);
        assert_true(kw_svd_values(s)[RANK] < 1e-6 * kw_svd_values(s)[0]);
        kw_svd_free(s);
    }
    kw_block_free(d);
}

/* By the factors of a product: the values and the sum are those of the whole matrix. */
static void products(void **state)
{
    (void)state;
    enum { ROWS = 90, COLUMNS = 150, RANK = 7 };
    float u[ROWS * RANK], v[RANK * COLUMNS], *d = kw_block_new(ROWS * COLUMNS * sizeof *d);
    kw_svd *s, *p;
    kw_err e;
    kw_rng_normals((kw_rng){ .seed = 1, .stream = KW_RNG_TEST }, 0, u, ROWS * RANK);
    kw_rng_normals((kw_rng){ .seed = 2, .stream = KW_RNG_TEST }, 0, v, RANK * COLUMNS);
    for (int k = 0; k < COLUMNS; k++)
        v[6 * COLUMNS + k] = v[5 * COLUMNS + k];          /* of rank 6 */
    double norm = 0, skew;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        double sum = 0;
        for (int k = 0; k < RANK; k++)
            sum += (double)u[i / COLUMNS * RANK + k] * v[k * COLUMNS + i % COLUMNS];
        d[i] = (float)sum;
        norm += sum * sum;
    }
    if (kw_svd_new(d, ROWS, COLUMNS, ROWS, &s, &e) || kw_svd_product(u, v, ROWS, RANK, COLUMNS, RANK, &p, &e))
        fail_msg("%s", e.what);
    assert_int_equal(kw_svd_n(p), RANK);
    for (int i = 0; i < 6; i++)
        assert_true(fabs(kw_svd_values(p)[i] / kw_svd_values(s)[i] - 1) < 1e-6);
    assert_true(kw_svd_values(p)[6] < 1e-6 * kw_svd_values(p)[0]);
    double whole = sqrt(rest(d, ROWS, COLUMNS, p, RANK, &skew) / norm);
    print_message("product: factors %.2g, angles %.2g\n", whole, skew);
    assert_true(whole < 1e-6 && skew < 1e-5);
    kw_svd_free(s);
    kw_svd_free(p);
    kw_block_free(d);
}

static void odd(void **state)
{
    (void)state;
    float d[12] = { 0 }, up[12], down[12];
    kw_svd *s;
    kw_err e;
    assert_int_equal(kw_svd_new(d, 3, 4, 3, &s, &e), KW_OK);         /* all zero */
    assert_true(kw_svd_values(s)[0] == 0);
    kw_svd_factors(s, d, 3, up, down);
    for (int i = 0; i < 9; i++)
        assert_true(up[i] == 0);
    kw_svd_free(s);
    d[0] = -2;
    assert_int_equal(kw_svd_new(d, 1, 1, 9, &s, &e), KW_OK);
    assert_true(kw_svd_values(s)[0] == 2);
    kw_svd_factors(s, d, 1, up, down);
    assert_true(fabsf(up[0] * down[0] + 2) < 1e-6f);
    kw_svd_free(s);
    d[5] = NAN;
    assert_int_equal(kw_svd_new(d, 3, 4, 3, &s, &e), KW_ENUMERIC);
}

static void ranks(void **state)
{
    (void)state;
    static const double s[] = { 8, 4, 2, 1, 0.5 };
    assert_int_equal(kw_rank_of(&(kw_rank_want){ .rank = 3 }, s, 5, false), 3);
    assert_int_equal(kw_rank_of(&(kw_rank_want){ .rank = 3, .conv_rank = 1 }, s, 5, true), 1);
    assert_int_equal(kw_rank_of(&(kw_rank_want){ .rank = 9 }, s, 5, false), 5);
    assert_int_equal(kw_rank_of(&(kw_rank_want){ 9, 0, KW_RANK_RATIO, 5 }, s, 5, false), 3);           /* above 1.6 */
    assert_int_equal(kw_rank_of(&(kw_rank_want){ 9, 0, KW_RANK_CUMULATIVE, 0.8 }, s, 5, false), 3);    /* 12 < 12.4 */
    assert_int_equal(kw_rank_of(&(kw_rank_want){ 9, 0, KW_RANK_ENERGY, 0.93 }, s, 5, false), 2);       /* 80 / 85.25 */
    assert_int_equal(kw_rank_of(&(kw_rank_want){ 9, 0, KW_RANK_FRO, 0.97 }, s, 5, false), 3);          /* 0.9409 */
    assert_int_equal(kw_rank_of(&(kw_rank_want){ 2, 0, KW_RANK_ENERGY, 1 }, s, 5, false), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(values), cmocka_unit_test(large), cmocka_unit_test(low),
                                        cmocka_unit_test(products),
                                        cmocka_unit_test(odd),
                                        cmocka_unit_test(ranks) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
