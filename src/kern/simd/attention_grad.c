/*
 * attention_grad.c - tiled attention, backward. Probabilities are recomputed per tile from q, k and the saved lse:
 *
 *     P = exp(scale Q K^T - lse)     delta = rowsum(dO o O)     dS = P o (dO V^T - delta)
 *     dV = P^T dO        dK = scale dS^T Q        dQ = scale dS K
 *
 * Five products, each once. Loop order: tiles of ROWS queries outside, blocks of keys inside; dQ of a tile stays in
 * cache, dK and dV of the head are summed in f32 in scratch. Queries lie in the lanes for S, dP and dQ (no padding of
 * d); for dK and dV channels do (attention_grad_sum.h), since there the rows are what is summed over. Every hot loop
 * nest is a function of its own: in one large function gcc spreads its registers over all of them (measured on the
 * prototype: 59 against 76-85 % of peak).
 *
 * P and dS lie as [tile of rows][key][row], so that each product reads and writes them one line after the other.
 *
 * With fewer heads than RUNS, or than threads, the queries of a head are cut in runs, each with its own dK and dV,
 * added in order at the end: the same bits every time for the same number of threads (up to RUNS threads: for any).
 */
#include "attention_pack.h"
#include "attention_grad_sum.h"

#ifdef PAIRS
#define NAME(name) ISA(name##_pairs)
#else
#define NAME(name) ISA(name)
#endif

enum {
    ROWS = 128,                           /* queries in a tile, a multiple of TILE */
    KEYS = 96,                            /* in a block, a multiple of 12 */
    RUNS = 8,                             /* heads x runs wanted */
};

typedef struct {                          /* one tile of queries, packed when it begins */
    float *q_lanes, *do_lanes;            /* [ROWS / TILE][c / PER][TILE] */
    float *q_steps, *do_steps;            /* [row / PER][w] */
    float *lse2, *delta;                  /* [row]; lse in base 2; delta negative */
    float *dq;                            /* [ROWS / TILE][c][TILE] */
} query_tile;

typedef struct {                          /* what one run works on; w: dim rounded up to vectors */
    int dim, cells, w;
    int row;                              /* cells from one row of a panel of keys to the next */
    int keys;                             /* all of the head's, rounded up */
    int rows;                             /* of the tile at hand, rounded up to register tiles */
    float factor;                         /* of scores */
    float *k, *v, *k_groups;              /* rows; groups, block by block */
    float *p, *ds;                        /* [ROWS / TILE][key][TILE / PER]: neighbours are rows */
    float *s, *g;                         /* [key][TILE] of one tile: scores, dP (f32: where p and ds will be) */
    float *ds_steps;                      /* [key / PER][TILE] of one tile: neighbours are keys (f32: ds) */
    query_tile y;
} workspace;

typedef struct { float *dk, *dv; } sums;  /* [key][w] */

static int padded_keys(const kw_attention_shape *s) { return round_up(s->tk, KTILE); }

static void layout_tile(query_tile *y, char **at, size_t d, size_t cells, size_t w)
{
    y->q_lanes = carve(at, ROWS * cells), y->do_lanes = carve(at, ROWS * cells), y->dq = carve(at, ROWS * d);
    y->q_steps = carve(at, ROWS / PER * w), y->do_steps = carve(at, ROWS / PER * w);
    y->lse2 = carve(at, ROWS), y->delta = carve(at, ROWS);
}

static size_t layout(const kw_attention_shape *s, workspace *x, char *base)
{
    char *at = base;
    const int cells = cells_of(s->dim), w = sum_width(s->dim), keys = padded_keys(s);
    *x = (workspace){ .dim = s->dim, .cells = cells, .w = w, .row = row_cells(cells),
                      .keys = keys, .factor = PER == 1 ? 1 : s->scale * LOG2E };
    const size_t row = (size_t)x->row, block = (size_t)KW_MIN(KEYS, keys);
    x->k = carve(&at, (size_t)keys * row), x->v = carve(&at, (size_t)keys * row);
    x->k_groups = carve(&at, (size_t)(keys / PER) * (size_t)s->dim + BEHIND);
    x->p = carve(&at, block * ROWS / PER), x->ds = carve(&at, block * ROWS / PER);
    if (PER > 1) {
        x->s = carve(&at, block * TILE), x->g = carve(&at, block * TILE);
        x->ds_steps = carve(&at, block / PER * TILE);
    }
    layout_tile(&x->y, &at, (size_t)s->dim, (size_t)cells, (size_t)w);
    return (size_t)(at - base);
}

