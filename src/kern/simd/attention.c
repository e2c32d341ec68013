/*
 * attention.c - tiled attention, forward.
 *
 *     s[r][j] = scale q[r] . k[j]        p[r][j] = exp(s[r][j] - lse[r])        o[r] = sum_j p[r][j] v[j]
 *
 * Query rows lie in the lanes, keys and channels are walked by broadcast. Hence no dimension is padded to a vector, row
 * statistics are vertical, and only the scores of one block of keys and one tile of rows are in memory at a time, in
 * the first cache. One tile against one block is three loops, each a function of its own:
 *
 *     scores, and the greatest of each row    ->    p = 2^(s' - m), in place; l += p    ->    o += p v
 *
 * The exponentials of a block are one long loop: in it the chains of many keys overlap, which those of one register
 * tile between two products do not (AVX2: 4.5 against 9 cycles a vector).
 *
 * Online softmax with a lazy reference: probabilities are kept as 2^(s' - m), s' = s log2(e) (the factor is packed into
 * q; pairs of bf16 stay as they are, and scores are multiplied), m an INTEGER per row with s' - m <= HEADROOM. m is 0
 * unless the first block's greatest score is farther away from that than HEADROOM, and is raised only when a score
 * exceeds it by more; then everything is scaled by a power of two, which is exact: the result does not depend on when
 * that happens.
 *
 * Work is split in chunks of rows of one head; each packs the keys and values it meets for itself, so that chunks are
 * independent: the bits depend neither on their size nor on the number of threads.
 */
#include "attention_pack.h"

#ifdef PAIRS
#define NAME(name) ISA(name##_pairs)
#else
#define NAME(name) ISA(name)
#endif

enum {
    KEYS = 96,                            /* in a block: scores of a tile stay in the first cache */
    FEW_KEYS = 48,                        /* the same for wide heads, if there are more keys than one block */
    CHUNKS = 4,                           /* for each thread at least */
};
#define HEADROOM 16.0f

typedef struct {                          /* what one thread works on */
    int dim, cells, k_step;               /* cells of a row of q; from one row of k to the next */
    int keys, rows;                       /* of a block; packed at a time */
    float factor;                         /* of scores */
    float *k, *v;                         /* rows of one block; groups */
    float *s;                             /* [key][TILE], then p: [key / PER][TILE] */
    float *top;                           /* [TILE]: the greatest of each row, relative to m */
    float *q, *o;                         /* lanes of each tile; sums [c][TILE] */
    float *m, *l;                         /* [row]: reference exponent, sum of 2^(s' - m) */
} work;

static int block_keys(const kw_attention_shape *s)
{
    const int all = round_up(s->tk, KTILE);
    return all <= KEYS ? all : s->dim > 128 ? FEW_KEYS : KEYS;
}

static int tile_count(const kw_attention_shape *s) { return (int)pieces(s->tq, TILE); }

/* Rows whose q and o stay in the second cache while all keys pass by; with one block of keys each tile is met once. */
static int group_tiles(const kw_attention_shape *s)
{
    if (s->tk <= block_keys(s))
        return 1;
    return KW_MIN(KW_MAX(KW_MAX(40960 / s->dim, 256) / TILE, 1), tile_count(s));
}

/* Chunks of a head: as many as the threads want, of whole groups if those are small. */
static int chunk_tiles(const kw_attention_shape *s, int threads)
{
    const int64_t wanted = pieces((int64_t)CHUNKS * threads, (int64_t)s->batch * s->heads);
    return (int)KW_MIN(pieces(tile_count(s), wanted), KW_MAX(group_tiles(s), 1024 / TILE));
}

