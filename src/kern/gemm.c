/*
 * gemm.c - kw_gemm: C = alpha op(A) op(B) + beta C (+ bias), summed in f32. bf16 with bf16 goes through oneDNN where the
 * machine has such products (AVX512-BF16); all else through our own register tiles (gemm_tile.h).
 *
 *            B, panels of `width` columns, `deep` steps of which are packed at a time
 *              |.....|.....|.....|           a task is a group of panels and a part of the rows: no two tasks
 *   A  |---|   +-----+-----+-----+           write the same number, and nobody waits for anybody
 *      | b |   |  C of a block   |
 *      |---|   |  (96 rows)      |           block by block, `step` steps of the sum at a time:
 *      |   |   |                 |           a panel's steps stay in the first cache, the block of A in the second
 *
 * A is read where it lies; a block of it is copied if its numbers are narrower than f32 (widened) or it is read by columns
 * (tile by tile). B is packed by the thread that uses it (and multiplied by alpha), but for few rows of C, where it is
 * read in place too. So no operand is ever copied whole. Few rows of C against many columns with B transposed (a layer on few tokens) are turned round:
 * Cᵀ = Bᵀ Aᵀ reads the weight once, in place, and packs the tokens instead.
 *
 * Each number of C is one sum in order of k, in chunks that depend on the shape alone: the same bits for every number of
 * threads. C of another type than f32, turned round or with beta other than 0 and 1 is summed in a block of its own.
 */
#include "dnn.h"
#include "gemm_tile.h"
#include "gemm_whole.h"

#include <omp.h>
#include <string.h>

enum {
    BLOCK = 96,                           /* rows of A that stay in the second cache */
    STEP = 320, COLUMN_STEP = 256, FAR_STEP = 128,      /* steps of a chunk: A by rows, by columns; B in place */
    PACK_STEP = 64,                       /* straight rows of B that are packed in one go */
    PACKED = 1 << 18,                     /* most numbers packed at a time by a thread, if a panel is not more */
    COLUMNS = 320,                        /* of a group, at least where B is packed in parts */
    REUSED = 4,                           /* panels that repay copying columns of A */
    PAD = 8,                              /* keeps the rows of a copy off the same lines of the cache */
    TURNED = 128,                         /* most rows that are worth turning round */
    FEW = 48,                             /* so few rows do not repay packing B */
    SMALL = 1 << 15,                      /* multiply-adds that are not worth a team */
    LINE = 16                             /* numbers */
};

typedef struct {
    kw_gemm_shape s;                      /* turned: of Cᵀ = op(B)ᵀ op(A)ᵀ */
    const kw_gemm_tile *tile;
    bool turned, direct;                  /* direct: tiles go to C */
    bool in_place, copied;                /* whole panels of B are not packed; blocks of A are copied */
    int threads, panels, group, groups, parts;
    int64_t step, deep, part;             /* part: rows of a task */
    size_t packed, wide, sums, slab, room;              /* numbers, of each thread */
} plan;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static size_t padded(int64_t n) { return (size_t)(ceil_div(n, LINE) * LINE); }

/* ---- plan ------------------------------------------------------------------------------------------------- */

static kw_gemm_shape turn(const kw_gemm_shape *s)
{
    kw_gemm_shape t = *s;
    t.m = s->n, t.n = s->m;
    t.ta = !s->tb, t.tb = !s->ta;
    t.lda = s->ldb, t.ldb = s->lda;
    t.a = s->b, t.b = s->a;
    return t;
}

/* A packed number costs as much as 5 to 15 multiply-adds: few rows would pay it for all of B, turned for A alone. */
static bool better_turned(const kw_gemm_shape *s) { return s->tb && !s->ta && s->m * 4 <= s->n && s->m <= TURNED; }

