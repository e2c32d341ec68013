/*
 * attention.c - tiled attention, forward.
 *
 *     s[r][j] = scale q[r] . k[j]        p[r][j] = exp(s[r][j] - lse[r])        o[r] = sum_j p[r][j] v[j]
 *
 * Query rows lie in the lanes, keys and channels are walked by broadcast. Hence no dimension is padded to a vector, row
 * statistics are vertical, and exp is applied to the score accumulators in registers: scores never reach memory, only
 * the probabilities of one block of keys and one tile of rows do, in the first cache.
 *
 * Online softmax with a lazy reference: probabilities are kept as 2^(s' - m), s' = s log2(e) (the factor is packed into
 * q), m an INTEGER per row with s' - m <= HEADROOM. m is raised only when a score exceeds it by more, and then
 * everything is scaled by a power of two, which is exact: the result does not depend on when that happens.
 *
 * Work is split in ranges of at most RANGE rows of one head. Each range packs the keys and values of a block for
 * itself, which costs a few percent and makes the ranges independent.
 */
#include "attention_tile.h"

enum { RANGE = 256 };
#define HEADROOM 16.0f

INLINE int block_keys(int dim) { return dim > 128 ? 48 : 96; }    /* a multiple of KTILE; K and V stay in L2 */
INLINE int range_rows(int dim) { return dim > 256 ? 64 : dim > 128 ? 128 : RANGE; }    /* a multiple of TILE */

typedef struct {                          /* what one range of rows works on */
    int dim, keys;                        /* keys: in a block */
    float *k, *v;                         /* rows of one block */
    float *p;                             /* [key][TILE] */
    float *q, *o;                         /* lanes of each tile */
    float *m, *l;                         /* [row]: reference exponent, sum of 2^(s' - m) */
} range;

static float *carve(char **at, size_t count)
{
    float *p = (float *)(void *)*at;
    *at += align64(count * sizeof *p);
    return p;
}

static size_t layout(const kw_attention_shape *s, range *x, char *base)
{
    char *at = base;
    const size_t d = (size_t)s->dim, keys = (size_t)KW_MIN(block_keys(s->dim), round_up(s->tk, KTILE));
    const size_t rows = (size_t)KW_MIN(range_rows(s->dim), round_up(s->tq, TILE));
    x->dim = s->dim;
    x->keys = (int)keys;
    x->k = carve(&at, keys * d), x->v = carve(&at, keys * d), x->p = carve(&at, keys * TILE);
    x->q = carve(&at, rows * d), x->o = carve(&at, rows * d), x->m = carve(&at, rows), x->l = carve(&at, rows);
    return (size_t)(at - base);
}

size_t ISA(attention_scratch)(kw_dtype t, const kw_attention_shape *s, int threads)
{
    static char origin[64];
    range x;
    (void)t;
    return (size_t)threads * layout(s, &x, origin);
}

typedef struct { float *m, *l, *o; const float *q; } tile;

/* 2^x of whole x <= 0, exact; 0 where that is below the range of floats */
INLINE vf power_of_two(vf x)
{
    vf scale, r = v_whole(v_max(v_set(-127), x), 1, &scale);
    vf y = v_scale(v_set(1) + (r - r), scale);
    return v_choose(v_lt(x, v_set(-126)), v_set(0), y);
}

/*
 * Rare: some row met a score far above its reference. Raises m to ceil(max) there and scales what was summed so far:
 * the W rows from lane z on, `keys` probabilities of this block, and `channels` of o (0: this is the first block).
 */
NOINLINE static void raise_reference(const tile *x, float *p, int z, vf max, int keys, int channels)
{
    vf old = v_load(KW_F32, x->m, z);
    vf m = v_choose(v_gt(max, old + HEADROOM), v_ceil(max), old), f = power_of_two(old - m);
    v_store(KW_F32, x->m, z, m);
    v_store(KW_F32, x->l, z, f * v_load(KW_F32, x->l, z));
    for (int j = 0; j < keys; j++)
        v_store(KW_F32, p, j * TILE + z, f * v_load(KW_F32, p, j * TILE + z));
    for (int c = 0; c < channels; c++)
        v_store(KW_F32, x->o, c * TILE + z, f * v_load(KW_F32, x->o, c * TILE + z));
}

