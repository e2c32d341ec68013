/*
 * attention_grad.c - tiled attention, backward. Probabilities are recomputed per tile from q, k and the saved lse:
 *
 *     P = exp(scale Q K^T - lse)     delta = rowsum(dO o O)     dS = P o (dO V^T - delta)
 *     dV = P^T dO        dK = scale dS^T Q        dQ = scale dS K
 *
 * Five products, each once. Loop order: tiles of ROWS queries outside, blocks of keys inside; dQ of a tile stays in
 * cache, dK and dV of the head are summed in f32 in scratch. Queries lie in the lanes for S, dP and dQ (no padding of
 * d); for dK and dV channels do, since there the rows are what is summed over. Every hot loop nest is a function of its
 * own: in one large function gcc spreads its registers over all of them (measured on the prototype: 59 against 76-85 %
 * of peak).
 *
 * With fewer heads than RUNS the queries of a head are cut in a fixed number of runs, by shape and not by threads, each
 * with its own dK and dV, added in order at the end: the same bits every time.
 */
#include "attention_tile.h"

enum {
    ROWS = 128,                           /* queries in a tile, a multiple of TILE */
    KEYS = 96,                            /* in a block, a multiple of 12 */
    RUNS = 8,                             /* heads x runs wanted */
};

typedef struct {                          /* one tile of queries, packed when it begins */
    float *q_lanes, *do_lanes;            /* [ROWS / TILE][c][TILE] */
    float *q_rows, *do_rows;              /* [row][w] */
    float *lse2, *delta;                  /* [row]; lse in base 2 */
    float *dq;                            /* [ROWS / TILE][c][TILE] */
} query_tile;

typedef struct {                          /* what one run works on; w: dim rounded up to vectors */
    int dim, w, keys;                     /* keys: all of the head's, rounded up */
    int rows;                             /* of the tile at hand, rounded up to register tiles */
    float *k, *v;                         /* rows [key][dim] */
    float *p, *ds;                        /* [key][ROWS] */
    query_tile y;
} workspace;

typedef struct { float *dk, *dv; } sums;  /* [key][w] */

static float *carve(char **at, size_t count)
{
    float *p = (float *)(void *)*at;
    *at += align64(count * sizeof *p);
    return p;
}

static int padded_keys(const kw_attention_shape *s) { return round_up(s->tk, 12); }

static size_t layout(const kw_attention_shape *s, workspace *x, char *base)
{
    char *at = base;
    const size_t d = (size_t)s->dim, w = (size_t)round_up(s->dim, W), keys = (size_t)padded_keys(s);
    const size_t block = KW_MIN((size_t)KEYS, keys);
    x->dim = s->dim, x->w = (int)w, x->keys = (int)keys;
    x->k = carve(&at, keys * d), x->v = carve(&at, keys * d);
    x->p = carve(&at, block * ROWS), x->ds = carve(&at, block * ROWS);
    query_tile *y = &x->y;
    y->q_lanes = carve(&at, ROWS * d), y->do_lanes = carve(&at, ROWS * d), y->dq = carve(&at, ROWS * d);
    y->q_rows = carve(&at, ROWS * w), y->do_rows = carve(&at, ROWS * w);
    y->lse2 = carve(&at, ROWS), y->delta = carve(&at, ROWS);
    return (size_t)(at - base);
}

static int tile_count(const kw_attention_shape *s) { return (int)pieces(s->tq, ROWS); }
static int run_count(const kw_attention_shape *s)
{
    return (int)KW_MIN(tile_count(s), pieces(RUNS, s->batch * s->heads));
}

/* dK and dV of one run. */
static size_t sums_bytes(const kw_attention_shape *s)
{
    return 2 * align64((size_t)padded_keys(s) * (size_t)round_up(s->dim, W) * sizeof(float));
}

/* Workspaces first, one per thread; then the sums: of each thread, or of each run where a head has several. */
size_t ISA(attention_grad_scratch)(kw_dtype t, const kw_attention_shape *s, int threads)
{
    static char origin[64];
    workspace x;
    (void)t;
    const int runs = run_count(s), count = runs > 1 ? s->batch * s->heads * runs : threads;
    return (size_t)threads * layout(s, &x, origin) + (size_t)count * sums_bytes(s);
}

/* ---- inner loops --------------------------------------------------------------------------------------------- */