static int tile_count(const kw_attention_shape *s) { return (int)pieces(s->tq, ROWS); }
static int run_count(const kw_attention_shape *s, int threads)
{
    return (int)KW_MIN(tile_count(s), pieces(KW_MAX(RUNS, threads), s->batch * s->heads));
}

/* dK and dV of one run. */
static size_t sums_bytes(const kw_attention_shape *s)
{
    return 2 * align64((size_t)padded_keys(s) * (size_t)sum_width(s->dim) * sizeof(float));
}

/* Workspaces first, one per thread; then the sums: of each thread, or of each run where a head has several. */
size_t NAME(attention_grad_scratch)(kw_dtype t, const kw_attention_shape *s, int threads)
{
    static char origin[64];
    workspace x;
    const int runs = run_count(s, threads), count = runs > 1 ? s->batch * s->heads * runs : threads;
    const size_t bytes = (size_t)threads * layout(s, &x, origin) + (size_t)count * sums_bytes(s);
#if defined KW_ISA_avx512_bf16 && !defined PAIRS
    return t == KW_BF16 ? ISA(attention_grad_scratch_pairs)(t, s, threads) : bytes;
#endif
    (void)t;
    return bytes;
}

/* ---- P and dS ---------------------------------------------------------------------------------------------------- */

/* s' - lse2, and dP - delta: products of n keys, a multiple of KTILE, with one tile of rows */
NOINLINE static void score_block(const workspace *x, const float *lse2, const float *k, const float *q, int n,
                                 float *out)
{
    const int row = x->row, cells = x->cells;
    const float factor = x->factor;
    for (int j = 0; j < n; j += KTILE, k += KTILE * row, out += KTILE * TILE) {
        vf s[KTILE][4];
        product_tile(s, NULL, k, row, q, cells);
        relative(s, factor, lse2);
        store_tile(s, true, out);
    }
}
NOINLINE static void slope_block(const workspace *x, const float *delta, const float *v, const float *d_o, int n,
                                 float *out)
{
    const int row = x->row, cells = x->cells;
    for (int j = 0; j < n; j += KTILE, v += KTILE * row, out += KTILE * TILE) {
        vf s[KTILE][4];
        product_tile(s, delta, v, row, d_o, cells);
        store_tile(s, false, out);
    }
}

/* Scores of keys that are not seen: those from `valid` on, and, causal, those after the row. */
static void hide_block(float *s, int valid, int n, int diagonal)
{
    for (int j = 0; j < n; j++)
        if (j >= valid || (diagonal != ANY && diagonal < j))
            for (int r = 0; r < TILE; r++)
                if (j >= valid || diagonal + r < j)
                    s[j * TILE + r] = LEAST;
}