static void plan_steps(plan *p)
{
    const kw_gemm_shape *s = &p->s;
    bool near = s->ldb <= 2 * p->tile->width;           /* rows of B follow each other */
    p->in_place = s->b == KW_F32 && !s->tb && s->alpha == 1 && (s->m <= FEW || near);
    int64_t most = p->in_place && !near ? FAR_STEP : s->ta ? COLUMN_STEP : STEP, k = KW_MAX(1, s->k);
    p->step = ceil_div(k, ceil_div(k, most));
    p->deep = k;
    if (p->direct && !p->in_place)
        p->deep = KW_MIN(k, KW_MAX(1, PACKED / KW_MIN(s->n, COLUMNS) / p->step) * p->step);
}

/*
 * The tasks: about four for each thread, so that one that is held up holds up nobody; but if only a part of the steps
 * is packed at a time one, as it packs anew for each part of the rows. Many groups mean that A is copied often, many
 * parts that B is packed by several threads: the cheapest of the splits is taken.
 */
static void plan_tasks(plan *p)
{
    int64_t m = p->s.m, width = p->tile->width, least = 1, groups = 1, parts = 1;
    int64_t wanted = p->threads < 2 ? 1 : p->deep < p->s.k ? p->threads : 4 * p->threads;
    double cheapest = -1;
    p->panels = (int)ceil_div(p->s.n, width);
    if (!p->in_place)
        least = ceil_div(p->panels, KW_MAX(1, PACKED / (p->deep * width)));
    if (!p->direct)
        least = KW_MAX(least, ceil_div(p->s.n, COLUMNS));
    for (int64_t k = 1; k <= KW_MIN(wanted, ceil_div(m, p->in_place ? p->tile->rows : BLOCK / 2)); k++) {
        int64_t n = KW_MIN(p->panels, KW_MAX(least, ceil_div(wanted, k)));
        double cost = (double)n * (double)m + (double)KW_MIN(k, p->threads) * (double)p->s.n;
        if (n * k < wanted)
            cost *= (double)wanted / (double)(n * k);
        if (cheapest < 0 || cost < cheapest)
            cheapest = cost, groups = n, parts = k;
    }
    p->group = (int)ceil_div(p->panels, groups);
    p->groups = (int)ceil_div(p->panels, p->group);
    p->part = ceil_div(ceil_div(m, parts), p->tile->rows) * p->tile->rows;
    p->parts = (int)ceil_div(m, p->part);
}

static void make(const kw_gemm_shape *s, plan *p)
{
    *p = (plan){ .s = *s, .tile = kw_gemm_tile_get(), .turned = better_turned(s) };
    if (p->turned)
        p->s = turn(s);
    if (s->alpha == 0)
        p->s.k = 0;
    p->threads = s->m * s->n * s->k > SMALL ? kw_threads() : 1;
    p->direct = !p->turned && s->c == KW_F32 && (s->beta == 0 || s->beta == 1);
    plan_steps(p);
    plan_tasks(p);
    int64_t width = p->tile->width, columns = p->group * width, block = KW_MIN(BLOCK, p->part);
    p->packed = padded((p->in_place ? width : columns) * p->deep);
    p->copied = p->s.a != KW_F32 || (p->group >= REUSED && p->s.ta);
    p->wide = p->copied ? padded((block + LINE) * (p->step + PAD)) : 0;
    p->sums = padded(block * (p->direct ? width : columns));
    p->slab = p->turned ? padded(columns * width) : 0;
    p->room = p->packed + p->wide + p->sums + p->slab;
}

/* ---- work of one thread --------------------------------------------------------------------------------------- */

typedef struct {
    const plan *p;
    const char *a, *b;
    const float *scale;                   /* of the rows of an I8 operand's memory, the weight's: B, turned A */
    const float *bias;
    char *c;
    float *packed, *wide, *sums, *slab;
    int group;                            /* that is packed, -1: none */
    int64_t from;                         /* its first step */
} worker;

static int64_t left_of(const plan *p, int panel) { return p->s.n - (int64_t)panel * p->tile->width; }