static size_t layout(const kw_attention_shape *s, work *x, char *base)
{
    char *at = base;
    const int keys = block_keys(s), rows = group_tiles(s) * TILE, cells = cells_of(s->dim);
    *x = (work){ .dim = s->dim, .cells = cells, .k_step = row_cells(cells), .keys = keys, .rows = rows,
                 .factor = PER == 1 ? 1 : s->scale * LOG2E };
    x->k = carve(&at, (size_t)keys * (size_t)x->k_step), x->v = carve(&at, (size_t)(keys / PER * s->dim + BEHIND));
    x->s = carve(&at, (size_t)keys * TILE), x->top = carve(&at, TILE);
    x->q = carve(&at, (size_t)rows * (size_t)cells), x->o = carve(&at, (size_t)rows * (size_t)s->dim);
    x->m = carve(&at, (size_t)rows), x->l = carve(&at, (size_t)rows);
    return (size_t)(at - base);
}

size_t NAME(attention_scratch)(kw_dtype t, const kw_attention_shape *s, int threads)
{
    static char origin[64];
    work x;
    size_t bytes = (size_t)threads * layout(s, &x, origin);
#if defined KW_ISA_avx512_bf16 && !defined PAIRS
    return t == KW_BF16 ? ISA(attention_scratch_pairs)(t, s, threads) : bytes;
#endif
    (void)t;
    return bytes;
}

/* ---- one tile of rows against one block of keys ------------------------------------------------------------- */

/* s' - m of n keys, and the greatest of each row; diagonal: the tile's first row minus the first key, or ANY */
NOINLINE static void score_block(const work *x, const float *q, const float *m, int n, int diagonal)
{
    float *out = x->s, *top = x->top;
    const float *k = x->k, factor = x->factor;
    const int step = x->k_step, cells = x->cells;
    for (int z = 0; z < TILE; z += W)
        v_store(KW_F32, top, z, v_set(NEVER));
    for (int j = 0; j < n; j += KTILE, k += KTILE * step, out += KTILE * TILE) {
        vf s[KTILE][4];
        product_tile(s, NULL, k, step, q, cells);
        relative(s, factor, m);
        if (__builtin_expect(n - j < KTILE || (diagonal != ANY && diagonal - j < KTILE), 0))
            hide(s, n - j, diagonal == ANY ? ANY : diagonal - j);
        UNROLL(4) for (int z = 0; z < Z; z++) {
            vf a = v_max(s[0][z], s[1][z]), b = v_max(s[2][z], s[3][z]), c = v_max(s[4][z], s[5][z]);
            v_store(KW_F32, top, W * z, v_max(v_max(a, b), v_max(c, v_load(KW_F32, top, W * z))));
        }
        store_tile(s, true, out);
    }
}

/* 2^x of whole x <= 0, exact; 0 where that is below the range of floats */
INLINE vf power_of_two(vf x)
{
    vf scale, r = v_whole(v_max(v_set(-127), x), 1, &scale);
    vf y = v_scale(v_set(1) + (r - r), scale);
    return v_choose(v_lt(x, v_set(-126)), v_set(0), y);
}

typedef struct { float *m, *l, *o; } sums;

/* Rare: m[z ..] += up, whole numbers; scales l and `channels` of o (0: nothing yet), moves the block's scores. */
NOINLINE static void move_reference(const work *x, const sums *y, int z, vf up, int n, int channels)
{
    const vf f = power_of_two(v_min(-up, v_set(0)));    /* downwards nothing is summed yet */
    v_store(KW_F32, y->m, z, v_load(KW_F32, y->m, z) + up);
    v_store(KW_F32, y->l, z, f * v_load(KW_F32, y->l, z));
    for (int c = 0; c < channels; c++)
        v_store(KW_F32, y->o, (ptrdiff_t)c * TILE + z, f * v_load(KW_F32, y->o, (ptrdiff_t)c * TILE + z));
    for (int j = 0; j < n; j++)
        v_store(KW_F32, x->s, j * TILE + z, at_least(v_load(KW_F32, x->s, j * TILE + z) - up));
}