/* P = 2^(s' - lse2) and dS = P (dP - delta) of n keys, a multiple of KTILE, and one tile of rows. */
#ifdef PAIRS
NOINLINE static void slopes(const workspace *x, float *p, float *ds, int n)
{
    for (int r = 0; r < TILE; r += 2 * W)
        for (int j = 0; j < n; j += 2) {
            vf e[4], g[4];
            UNROLL(4) for (int i = 0; i < 4; i++) {
                e[i] = v_load(KW_F32, x->s, (j + i / 2) * TILE + r + i % 2 * W);
                g[i] = v_load(KW_F32, x->g, (j + i / 2) * TILE + r + i % 2 * W);
            }
            exp2_scores(4, e);
            UNROLL(4) for (int i = 0; i < 4; i++)
                g[i] = e[i] * g[i];
            UNROLL(2) for (int i = 0; i < 2; i++) {
                v_store(KW_F32, p, ((j + i) * TILE + r) / 2, row_pairs(e[2 * i], e[2 * i + 1]));
                v_store(KW_F32, ds, ((j + i) * TILE + r) / 2, row_pairs(g[2 * i], g[2 * i + 1]));
                v_store(KW_F32, x->ds_steps, j / 2 * TILE + r + i * W, zip_pairs(g[i], g[2 + i]));
            }
        }
}
#else
NOINLINE static void slopes(const workspace *x, float *p, float *ds, int n)
{
    (void)x;
    for (int z = 0; z < TILE; z += W)
        for (int j = 0; j < n; j += 3) {
            vf e[3];
            UNROLL(3) for (int i = 0; i < 3; i++)
                e[i] = v_load(KW_F32, p, (j + i) * TILE + z);
            exp2_scores(3, e);
            UNROLL(3) for (int i = 0; i < 3; i++) {
                v_store(KW_F32, p, (j + i) * TILE + z, e[i]);
                v_store(KW_F32, ds, (j + i) * TILE + z, e[i] * v_load(KW_F32, ds, (j + i) * TILE + z));
            }
        }
}
#endif

/* P and dS of `keys` keys from j0 on and of TILE rows from row r of the tile on, and their part of dQ. */
static void score_rows(const workspace *x, int j0, int keys, int r, int diagonal)
{
    const int n = round_up(keys, KTILE), cells = x->cells;
    const ptrdiff_t at = (ptrdiff_t)r * n / PER;
    float *p = x->p + at, *ds = x->ds + at, *s = PER == 1 ? p : x->s, *g = PER == 1 ? ds : x->g;
    score_block(x, x->y.lse2 + r, x->k + (ptrdiff_t)j0 * x->row, x->y.q_lanes + (ptrdiff_t)r * cells, n, s);
    slope_block(x, x->y.delta + r, x->v + (ptrdiff_t)j0 * x->row, x->y.do_lanes + (ptrdiff_t)r * cells, n, g);
    if (keys < n || diagonal < n)
        hide_block(s, keys, n, diagonal);
    slopes(x, p, ds, n);
    accumulate_lanes(j0 == 0, x->y.dq + (ptrdiff_t)r * x->dim, x->k_groups + (ptrdiff_t)(j0 / PER) * x->dim, n / PER,
                     x->dim, PER == 1 ? ds : x->ds_steps, n / PER);
}

/* One block of keys against the tile; diagonal: its first row minus the block's first key, or ANY. */
static void backward_block(const workspace *x, const sums *out, int j0, int keys, int diagonal)
{
    const int n = round_up(keys, KTILE);
    for (int r = 0; r < x->rows; r += TILE)
        score_rows(x, j0, keys, r, diagonal == ANY ? ANY : diagonal + r);
    sum_rows(out->dv + (ptrdiff_t)j0 * x->w, x->p, x->y.do_steps, x->dim, n, x->rows);
    sum_rows(out->dk + (ptrdiff_t)j0 * x->w, x->ds, x->y.q_steps, x->dim, n, x->rows);
}

/* ---- one tile of queries ----------------------------------------------------------------------------------------- */

typedef struct {
    const void *q, *k, *v, *o, *d_o;
    const float *lse;
    void *dq, *dk, *dv;
} arrays;

typedef struct { kw_dtype t; const kw_attention_shape *s; const arrays *a; int h; } head;

INLINE void dot_rows_of(const kw_dtype t, const void *a, const void *b, ptrdiff_t at, ptrdiff_t stride, int tokens,
                        int dim, float *dot)
{
    for (int i = 0; i < tokens; i++, at += stride) {
        vf sum = { 0 };
        int c = 0;
        for (; c + W <= dim; c += W)
            sum += v_load(t, a, at + c) * v_load(t, b, at + c);
        if (c < dim)
            sum += v_load_some(t, a, at + c, dim - c) * v_load_some(t, b, at + c, dim - c);
        dot[i] = -v_sum(sum);
    }
}