/* p[key][row] = P of one register tile: KTILE keys and TILE rows; valid, diagonal: see hide. */
INLINE void probability_tile(const float *q, const float *k, const float *lse2, int dim, int valid, int diagonal,
                             float *p)
{
    vf s[KTILE][4];
    UNROLL(6) for (int i = 0; i < KTILE; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            s[i][z] = v_set(0);
    dot_tile(KTILE, Z, s, k, dim, 1, q, TILE, dim);
    UNROLL(4) for (int z = 0; z < Z; z++) {
        const vf m = v_load(KW_F32, lse2, W * z);
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            s[i][z] = exp2_score(s[i][z] - m);
    }
    if (valid < KTILE || diagonal < KTILE)
        hide(s, valid, diagonal, 0);
    UNROLL(6) for (int i = 0; i < KTILE; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            v_store(KW_F32, p, i * ROWS + W * z, s[i][z]);
}

/* ds[key][row] = P (dO V^T - delta) of one register tile */
INLINE void slope_tile(const float *d_o, const float *v, const float *delta, int dim, const float *p, float *ds)
{
    vf g[KTILE][4];
    UNROLL(4) for (int z = 0; z < Z; z++) {
        const vf d = v_load(KW_F32, delta, W * z);
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            g[i][z] = -d;
    }
    dot_tile(KTILE, Z, g, v, dim, 1, d_o, TILE, dim);
    UNROLL(6) for (int i = 0; i < KTILE; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            v_store(KW_F32, ds, i * ROWS + W * z, g[i][z] * v_load(KW_F32, p, i * ROWS + W * z));
}

/* P and dS of `keys` keys from j0 on and TILE rows from row r of the tile on. */
NOINLINE static void score_rows(const workspace *x, int j0, int keys, int r, int diagonal)
{
    const int d = x->dim, n = round_up(keys, KTILE);
    const float *q = x->y.q_lanes + (ptrdiff_t)r * d, *d_o = x->y.do_lanes + (ptrdiff_t)r * d;
    const float *k = x->k + (ptrdiff_t)j0 * d, *v = x->v + (ptrdiff_t)j0 * d;
    for (int j = 0; j < n; j += KTILE)
        probability_tile(q, k + (ptrdiff_t)j * d, x->y.lse2 + r, d, keys - j, diagonal == ANY ? ANY : diagonal - j,
                         x->p + j * ROWS + r);
    for (int j = 0; j < n; j += KTILE)
        slope_tile(d_o, v + (ptrdiff_t)j * d, x->y.delta + r, d, x->p + j * ROWS + r, x->ds + j * ROWS + r);
}

/* out[key][w] += sum over the tile's rows of  p[key][row] x[row][w],  R keys and N vectors of channels */
INLINE void sum_rows_tile(const int R, const int N, float *out, const float *p, const float *x, int w, int rows)
{
    vf a[12][4];
    UNROLL(12) for (int i = 0; i < R; i++)
        UNROLL(4) for (int z = 0; z < N; z++)
            a[i][z] = v_load(KW_F32, out, (ptrdiff_t)i * w + W * z);
    dot_tile(R, N, a, p, ROWS, 1, x, w, rows);
    UNROLL(12) for (int i = 0; i < R; i++)
        UNROLL(4) for (int z = 0; z < N; z++)
            v_store(KW_F32, out, (ptrdiff_t)i * w + W * z, a[i][z]);
}

NOINLINE static void sum_rows_4(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    for (int j = 0; j < keys; j += KTILE)
        sum_rows_tile(KTILE, 4, out + (ptrdiff_t)j * w, p + j * ROWS, x, w, rows);
}
NOINLINE static void sum_rows_3(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    for (int j = 0; j < keys; j += 4)
        sum_rows_tile(4, 3, out + (ptrdiff_t)j * w, p + j * ROWS, x, w, rows);
}
NOINLINE static void sum_rows_2(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    for (int j = 0; j < keys; j += KTILE)
        sum_rows_tile(KTILE, 2, out + (ptrdiff_t)j * w, p + j * ROWS, x, w, rows);
}
NOINLINE static void sum_rows_1(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    for (int j = 0; j < keys; j += 12)
        sum_rows_tile(12, 1, out + (ptrdiff_t)j * w, p + j * ROWS, x, w, rows);
}

/* All channels, so that no register tile is too small to hide latency. keys: a multiple of 12. */
static void sum_rows(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    for (int c = 0; c < w;) {
        const int left = (w - c) / W;
        const int n = left == 3 || left == 1 ? left : Z == 4 && left == 5 ? 3 : Z == 4 && left >= 4 ? 4 : 2;
        if (n == 4)
            sum_rows_4(out + c, p, x + c, w, keys, rows);
        else if (n == 3)
            sum_rows_3(out + c, p, x + c, w, keys, rows);
        else if (n == 2)
            sum_rows_2(out + c, p, x + c, w, keys, rows);
        else
            sum_rows_1(out + c, p, x + c, w, keys, rows);
        c += n * W;
    }
}

/* ---- one tile of queries --------------------------------------------------------------------------------------- */

/* One block of keys against the tile; diagonal: its first row minus the block's first key, or ANY. */
static void backward_block(const workspace *x, const sums *out, int j0, int keys, int diagonal)
{
    const int padded = round_up(keys, 12);
    for (int r = 0; r < x->rows; r += TILE) {
        score_rows(x, j0, keys, r, diagonal == ANY ? ANY : diagonal + r);
        accumulate_lanes(j0 == 0, x->y.dq + (ptrdiff_t)r * x->dim, x->k + (ptrdiff_t)j0 * x->dim, x->dim, x->ds + r,
                         ROWS, keys);
    }
    if (round_up(keys, KTILE) < padded) {               /* six more keys that do not exist */
        memset(x->p + round_up(keys, KTILE) * ROWS, 0, KTILE * ROWS * sizeof(float));
        memset(x->ds + round_up(keys, KTILE) * ROWS, 0, KTILE * ROWS * sizeof(float));
    }
    sum_rows(out->dv + (ptrdiff_t)j0 * x->w, x->p, x->y.do_rows, x->w, padded, x->rows);
    sum_rows(out->dk + (ptrdiff_t)j0 * x->w, x->ds, x->y.q_rows, x->w, padded, x->rows);
}

typedef struct {
    const void *q, *k, *v, *o, *d_o;
    const float *lse;
    void *dq, *dk, *dv;
} arrays;

INLINE void dot_rows_of(const kw_dtype t, const void *a, const void *b, ptrdiff_t at, ptrdiff_t stride, int tokens,
                        int dim, float *dot)
{
    for (int i = 0; i < tokens; i++, at += stride) {
        vf sum = { 0 };
        for (int c = 0; c < dim; c += W)
            sum += v_get(t, a, at + c, dim - c) * v_get(t, b, at + c, dim - c);
        dot[i] = v_sum(sum);
    }
}

/* dot[row] = a[row] . b[row], zero for rows that do not exist */
NOINLINE static void dot_rows(kw_dtype t, const void *a, const void *b, ptrdiff_t at, ptrdiff_t stride, int tokens,
                              int padded, int dim, float *dot)
{
    TYPED(t, dot_rows_of, a, b, at, stride, tokens, dim, dot);
    for (int i = tokens; i < padded; i++)
        dot[i] = 0;
}

/* Rows that do not exist are zero, with an lse that makes their P nothing. */
static void pack_tile(kw_dtype t, const kw_attention_shape *s, const arrays *a, const workspace *x, int h, int r0,
                      int rows)
{
    const query_tile *y = &x->y;
    const int padded = x->rows;
    const ptrdiff_t q = head_at(s, h, s->tq, s->q_stride) + r0 * s->q_stride;
    const ptrdiff_t o = head_at(s, h, s->tq, s->o_stride) + r0 * s->o_stride;
    for (int r = 0; r < padded; r++)
        y->lse2[r] = r < rows ? a->lse[(ptrdiff_t)h * s->tq + r0 + r] * LOG2E : 200.0f;
    dot_rows(t, a->o, a->d_o, o, s->o_stride, rows, padded, s->dim, y->delta);
    for (int r = 0; r < padded; r += TILE) {
        pack_lanes(t, a->q, q + r * s->q_stride, s->q_stride, rows - r, s->dim, s->scale * LOG2E,
                   y->q_lanes + (ptrdiff_t)r * s->dim);
        pack_lanes(t, a->d_o, o + r * s->o_stride, s->o_stride, rows - r, s->dim, 1,
                   y->do_lanes + (ptrdiff_t)r * s->dim);
    }
    pack_rows(t, a->q, q, s->q_stride, rows, padded, s->dim, x->w, s->scale, y->q_rows);
    pack_rows(t, a->d_o, o, s->o_stride, rows, padded, s->dim, x->w, 1, y->do_rows);
}

static void backward_tile(kw_dtype t, const kw_attention_shape *s, const arrays *a, workspace *x, const sums *out,
                          int h,
                          int r0, int rows)
{
    const ptrdiff_t q = head_at(s, h, s->tq, s->q_stride) + r0 * s->q_stride;
    const int seen = s->causal ? KW_MIN(s->tk, r0 + rows) : s->tk;
    x->rows = round_up(rows, TILE);
    pack_tile(t, s, a, x, h, r0, rows);
    for (int j = 0; j < seen; j += KEYS)
        backward_block(x, out, j, KW_MIN(KEYS, s->tk - j), s->causal ? r0 - j : ANY);
    float factor[TILE];
    for (int i = 0; i < TILE; i++)
        factor[i] = s->scale;
    for (int r = 0; r < rows; r += TILE)
        unpack_lanes(t, x->y.dq + (ptrdiff_t)r * s->dim, factor, rows - r, s->dim, a->dq, q + r * s->q_stride,
                     s->q_stride);
}

/* ---- heads and runs ------------------------------------------------------------------------------------ */

/* Tokens [from, to) of dk or dv of head h: the sum of all runs, which lie `next` floats apart. */
INLINE void store_rows_of(const kw_dtype t, const float *x, int runs, size_t next, int w, int dim, int from, int to,
                          void *out,
                          ptrdiff_t at, ptrdiff_t stride)
{
    for (int j = from; j < to; j++)
        for (int c = 0; c < dim; c += W) {
            vf sum = v_load(KW_F32, x, (ptrdiff_t)j * w + c);
            for (int r = 1; r < runs; r++)
                sum += v_load(KW_F32, x + (size_t)r * next, (ptrdiff_t)j * w + c);
            v_put(t, out, at + j * stride + c, sum, dim - c);
        }
}

static void store_head(kw_dtype t, const kw_attention_shape *s, const arrays *a, const sums *x, int runs, int h,
                       int from, int to)
{
    const size_t next = sums_bytes(s) / sizeof(float);
    const int w = round_up(s->dim, W);
    TYPED(t, store_rows_of, x->dk, runs, next, w, s->dim, from, to, a->dk, head_at(s, h, s->tk, s->k_stride),
          s->k_stride);
    TYPED(t, store_rows_of, x->dv, runs, next, w, s->dim, from, to, a->dv, head_at(s, h, s->tk, s->v_stride),
          s->v_stride);
}

static sums sums_at(const kw_attention_shape *s, char *base, int i)
{
    float *dk = (float *)(void *)(base + (size_t)i * sums_bytes(s));
    return (sums){ dk, dk + sums_bytes(s) / 2 / sizeof(float) };
}

/* Tiles [first, last) of head h into x->dk, x->dv. */
static void backward_run(kw_dtype t, const kw_attention_shape *s, const arrays *a, workspace *x, const sums *out, int h,
                         int first, int last)
{
    memset(out->dk, 0, sums_bytes(s));
    pack_rows(t, a->k, head_at(s, h, s->tk, s->k_stride), s->k_stride, s->tk, x->keys, s->dim, s->dim, 1, x->k);
    pack_rows(t, a->v, head_at(s, h, s->tk, s->v_stride), s->v_stride, s->tk, x->keys, s->dim, s->dim, 1, x->v);
    for (int i = first; i < last; i++)
        backward_tile(t, s, a, x, out, h, i * ROWS, KW_MIN(ROWS, s->tq - i * ROWS));
}

/* One run for each head: sums belong to the thread, and are written at once. */
static void backward_head(kw_dtype t, const kw_attention_shape *s, const arrays *a, workspace *x, const sums *out,
                          int h)
{
    backward_run(t, s, a, x, out, h, 0, tile_count(s));
    store_head(t, s, a, out, 1, h, 0, s->tk);
}

void ISA(attention_grad)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v,
                         const void *o,
                         const float *lse, const void *d_o, void *dq, void *dk, void *dv, void *scratch)
{
    const arrays a = { q, k, v, o, d_o, lse, dq, dk, dv };
    const int runs = run_count(s), heads = s->batch * s->heads, tiles = tile_count(s), strips = (int)pieces(s->tk, 256);
    _Pragma("omp parallel if (heads * runs > 1)")
    {
        workspace x;
        const size_t bytes = layout(s, &x, scratch);
        char *base = (char *)scratch + (size_t)omp_get_num_threads() * bytes;
        layout(s, &x, (char *)scratch + (size_t)omp_get_thread_num() * bytes);
        if (runs == 1) {
            const sums out = sums_at(s, base, omp_get_thread_num());
            _Pragma("omp for schedule(dynamic)")
            for (int h = 0; h < heads; h++)
                backward_head(t, s, &a, &x, &out, h);
        } else {
            _Pragma("omp for schedule(dynamic)")
            for (int i = 0; i < heads * runs; i++) {
                const sums out = sums_at(s, base, i);
                backward_run(t, s, &a, &x, &out, i / runs, i % runs * tiles / runs, (i % runs + 1) * tiles / runs);
            }
            _Pragma("omp for schedule(static)")
            for (int i = 0; i < heads * strips; i++) {
                const sums out = sums_at(s, base, i / strips * runs);
                store_head(t, s, &a, &out, runs, i / strips, i % strips * 256, KW_MIN(s->tk, (i % strips + 1) * 256));
            }
        }
    }
}