/* Where the greatest score is far from its row's reference; says whether it was so far below that scores are lost. */
static bool keep_near(const work *x, const sums *y, int n, bool first)
{
    bool again = false;
    for (int z = 0; z < TILE; z += W) {
        const vf top = v_load(KW_F32, x->top, z);
        const vm above = v_gt(top, v_set(HEADROOM)), below = v_lt(top, v_set(-HEADROOM));
        const bool low = first && v_any(below);
        if (__builtin_expect(!v_any(above) && !low, 1))
            continue;
        const vf up = v_choose(above, v_ceil(top), v_set(0));
        move_reference(x, y, z, low ? v_choose(below, v_ceil(top), up) : up, n, first ? 0 : x->dim);
        again |= low;
    }
    return again;
}

enum { CHAINS = W == 16 ? 6 : 3 };        /* of exponentials side by side, dividing KTILE */

/* p = 2^(s' - m) of n keys, a multiple of KTILE, in place; l += their sum. */
NOINLINE static void probabilities(float *p, float *l, int n)
{
    for (int z = 0; z < TILE; z += W) {
        vf sum = v_set(0);
        for (int j = 0; j < n; j += CHAINS) {
            vf e[CHAINS];
            UNROLL(6) for (int i = 0; i < CHAINS; i++)
                e[i] = v_load(KW_F32, p, (j + i) * TILE + z);
            exp2_scores(CHAINS, e);
#ifdef PAIRS
            UNROLL(3) for (int i = 0; i < CHAINS; i += 2)
                v_store(KW_F32, p, (j + i) / 2 * TILE + z, zip_pairs(e[i], e[i + 1]));
#else
            UNROLL(6) for (int i = 0; i < CHAINS; i++)
                v_store(KW_F32, p, (j + i) * TILE + z, e[i]);
#endif
            UNROLL(6) for (int i = 1; i < CHAINS; i++)
                e[0] += e[i];
            sum += e[0];
        }
        v_store(KW_F32, l, z, v_load(KW_F32, l, z) + sum);
    }
}

/* diagonal: the tile's first row minus the block's first key, or ANY. */
static void forward_tile(const work *x, const float *q, const sums *y, int keys, bool first, int diagonal)
{
    const int n = diagonal == ANY ? keys : KW_MIN(keys, diagonal + TILE), padded = round_up(n, KTILE);
    score_block(x, q, y->m, n, diagonal);
    if (keep_near(x, y, padded, first))
        score_block(x, q, y->m, n, diagonal);
    probabilities(x->s, y->l, padded);
    accumulate_lanes(first, y->o, x->v, round_up(keys, KTILE) / PER, x->dim, x->s, cells_of(n));
}

/* ---- rows of one head ---------------------------------------------------------------------------------------- */

typedef struct { const void *q, *k, *v; void *o; float *lse; } arrays;
typedef struct { kw_dtype t; const kw_attention_shape *s; const arrays *a; int h; } head;

static sums sums_of(const work *x, int r) { return (sums){ x->m + r, x->l + r, x->o + (ptrdiff_t)r * x->dim }; }

static void pack_queries(const head *y, const work *x, int r0, int rows)
{
    const kw_attention_shape *s = y->s;
    const ptrdiff_t q = head_at(s, y->h, s->tq, s->q_stride) + r0 * s->q_stride;
    for (int r = 0; r < rows; r += TILE) {
        pack_lanes(y->t, y->a->q, q + r * s->q_stride, s->q_stride, rows - r, s->dim, s->scale * LOG2E,
                   x->q + (ptrdiff_t)r * x->cells);
        for (int i = r; i < r + TILE; i++)
            x->m[i] = x->l[i] = 0;
    }
}

static void pack_keys(const head *y, const work *x, int j, int keys)
{
    const kw_attention_shape *s = y->s;
    const ptrdiff_t k = head_at(s, y->h, s->tk, s->k_stride), v = head_at(s, y->h, s->tk, s->v_stride);
    const int padded = round_up(keys, KTILE);
    pack_rows(y->t, y->a->k, k + j * s->k_stride, s->k_stride, keys, padded, s->dim, x->k_step, x->k);
    pack_groups(y->t, y->a->v, v + j * s->v_stride, s->v_stride, keys, padded, s->dim, x->v);
}

