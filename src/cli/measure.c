/* measure.c - how fast this machine computes and reads memory, in about two seconds. */
#include "measure.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* The best of all repetitions within the time: other programs can only make it slower. */
typedef struct { double best, end; int runs; } repetition;

static bool again(repetition *r, double seconds, double took)
{
    double t = kw_now();
    if (!r->end)
        r->end = t + seconds;
    else if (r->runs++ && (took < r->best || r->runs == 2))
        r->best = took;                   /* the first run warms up */
    return t < r->end || r->runs < 3;
}

/*  C = A B, all SIZE x SIZE in f32: 2 SIZE^3 operations  */
static double products(int threads, double seconds, kw_arena *a)
{
    enum { SIZE = 768 };
    kw_gemm_shape s = { .m = SIZE, .n = SIZE, .k = SIZE, .lda = SIZE, .ldb = SIZE, .ldc = SIZE,
                        .a = KW_F32, .b = KW_F32, .c = KW_F32, .alpha = 1 };
    omp_set_num_threads(threads);
    float *x = kw_alloc_array(a, 3 * SIZE * SIZE, sizeof *x);
    void *scratch = kw_alloc(a, kw_gemm_scratch_size(&s) + 64);
    repetition r = { 0 };
    double took = 0;
    if (!x || !scratch)
        return 0;
    for (int i = 0; i < 2 * SIZE * SIZE; i++)
        x[i] = 0.001f * (float)(i % 251);
    while (again(&r, seconds, took)) {
        double start = kw_now();
        kw_gemm(&s, x, x + SIZE * SIZE, NULL, x + 2 * SIZE * SIZE, scratch);
        took = kw_now() - start;
    }
    return 2.0 * SIZE * SIZE * SIZE / r.best;
}

/*  y = a x + y over 128 MB: two reads and one write  */
double kw_memory_measure(int threads, double seconds)
{
    const int64_t n = 16 << 20;
    float *x = kw_block_new(2 * (size_t)n * sizeof *x), *y = x ? x + n : NULL;
    repetition r = { 0 };
    double took = 0;
    if (!x)
        return 0;
    omp_set_num_threads(threads);
    while (again(&r, seconds, took)) {
        double start = kw_now();
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < n; i++)
            y[i] += 0.5f * x[i];
        took = kw_now() - start;
    }
    kw_block_free(x);
    return 3.0 * (double)n * sizeof(float) / r.best;
}

/* ---- the peak ---------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All threads do the same rounds at the same time; the last to end counts. */
static double rate(kw_peak k, int threads, int64_t rounds, double *took)
{
    double operations = 0, start = kw_now();
#pragma omp parallel num_threads(threads) reduction(+ : operations)
    operations += kw_kern_get()->peak(k, rounds);
    *took = kw_now() - start;
    return operations / *took;
}

double kw_peak_measure(kw_peak k, int threads, double seconds)
{
    enum { TIMES = 7 };
    double each[TIMES], took = 0;
    int64_t rounds = 1 << 14;
    if (kw_kern_get()->peak(k, 1) <= 0)
        return 0;
    for (int i = 0; i < 30 && took < seconds / (2 * TIMES); i++, rounds *= 2)
        (void)rate(k, threads, rounds, &took);
    rounds /= 2;
    rounds = KW_MAX(1, (int64_t)((double)rounds * seconds / TIMES / took));
    for (int i = 0; i < TIMES; i++)
        each[i] = rate(k, threads, rounds, &took);
    qsort(each, TIMES, sizeof *each, by_value);
    return each[TIMES / 2];
}

void kw_speed_measure(kw_speed *s, double seconds, void (*progress)(void *, int done, int of), void *arg)
{
    int threads = omp_get_max_threads();
    kw_arena *a = kw_arena_new();
    *s = (kw_speed){ .threads = threads };
    if (!a)
        return;
    progress(arg, 0, 3);
    s->one = products(1, 0.3 * seconds, a);
    progress(arg, 1, 3);
    s->all = threads > 1 ? products(threads, 0.4 * seconds, a) : s->one;
    progress(arg, 2, 3);
    s->memory = kw_memory_measure(threads, 0.3 * seconds);
    progress(arg, 3, 3);
    omp_set_num_threads(threads);
    kw_arena_free(a);
}