/* dot[row] = - a[row] . b[row], zero for rows that do not exist */
NOINLINE static void dot_rows(kw_dtype t, const void *a, const void *b, ptrdiff_t at, ptrdiff_t stride, int tokens,
                              int padded, int dim, float *dot)
{
    TYPED(t, dot_rows_of, a, b, at, stride, tokens, dim, dot);
    for (int i = tokens; i < padded; i++)
        dot[i] = 0;
}

/* Rows that do not exist are zero, with an lse that makes their P nothing. */
static void pack_tile(const head *y, const workspace *x, int r0, int rows)
{
    const kw_attention_shape *s = y->s;
    const arrays *a = y->a;
    const query_tile *z = &x->y;
    const int padded = x->rows, d = s->dim;
    const ptrdiff_t q = head_at(s, y->h, s->tq, s->q_stride) + r0 * s->q_stride;
    const ptrdiff_t o = head_at(s, y->h, s->tq, s->o_stride) + r0 * s->o_stride;
    for (int r = 0; r < padded; r++)
        z->lse2[r] = r < rows ? a->lse[(ptrdiff_t)y->h * s->tq + r0 + r] * LOG2E : 200.0f;
    dot_rows(y->t, a->o, a->d_o, o, s->o_stride, rows, padded, d, z->delta);
    for (int r = 0; r < padded; r += TILE) {
        pack_lanes(y->t, a->q, q + r * s->q_stride, s->q_stride, rows - r, d, s->scale * LOG2E,
                   z->q_lanes + (ptrdiff_t)r * x->cells);
        pack_lanes(y->t, a->d_o, o + r * s->o_stride, s->o_stride, rows - r, d, 1,
                   z->do_lanes + (ptrdiff_t)r * x->cells);
    }
    pack_steps(y->t, a->q, q, s->q_stride, rows, padded, d, round_up(d, W), x->w, z->q_steps);
    pack_steps(y->t, a->d_o, o, s->o_stride, rows, padded, d, round_up(d, W), x->w, z->do_steps);
    repeat_half(z->q_steps, d, padded / PER), repeat_half(z->do_steps, d, padded / PER);
}

static void backward_tile(const head *y, workspace *x, const sums *out, int r0, int rows)
{
    const kw_attention_shape *s = y->s;
    const ptrdiff_t q = head_at(s, y->h, s->tq, s->q_stride) + r0 * s->q_stride;
    const int seen = s->causal ? KW_MIN(s->tk, r0 + rows) : s->tk;
    x->rows = round_up(rows, TILE);
    pack_tile(y, x, r0, rows);
    for (int j = 0; j < seen; j += KEYS)
        backward_block(x, out, j, KW_MIN(KEYS, s->tk - j), s->causal ? r0 - j : ANY);
    float factor[TILE];
    for (int i = 0; i < TILE; i++)
        factor[i] = s->scale;
    for (int r = 0; r < rows; r += TILE)
        unpack_lanes(y->t, x->y.dq + (ptrdiff_t)r * s->dim, factor, rows - r, s->dim, y->a->dq, q + r * s->q_stride,
                     s->q_stride);
}

/* ---- heads and runs ------------------------------------------------------------------------------------ */

/* Tokens [from, to) of dk or dv of head h, times factor: the sum of all runs, which lie `next` floats apart. */
INLINE void store_rows_of(const kw_dtype t, const float *x, int runs, size_t next, int dim, float factor, int from,
                          int to, void *out, ptrdiff_t at, ptrdiff_t stride)
{
    const int w = sum_width(dim);
    for (int j = from; j < to; j++)
        for (int c = 0; c < dim; c += W) {
            const ptrdiff_t i = half_at(j, c, dim, w);
            vf sum = v_load(KW_F32, x, i);
            for (int r = 1; r < runs; r++)
                sum += v_load(KW_F32, x + (size_t)r * next, i);
            v_put(t, out, at + j * stride + c, sum * factor, dim - c);
        }
}

