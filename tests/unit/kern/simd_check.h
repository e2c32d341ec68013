/*
 * simd_check.h - what the tests of the vector kernels share: every instruction set this machine has, typed tensors with
 * double copies, relative errors, the same bits on one and two threads.
 */
#ifndef SIMD_CHECK_H
#define SIMD_CHECK_H

#include "kern/kern.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The output's own rounding to bf16 alone is 1.66e-3 in relative L2, up to 3.9e-3 for a single number. */
static double bf16_limit(int64_t n) { return n < 1000 ? 4.0e-3 : 2.0e-3; }

static const kw_kern *kern;               /* the table under test */
static uint64_t random_state = 88172645463325252u;

/* Runs body(kern) for each instruction set; says which ones this machine lacks. */
__attribute__((unused)) static void for_each_isa(void (*body)(void))
{
    static const char *const names[] = { "scalar", "avx2", "avx512", "avx512_bf16" };
    for (size_t i = 0; i < KW_LEN(names); i++) {
        if (kw_kern_choose(names[i], NULL)) {
            print_message("SKIPPED: this machine has no %s; that build is compiled, not run\n", names[i]);
            continue;
        }
        kern = kw_kern_get();
        random_state = 88172645463325252u;              /* the same numbers for each */
        assert_string_equal(kern->isa, names[i]);
        body();
    }
    assert_int_equal(kw_kern_choose(NULL, NULL), KW_OK);
}

typedef struct {                          /* n numbers of type t, and their exact values */
    kw_dtype t;
    int64_t n;
    void *p;
    double *exact;
} tensor;

static double random_uniform(void)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (double)(random_state >> 11) / 9007199254740992.0;
}
static double random_normal(void)
{
    double s = 0;
    for (int i = 0; i < 12; i++)
        s += random_uniform();
    return s - 6;
}

/* Guard words behind the numbers: check_free says when they were written. */
enum { GUARD = 64 };

static size_t element(kw_dtype t) { return kw_dtype_size(t); }

static void exact_of(tensor *x)
{
    for (int64_t i = 0; i < x->n; i++)
        x->exact[i] = x->t == KW_F32 ? (double)((float *)x->p)[i] : x->t == KW_BF16
            ? (double)kw_bf16_to_f32(((uint16_t *)x->p)[i]) : (double)kw_f16_to_f32(((uint16_t *)x->p)[i]);
}

static void set(tensor *x, int64_t i, double v)
{
    if (x->t == KW_F32)
        ((float *)x->p)[i] = (float)v;
    else
        ((uint16_t *)x->p)[i] = x->t == KW_BF16 ? kw_f32_to_bf16((float)v) : kw_f32_to_f16((float)v);
}

static tensor make(kw_dtype t, int64_t n)
{
    tensor x = { t, n, malloc((size_t)n * element(t) + GUARD), malloc((size_t)(n + 1) * sizeof(double)) };
    memset(x.p, 0x5a, (size_t)n * element(t) + GUARD);
    return x;
}

static tensor make_random(kw_dtype t, int64_t n, double mean, double sigma)
{
    tensor x = make(t, n);
    for (int64_t i = 0; i < n; i++)
        set(&x, i, mean + sigma * random_normal());
    exact_of(&x);
    return x;
}

static void drop(tensor *x)
{
    for (int i = 0; i < GUARD; i++)
        assert_int_equal(((unsigned char *)x->p)[(size_t)x->n * element(x->t) + (size_t)i], 0x5a);
    free(x->p);
    free(x->exact);
}

/* || x - r || / || r ||; a NaN on either side alone is infinitely wrong. */
static double error_of(tensor *x, const double *r)
{
    double d = 0, s = 0;
    exact_of(x);
    for (int64_t i = 0; i < x->n; i++) {
        if (isnan(x->exact[i]) != isnan(r[i]))
            return INFINITY;
        if (isnan(r[i]))
            continue;
        d += (x->exact[i] - r[i]) * (x->exact[i] - r[i]);
        s += r[i] * r[i];
    }
    return sqrt(d / (s > 0 ? s : 1));
}

/* Of each name the error nearest to its limit, printed at the end. */
static struct { char name[48]; double worst, limit; } seen[192];
static void check(const char *what, kw_dtype t, double error, double limit)
{
    char name[48];
    snprintf(name, sizeof name, "%s %s %s", kern->isa, kw_dtype_name(t), what);
    size_t i = 0;
    while (i < KW_LEN(seen) - 1 && seen[i].name[0] && strcmp(seen[i].name, name))
        i++;
    snprintf(seen[i].name, sizeof seen[i].name, "%s", name);
    if (!(seen[i].limit > 0 && error / limit <= seen[i].worst / seen[i].limit)) {
        seen[i].worst = error;
        seen[i].limit = limit;
    }
    if (!(error <= limit))
        fail_msg("%s: error %g, limit %g", name, error, limit);
}
__attribute__((unused)) static void report(void)
{
    for (size_t i = 0; i < KW_LEN(seen) && seen[i].name[0]; i++)
        print_message("  %-40s %.2e / %.2e\n", seen[i].name, seen[i].worst, seen[i].limit);
    memset(seen, 0, sizeof seen);
}

/* Runs `call` on one thread, then on two (and three): `out` must hold the same bits. */
#define SAME_BITS(out, bytes, call) \
    do { \
        const int had_ = omp_get_max_threads(); \
        const size_t bytes_ = (bytes); \
        omp_set_num_threads(1); \
        call; \
        void *one_ = malloc(bytes_); \
        memcpy(one_, (out), bytes_); \
        for (int n_ = 2; n_ <= 3; n_++) { \
            memset((out), 0x77, bytes_); \
            omp_set_num_threads(n_); \
            call; \
            assert_memory_equal((out), one_, bytes_); \
        } \
        free(one_); \
        omp_set_num_threads(had_); \
    } while (0)

static const kw_dtype types[] = { KW_F32, KW_BF16 };

#endif