/* As many columns are there as the tile computes, so that it may write to C and read B in place. */
static bool is_half(const plan *p, int panel) { return left_of(p, panel) <= p->tile->width / 2; }
static bool is_whole(const plan *p, int panel)
{
    return left_of(p, panel) >= p->tile->width / (is_half(p, panel) ? 2 : 1);
}

static const char *b_at(const worker *w, int64_t k, int64_t column)
{
    const kw_gemm_shape *s = &w->p->s;
    return w->b + (s->tb ? column * s->ldb + k : k * s->ldb + column) * (int64_t)kw_dtype_size(s->b);
}

/* Where the panel is packed: a single one if the others are read in place. */
static float *packed_at(const worker *w, int panel)
{
    const plan *p = w->p;
    return w->packed + (p->in_place ? 0 : (int64_t)(panel - w->group * p->group) * p->deep * p->tile->width);
}

/* Of the rows of B's memory that are packed: a column each if it is transposed, else a step. */
static const float *scale_at(const worker *w, int64_t k, int64_t column)
{
    const kw_gemm_shape *s = &w->p->s;
    return s->b == KW_I8 ? w->scale + (s->tb ? column : k) : NULL;
}

/* Straight rows of B are read some at a time, for all panels in turn: whole rows follow each other in memory. */
static void pack_group(worker *w, int group, int64_t k)
{
    const plan *p = w->p;
    int64_t width = p->tile->width, n = KW_MIN(p->deep, p->s.k - k), some = p->s.tb ? n : PACK_STEP;
    if (w->group == group && w->from == k)
        return;
    w->group = group;
    w->from = k;
    for (int64_t i = 0; i < n; i += some)
        for (int j = group * p->group; j < KW_MIN(p->panels, (group + 1) * p->group); j++)
            if (!p->in_place || !is_whole(p, j))
                p->tile->pack(p->s.b, b_at(w, k + i, j * width), p->s.ldb, p->s.tb, KW_MIN(some, n - i),
                              (int)KW_MIN(width, left_of(p, j)), p->s.alpha, scale_at(w, k + i, j * width),
                              packed_at(w, j) + i * width);
}

/* A's block of rows from `row` on and of the steps from k on: where it lies, or copied as f32. */
static void place_a(const worker *w, kw_gemm_strip *t, int64_t row, int64_t k)
{
    const plan *p = w->p;
    const kw_gemm_shape *s = &p->s;
    const char *at = w->a + (s->ta ? k * s->lda + row : row * s->lda + k) * (int64_t)kw_dtype_size(s->a);
    t->by_columns = s->ta;
    t->a = p->copied ? w->wide : (const float *)(const void *)at;
    t->lda = !p->copied ? s->lda : s->ta ? p->tile->rows : t->n + PAD;
    t->next = (p->copied ? t->n : 1) * p->tile->rows;
    if (p->copied && s->ta)
        p->tile->gather(s->a, at, s->lda, t->m, t->n, w->wide);
    else if (p->copied)
        p->tile->widen(s->a, at, s->lda, t->m, t->n, s->a == KW_I8 ? w->scale + row : NULL, w->wide, t->lda);
}

static int64_t sums_ld(const plan *p) { return (int64_t)(p->direct ? 1 : p->group) * p->tile->width; }

/* One panel of C's block, some steps: k from the first one packed. */
static void run_panel(const worker *w, kw_gemm_strip t, int panel, int64_t row, int64_t k)
{
    const plan *p = w->p;
    int64_t width = p->tile->width, column = panel * width;
    bool whole = is_whole(p, panel), first = w->from + k == 0;
    t.half = is_half(p, panel);
    t.b = packed_at(w, panel) + k * width;
    t.ldb = width;
    if (p->in_place && whole) {
        t.b = (const float *)(const void *)b_at(w, w->from + k, column);
        t.ldb = p->s.ldb;
    }
    if (p->direct && whole) {
        t.c = (float *)(void *)w->c + row * p->s.ldc + column;
        t.ldc = p->s.ldc;
        t.add = !first || p->s.beta != 0;
        t.bias = first && w->bias ? w->bias + column : NULL;
    } else {
        t.c = w->sums + (p->direct ? 0 : (panel - w->group * p->group) * width);
        t.ldc = sums_ld(p);
        t.add = k > 0;
    }
    p->tile->strip(&t);
}