/* Scores of KTILE keys from key j of the block on, turned into probabilities; valid, diagonal: see hide. */
INLINE void score_tile(const tile *x, const float *k, float *p, int dim, int j, int valid, int diagonal, int channels)
{
    vf s[KTILE][4];
    UNROLL(6) for (int i = 0; i < KTILE; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            s[i][z] = v_set(0);
    dot_tile(KTILE, Z, s, k + (ptrdiff_t)j * dim, dim, 1, x->q, TILE, dim);
    const bool edge = valid < KTILE || diagonal < KTILE;
    if (edge)
        hide(s, valid, diagonal, NEVER);
    UNROLL(4) for (int z = 0; z < Z; z++) {
        vf max = v_max(v_max(v_max(s[0][z], s[1][z]), v_max(s[2][z], s[3][z])), v_max(s[4][z], s[5][z]));
        if (__builtin_expect(v_any(v_gt(max, v_load(KW_F32, x->m, W * z) + HEADROOM)), 0))
            raise_reference(x, p, W * z, max, j, channels);
    }
    UNROLL(4) for (int z = 0; z < Z; z++) {
        const vf m = v_load(KW_F32, x->m, W * z);
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            s[i][z] = exp2_score(s[i][z] - m);
    }
    if (edge)
        hide(s, valid, diagonal, 0);
    UNROLL(4) for (int z = 0; z < Z; z++) {
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            v_store(KW_F32, p, (j + i) * TILE + W * z, s[i][z]);
        vf sum = ((s[0][z] + s[1][z]) + (s[2][z] + s[3][z])) + (s[4][z] + s[5][z]);
        v_store(KW_F32, x->l, W * z, v_load(KW_F32, x->l, W * z) + sum);
    }
}

/* One tile of rows against a block of keys; diagonal: its first row minus the first key, or ANY. */
NOINLINE static void forward_tile(const range *x, const tile *y, int keys, bool first, int diagonal)
{
    const int n = diagonal == ANY ? keys : KW_MIN(keys, diagonal + TILE);
    for (int j = 0; j < n; j += KTILE)
        score_tile(y, x->k, x->p, x->dim, j, n - j, diagonal == ANY ? ANY : diagonal - j, first ? 0 : x->dim);
    accumulate_lanes(first, y->o, x->v, x->dim, x->p, TILE, n);
}

/* o = sum / l, lse = (m + log2 l) ln 2 */
static void finish_tile(kw_dtype t, const tile *x, int rows, int dim, void *o, ptrdiff_t at, ptrdiff_t stride,
                        float *lse)
{
    for (int z = 0; z < TILE && z < rows; z += W) {
        const vf l = v_load(KW_F32, x->l, z);
        v_put(KW_F32, lse, z, (v_load(KW_F32, x->m, z) + v_log2(l)) * LN2, rows - z);
        v_store(KW_F32, x->l, z, 1.0f / l);
    }
    unpack_lanes(t, x->o, x->l, rows, dim, o, at, stride);
}

typedef struct { const void *q, *k, *v; void *o; float *lse; } arrays;

/* Rows [r0, r0 + rows) of head h. */
static void forward_range(kw_dtype t, const kw_attention_shape *s, const arrays *a, range x, int h, int r0, int rows)
{
    const ptrdiff_t q = head_at(s, h, s->tq, s->q_stride) + r0 * s->q_stride;
    const ptrdiff_t o = head_at(s, h, s->tq, s->o_stride) + r0 * s->o_stride;
    const ptrdiff_t k = head_at(s, h, s->tk, s->k_stride), v = head_at(s, h, s->tk, s->v_stride);
    const int d = s->dim, seen = s->causal ? KW_MIN(s->tk, r0 + rows) : s->tk;
    for (int r = 0; r < rows; r += TILE) {
        pack_lanes(t, a->q, q + r * s->q_stride, s->q_stride, rows - r, d, s->scale * LOG2E, x.q + (ptrdiff_t)r * d);
        for (int i = r; i < r + TILE; i++)
            x.m[i] = NEVER, x.l[i] = 0;
    }
    for (int j = 0; j < seen; j += x.keys) {
        const int keys = KW_MIN(x.keys, seen - j);
        pack_rows(t, a->k, k + j * s->k_stride, s->k_stride, keys, round_up(keys, KTILE), d, d, 1, x.k);
        pack_rows(t, a->v, v + j * s->v_stride, s->v_stride, keys, round_up(keys, KTILE), d, d, 1, x.v);
        for (int r = s->causal ? KW_MAX(0, (j - r0) / TILE * TILE) : 0; r < rows; r += TILE) {
            const tile y = { x.m + r, x.l + r, x.o + (ptrdiff_t)r * d, x.q + (ptrdiff_t)r * d };
            forward_tile(&x, &y, keys, j == 0, s->causal ? r0 + r - j : ANY);
        }
    }
    for (int r = 0; r < rows; r += TILE) {
        const tile y = { x.m + r, x.l + r, x.o + (ptrdiff_t)r * d, x.q + (ptrdiff_t)r * d };
        finish_tile(t, &y, rows - r, d, a->o, o + r * s->o_stride, s->o_stride, a->lse + (ptrdiff_t)h * s->tq + r0 + r);
    }
}

void ISA(attention)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v, void *o,
                    float *lse,
                    void *scratch)
{
    const arrays a = { q, k, v, o, lse };
    const int size = range_rows(s->dim), ranges = (int)pieces(s->tq, size), count = s->batch * s->heads * ranges;
    _Pragma("omp parallel if (count > 1)")
    {
        range x;
        const size_t bytes = layout(s, &x, scratch);
        layout(s, &x, (char *)scratch + (size_t)omp_get_thread_num() * bytes);
        _Pragma("omp for schedule(dynamic)")
        for (int i = 0; i < count; i++) {
            const int r0 = i % ranges * size;
            forward_range(t, s, &a, x, i / ranges, r0, KW_MIN(size, s->tq - r0));
        }
    }
}
