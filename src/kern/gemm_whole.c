/*
 * gemm_whole.c - products in whole numbers, see gemm_whole.h: how the work is cut.
 *
 * A is rounded once for all. A task is a group of panels of B, packed whole (up to 256 KB), and a part of the rows; within
 * it blocks of 96 rows are summed 512 steps at a time, so that a panel's steps stay in the first cache.
 *
 * scratch: [A's scales] [A] then for each thread [packed panels] [sums of a block]
 */
#include "gemm_whole.h"

#include <omp.h>
#include <string.h>

extern const kw_gemm_whole_tile kw_gemm_whole_avx2;

enum { BLOCK = 96, STEP = 512, PACKED = 1 << 17, LINE = 64, LEAST_ROWS = 32 };

typedef struct {
    const kw_gemm_shape *s;
    const kw_gemm_whole_tile *tile;
    int64_t even, lda, padded;            /* k as whole pairs; a row of A; rows as whole tiles */
    int threads, panels, group, groups, parts, most;
    int64_t part;                         /* rows of a task */
    size_t scales, rounded, packed, sums;                  /* bytes */
} plan;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static size_t lines(int64_t bytes) { return (size_t)(ceil_div(bytes, LINE) * LINE); }

bool kw_gemm_whole_fits(const kw_gemm_shape *s)
{
    return s->whole && s->b == KW_I8 && s->tb && !s->ta && s->m >= LEAST_ROWS && s->k >= 16 && s->k < 1 << 17
        && !strcmp(kw_kern_get()->isa, "avx2");
}

static void make(const kw_gemm_shape *s, plan *p)
{
    *p = (plan){ .s = s, .tile = &kw_gemm_whole_avx2, .even = (s->k + 1) / 2 * 2, .threads = kw_threads() };
    const int64_t top = INT32_MAX / (127 * s->k);
    p->most = (int)KW_MIN(top, INT16_MAX);
    p->lda = p->even + LINE / 4;          /* keeps rows off the same lines of the cache */
    p->padded = ceil_div(s->m, p->tile->rows) * p->tile->rows;
    p->panels = (int)ceil_div(s->n, p->tile->width);
    p->group = (int)KW_MAX(1, PACKED / (p->even * p->tile->width));
    p->group = (int)ceil_div(p->panels, ceil_div(p->panels, p->group));
    p->groups = (int)ceil_div(p->panels, p->group);
    int64_t parts = KW_MIN(ceil_div(4 * p->threads, p->groups), ceil_div(s->m, BLOCK));
    p->part = ceil_div(ceil_div(s->m, parts), p->tile->rows) * p->tile->rows;
    p->parts = (int)ceil_div(s->m, p->part);
    p->scales = lines(p->padded * (int64_t)sizeof(float));
    p->rounded = lines(p->padded * p->lda * (int64_t)sizeof(int16_t));
    p->packed = lines(p->group * p->even * p->tile->width * (int64_t)sizeof(int16_t));
    p->sums = lines((int64_t)BLOCK * p->group * p->tile->width * (int64_t)sizeof(int32_t));
}

size_t kw_gemm_whole_scratch(const kw_gemm_shape *s)
{
    plan p;
    make(s, &p);
    return p.scales + p.rounded + (size_t)p.threads * (p.packed + p.sums);
}

typedef struct {
    const plan *p;
    const float *row_scale, *scale, *bias;
    const int16_t *a;
    int16_t *packed;
    int32_t *sums;
    char *c;
} worker;

static void round_rows(const plan *p, const void *a, float *scale, int16_t *to)
{
#pragma omp parallel for schedule(static) num_threads(p->threads) if (p->threads > 1)
    for (int64_t r = 0; r < p->padded; r++) {
        int16_t *row = to + r * p->lda;
        memset(row, 0, sizeof *row * (size_t)p->even);
        scale[r] = r < p->s->m ? p->tile->round(p->s->a, a, r * p->s->lda, p->s->k, p->most, row) : 0;
    }
}

static void run_block(const worker *w, int first, int panels, int64_t row, int64_t rows)
{
    const plan *p = w->p;
    const kw_gemm_shape *s = p->s;
    const int high = p->tile->rows, width = p->tile->width;
    int64_t tiles = ceil_div(rows, high), size = (int64_t)kw_dtype_size(s->c);
    for (int64_t k = 0; k < p->even; k += STEP)
        for (int j = 0; j < panels; j++)
            for (int64_t t = 0; t < tiles; t++)
                p->tile->tile(w->a + (row + t * high) * p->lda + k, p->lda, w->packed + (j * p->even + k) * width,
                              KW_MIN(STEP, p->even - k) / 2, k > 0, w->sums + (j * tiles + t) * high * width);
    for (int j = 0; j < panels; j++)
        for (int64_t t = 0; t < tiles; t++) {
            int64_t column = (int64_t)(first + j) * width, at = row + t * high;
            p->tile->finish(s->c, w->c + (at * s->ldc + column) * size, s->ldc, w->sums + (j * tiles + t) * high * width,
                            w->row_scale + at, w->scale + column, (int)KW_MIN(high, row + rows - at),
                            (int)KW_MIN(width, s->n - column), s->alpha, s->beta, w->bias ? w->bias + column : NULL);
        }
}

static void run_task(const worker *w, const int8_t *b, int group, int part)
{
    const plan *p = w->p;
    int first = group * p->group, panels = KW_MIN(p->group, p->panels - first);
    int64_t end = KW_MIN(p->s->m, (part + 1) * p->part);
    for (int j = 0; j < panels; j++) {
        int64_t column = (int64_t)(first + j) * p->tile->width;
        p->tile->pack(b + column * p->s->k, p->s->k, (int)KW_MIN(p->tile->width, p->s->n - column),
                      w->packed + j * p->even * p->tile->width);
    }
    for (int64_t row = part * p->part; row < end; row += BLOCK)
        run_block(w, first, panels, row, KW_MIN(BLOCK, end - row));
}

void kw_gemm_whole(const kw_gemm_shape *s, const void *a, const void *b, const float *bias, void *c, void *scratch)
{
    plan p;
    make(s, &p);
    float *row_scale = scratch;
    int16_t *rounded = (int16_t *)(void *)((char *)scratch + p.scales);
    char *own = (char *)rounded + p.rounded;
    round_rows(&p, a, row_scale, rounded);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
    {
        char *mine = own + (size_t)omp_get_thread_num() * (p.packed + p.sums);
        worker w = { .p = &p, .row_scale = row_scale, .scale = kw_int8_scales(b, s->n, s->k), .bias = bias, .a = rounded,
                     .packed = (int16_t *)(void *)mine, .sums = (int32_t *)(void *)(mine + p.packed), .c = c };
#pragma omp for schedule(dynamic)
        for (int i = 0; i < p.groups * p.parts; i++)
            run_task(&w, b, i / p.parts, i % p.parts);
    }
}