/* A block of sums of Cᵀ, `columns` of them: `width` rows at a time become columns again. */
static void finish_turned(const worker *w, int64_t row, int64_t rows, int64_t column, int64_t columns)
{
    const plan *p = w->p;
    int64_t width = p->tile->width, size = (int64_t)kw_dtype_size(p->s.c);
    for (int64_t i = 0; i < rows; i += width) {
        int64_t n = KW_MIN(width, rows - i);
        p->tile->pack(KW_F32, w->sums + i * sums_ld(p), sums_ld(p), true, columns, (int)n, 1, NULL, w->slab);
        p->tile->finish(p->s.c, w->c + (column * p->s.ldc + row + i) * size, p->s.ldc, w->slab, width, columns, n,
                        p->s.beta, w->bias ? w->bias + row + i : NULL);
    }
}

/* What the tiles could not write to C themselves: all, or the last panel if it is cut. */
static void finish_block(const worker *w, int64_t row, int64_t rows)
{
    const plan *p = w->p;
    int first = w->group * p->group, end = KW_MIN(p->panels, first + p->group);
    if (p->direct) {
        first = p->panels - 1;
        if (end < p->panels || is_whole(p, first))
            return;
    }
    int64_t column = (int64_t)first * p->tile->width, columns = KW_MIN(p->s.n, (int64_t)end * p->tile->width) - column;
    bool again = w->from > 0;
    if (p->turned)
        finish_turned(w, row, rows, column, columns);
    else
        p->tile->finish(p->s.c, w->c + (row * p->s.ldc + column) * (int64_t)kw_dtype_size(p->s.c), p->s.ldc, w->sums,
                        sums_ld(p), rows, columns, again ? 1 : p->s.beta, w->bias && !again ? w->bias + column : NULL);
}

/*
 * What of A comes after the steps from k on of the block at `row`: the next steps, else the next block of the task. Not
 * where columns of A are read in place: their lines are those of the tile before.
 */
static bool look_ahead(const worker *w, int64_t row, int64_t end, int64_t k, int64_t tiles, kw_gemm_ahead *q)
{
    const kw_gemm_shape *s = &w->p->s;
    int64_t last = KW_MIN(s->k, w->from + w->p->deep), size = (int64_t)kw_dtype_size(s->a), rows, n;
    k += w->p->step;
    if (k >= last) {
        row += BLOCK;
        k = w->from;
    }
    rows = KW_MIN(BLOCK, end - row);
    n = KW_MIN(w->p->step, last - k);
    if ((s->ta && !w->p->copied) || rows <= 0)
        return false;
    *q = (kw_gemm_ahead){ .at = w->a + (s->ta ? k * s->lda + row : row * s->lda + k) * size, .ld = s->lda * size };
    q->lines = ceil_div((s->ta ? rows : n) * size, 64);
    q->left = (s->ta ? n : rows) * q->lines;
    q->each = ceil_div(q->left, tiles);
    return true;
}

static void run_block(const worker *w, int64_t row, int64_t rows, int64_t task_end)
{
    const plan *p = w->p;
    int first = w->group * p->group, end = KW_MIN(p->panels, first + p->group);
    int64_t n = KW_MIN(p->deep, p->s.k - w->from), k = 0, tiles = ceil_div(rows, p->tile->rows) * (end - first);
    do {
        kw_gemm_ahead ahead;
        kw_gemm_strip t = { .m = rows, .n = KW_MIN(p->step, n - k) };
        if (look_ahead(w, row, task_end, w->from + k, tiles, &ahead))
            t.ahead = &ahead;
        place_a(w, &t, row, w->from + k);
        for (int panel = first; panel < end; panel++)
            run_panel(w, t, panel, row, k);
        k += p->step;
    } while (k < n);
    finish_block(w, row, rows);
}