static void store_head(const head *y, const sums *x, int runs, int from, int to)
{
    const kw_attention_shape *s = y->s;
    const size_t next = sums_bytes(s) / sizeof(float);
    TYPED(y->t, store_rows_of, x->dk, runs, next, s->dim, s->scale, from, to, y->a->dk,
          head_at(s, y->h, s->tk, s->k_stride), s->k_stride);
    TYPED(y->t, store_rows_of, x->dv, runs, next, s->dim, 1, from, to, y->a->dv, head_at(s, y->h, s->tk, s->v_stride),
          s->v_stride);
}

static sums sums_at(const kw_attention_shape *s, char *base, int i)
{
    float *dk = (float *)(void *)(base + (size_t)i * sums_bytes(s));
    return (sums){ dk, dk + sums_bytes(s) / 2 / sizeof(float) };
}

/* Tiles [first, last) of the head into out->dk, out->dv. */
static void backward_run(const head *y, workspace *x, const sums *out, int first, int last)
{
    const kw_attention_shape *s = y->s;
    const ptrdiff_t k = head_at(s, y->h, s->tk, s->k_stride), v = head_at(s, y->h, s->tk, s->v_stride);
    memset(out->dk, 0, sums_bytes(s));
    pack_rows(y->t, y->a->k, k, s->k_stride, s->tk, x->keys, s->dim, x->row, x->k);
    pack_rows(y->t, y->a->v, v, s->v_stride, s->tk, x->keys, s->dim, x->row, x->v);
    for (int j = 0; j < s->tk; j += KEYS) {
        const int keys = KW_MIN(KEYS, s->tk - j);
        pack_groups(y->t, y->a->k, k + j * s->k_stride, s->k_stride, keys, round_up(keys, KTILE), s->dim,
                    x->k_groups + (ptrdiff_t)(j / PER) * s->dim);
    }
    for (int i = first; i < last; i++)
        backward_tile(y, x, out, i * ROWS, KW_MIN(ROWS, s->tq - i * ROWS));
}

/* Several runs for each head: all of them, then their sums. */
static void backward_runs(kw_dtype t, const kw_attention_shape *s, const arrays *a, workspace *x, char *base, int runs)
{
    const int heads = s->batch * s->heads, tiles = tile_count(s), strips = (int)pieces(s->tk, 256);
    _Pragma("omp for schedule(dynamic)")
    for (int i = 0; i < heads * runs; i++) {
        const head y = { t, s, a, i / runs };
        const sums out = sums_at(s, base, i);
        backward_run(&y, x, &out, i % runs * tiles / runs, (i % runs + 1) * tiles / runs);
    }
    _Pragma("omp for schedule(static)")
    for (int i = 0; i < heads * strips; i++) {
        const head y = { t, s, a, i / strips };
        const sums out = sums_at(s, base, i / strips * runs);
        store_head(&y, &out, runs, i % strips * 256, KW_MIN(s->tk, (i % strips + 1) * 256));
    }
}

void NAME(attention_grad)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v,
                          const void *o, const float *lse, const void *d_o, void *dq, void *dk, void *dv, void *scratch)
{
#if defined KW_ISA_avx512_bf16 && !defined PAIRS
    if (t == KW_BF16) {
        ISA(attention_grad_pairs)(t, s, q, k, v, o, lse, d_o, dq, dk, dv, scratch);
        return;
    }
#endif
    const arrays a = { q, k, v, o, d_o, lse, dq, dk, dv };
    const int runs = run_count(s, omp_get_max_threads()), heads = s->batch * s->heads;
    _Pragma("omp parallel if (heads * runs > 1)")
    {
        workspace x;
        const size_t bytes = layout(s, &x, scratch);
        char *base = (char *)scratch + (size_t)omp_get_num_threads() * bytes;
        layout(s, &x, (char *)scratch + (size_t)omp_get_thread_num() * bytes);
        if (runs > 1) {
            backward_runs(t, s, &a, &x, base, runs);
        } else {                          /* the sums belong to the thread, and are written at once */
            const sums out = sums_at(s, base, omp_get_thread_num());
            _Pragma("omp for schedule(dynamic)")
            for (int h = 0; h < heads; h++) {
                const head y = { t, s, &a, h };
                backward_run(&y, &x, &out, 0, tile_count(s));
                store_head(&y, &out, 1, 0, s->tk);
            }
        }
    }
}