/* o = sum / l, lse = (m + log2 l) ln 2 */
static void finish(const head *y, const work *x, int r0, int rows)
{
    const kw_attention_shape *s = y->s;
    const ptrdiff_t o = head_at(s, y->h, s->tq, s->o_stride) + r0 * s->o_stride;
    float *lse = y->a->lse + (ptrdiff_t)y->h * s->tq + r0;
    for (int r = 0; r < rows; r += W) {
        const vf l = v_load(KW_F32, x->l, r);
        v_put(KW_F32, lse, r, (v_load(KW_F32, x->m, r) + v_log2(l)) * LN2, rows - r);
        v_store(KW_F32, x->l, r, 1.0f / l);
    }
    for (int r = 0; r < rows; r += TILE)
        unpack_lanes(y->t, x->o + (ptrdiff_t)r * x->dim, x->l + r, rows - r, s->dim, y->a->o, o + r * s->o_stride,
                     s->o_stride);
}

/* Rows [r0, r0 + rows), at most x->rows of them; fresh: the only block of keys is not packed yet. */
static void forward_group(const head *y, const work *x, int r0, int rows, bool fresh)
{
    const kw_attention_shape *s = y->s;
    const int seen = s->causal ? KW_MIN(s->tk, r0 + rows) : s->tk;
    pack_queries(y, x, r0, rows);
    for (int j = 0; j < seen; j += x->keys) {
        const int keys = KW_MIN(x->keys, s->tk - j);
        if (fresh || x->keys < s->tk)
            pack_keys(y, x, j, keys);
        for (int r = s->causal ? KW_MAX(0, j - r0) / TILE * TILE : 0; r < rows; r += TILE) {
            const sums z = sums_of(x, r);
            forward_tile(x, x->q + (ptrdiff_t)r * x->cells, &z, keys, j == 0, s->causal ? r0 + r - j : ANY);
        }
    }
    finish(y, x, r0, rows);
}

static void forward_chunk(const head *y, const work *x, int from, int to)
{
    const kw_attention_shape *s = y->s;
    const ptrdiff_t q = head_at(s, y->h, s->tq, s->q_stride), o = head_at(s, y->h, s->tq, s->o_stride);
    for (int r = from; r < to; r += x->rows) {
        if (x->rows == TILE) {            /* a tile soon done: the next one's rows must be under way by then */
            prefetch_rows(y->t, y->a->q, q + (r + TILE) * s->q_stride, s->q_stride, KW_MIN(TILE, to - r - TILE),
                          s->dim);
            prefetch_rows(y->t, y->a->o, o + r * s->o_stride, s->o_stride, KW_MIN(TILE, to - r), s->dim);
        }
        forward_group(y, x, r, KW_MIN(x->rows, to - r), r == from);
    }
}

void NAME(attention)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v, void *o,
                     float *lse, void *scratch)
{
#if defined KW_ISA_avx512_bf16 && !defined PAIRS
    if (t == KW_BF16) {
        ISA(attention_pairs)(t, s, q, k, v, o, lse, scratch);
        return;
    }
#endif
    const arrays a = { q, k, v, o, lse };
    const int size = chunk_tiles(s, omp_get_max_threads()) * TILE, chunks = (int)pieces(s->tq, size);
    const int count = s->batch * s->heads * chunks;
    _Pragma("omp parallel if (count > 1)")
    {
        work x;
        const size_t bytes = layout(s, &x, scratch);
        layout(s, &x, (char *)scratch + (size_t)omp_get_thread_num() * bytes);
        _Pragma("omp for schedule(dynamic)")
        for (int i = 0; i < count; i++) {
            const head y = { t, s, &a, i / chunks };
            const int r0 = i % chunks * size;
            forward_chunk(&y, &x, r0, KW_MIN(s->tq, r0 + size));
        }
    }
}