static void run_task(worker *w, int group, int part)
{
    const plan *p = w->p;
    int64_t from = part * p->part, to = KW_MIN(p->s.m, from + p->part), k = 0;
    do {
        pack_group(w, group, k);
        for (int64_t row = from; row < to; row += BLOCK)
            run_block(w, row, KW_MIN(BLOCK, to - row), to);
        k += p->deep;
    } while (k < p->s.k);
}

/* Only the operand called b, a weight, may be I8: all of its rows, one after the other, the scales behind them. */
static const float *scales_of(const plan *p, const void *b)
{
    const kw_gemm_shape *s = &p->s;
    KW_ASSERT(p->turned ? s->b != KW_I8 && !(s->a == KW_I8 && s->ta) : s->a != KW_I8);
    if (p->turned)
        return s->a == KW_I8 ? kw_int8_scales(b, s->m, s->lda) : NULL;
    return s->b == KW_I8 ? kw_int8_scales(b, s->tb ? s->n : s->k, s->ldb) : NULL;
}

static void run(const plan *p, const void *a, const void *b, const float *bias, void *c, float *scratch)
{
    const float *scale = scales_of(p, b);
#pragma omp parallel num_threads(p->threads) if (p->threads > 1)
    {
        worker w = { .p = p, .a = p->turned ? b : a, .b = p->turned ? a : b, .scale = scale, .bias = bias, .c = c,
                     .group = -1 };
        w.packed = scratch + p->room * (size_t)omp_get_thread_num();
        w.wide = w.packed + p->packed;
        w.sums = w.wide + p->wide;
        w.slab = w.sums + p->sums;
#pragma omp for schedule(dynamic)
        for (int i = 0; i < p->groups * p->parts; i++)
            run_task(&w, i / p->parts, i % p->parts);
    }
}

/* ---- bf16 in hardware --------------------------------------------------------------------------------------------- */

#define ALIGN(n) (((n) + 63) & ~(size_t)63)

static const kw_dnn_matmul *native(const kw_gemm_shape *s)
{
    return s->a == KW_BF16 && s->b == KW_BF16 && s->k > 0 && s->alpha != 0 ? kw_dnn_matmul_get(s) : NULL;
}

/* The library multiplies the bias by alpha too. */
static void run_native(const kw_dnn_matmul *p, const kw_gemm_shape *s, const void *a, const void *b, const float *bias,
                       void *c, float *scratch)
{
    for (int64_t i = 0; i < s->n; i++)
        scratch[i] = bias ? bias[i] / s->alpha : 0;
    kw_dnn_matmul_run(p, a, b, scratch, c, (char *)scratch + ALIGN((size_t)s->n * sizeof(float)));
}

/* ---- both ----------------------------------------------------------------------------------------------------------- */

bool kw_gemm_has_bf16(void) { return kw_dnn_has_bf16(); }

size_t kw_gemm_scratch_size(const kw_gemm_shape *s)
{
    const kw_dnn_matmul *bf16 = native(s);
    if (bf16)
        return ALIGN((size_t)s->n * sizeof(float)) + kw_dnn_matmul_scratch_size(bf16);
    if (s->m < 1 || s->n < 1)
        return 0;
    if (kw_gemm_whole_fits(s))
        return kw_gemm_whole_scratch(s);
    plan p;
    make(s, &p);
    return p.room * (size_t)p.threads * sizeof(float);
}

void kw_gemm(const kw_gemm_shape *s, const void *a, const void *b, const float *bias, void *c, void *scratch)
{
    if (s->m < 1 || s->n < 1)
        return;
    const kw_dnn_matmul *bf16 = native(s);
    if (bf16) {
        run_native(bf16, s, a, b, bias, c, scratch);
        return;
    }
    if (kw_gemm_whole_fits(s)) {
        kw_gemm_whole(s, a, b, bias, c, scratch);
        return;
    }
    plan p;
    make(s, &p);
    run(&p, a, b, bias, c, scratch);
}
