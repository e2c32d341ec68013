/*
 * attention_tile.h - the pieces both directions of attention are made of: packed forms of (tokens x dim) panels of one
 * head, f32 whatever the type in memory, and the one inner product loop over them.
 *
 *  - lanes: [c][TILE], tokens in the lanes of Z vectors. No head dim is padded: d = 40 wastes nothing, odd ones work.
 *  - rows:  [token][w], one token after the other, w >= dim.
 *
 * A register tile is 6 keys (or channels) x Z vectors: 6 x 4 of 32 registers in AVX-512, 6 x 2 of 16 elsewhere.
 */
#ifndef KW_SIMD_ATTENTION_TILE_H
#define KW_SIMD_ATTENTION_TILE_H

#include "simd.h"

enum {
    Z = W == 16 ? 4 : 2,                  /* vectors of query rows in a register tile */
    TILE = Z * W,                         /* query rows in a register tile */
    KTILE = 6,                            /* keys in a register tile */
    ANY = 1 << 30,                        /* diagonal of a tile in which nothing is hidden */
};

#define NEVER -1e30f                      /* the score of a key that is not seen */
#define LN2 0.69314718f

INLINE int round_up(int n, int m) { return (n + m - 1) / m * m; }
INLINE size_t align64(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/*
 * acc[i][z] += sum over s of  a[i a_row + s a_step]  b[s b_step + W z ...],    i < R, z < N: both constants.
 * Twelve sums at least hide the latency of a fused multiply-add.
 */
INLINE void dot_tile(const int R, const int N, vf acc[][4], const float *a, ptrdiff_t a_row, ptrdiff_t a_step,
                     const float *b,
                     ptrdiff_t b_step, int steps)
{
    for (int s = 0; s < steps; s++, a += a_step, b += b_step) {
        vf x[4];
        UNROLL(4) for (int z = 0; z < N; z++)
            x[z] = v_load(KW_F32, b, W * z);
        UNROLL(12) for (int i = 0; i < R; i++) {
            const vf y = v_set(a[i * a_row]);
            UNROLL(4) for (int z = 0; z < N; z++)
                acc[i][z] += y * x[z];
        }
    }
}

/* 2^x for x <= 17 or so, at least 2^-100: what a probability adds to a sum near 1 below that is nothing. NaN stays. */
INLINE vf exp2_score(vf x)
{
    vf scale, c = v_max(v_set(-100), x), r = v_whole(c, 1, &scale);
    return v_scale(v_exp2_fraction(c - r), scale);
}

/* log2 of x > 0: exponent, and log of the rest m in [0.7, 1.4] by atanh((m - 1) / (m + 1)); NaN, infinity: NaN */
INLINE vf v_log2(vf x)
{
    vu u = (vu)x - 0x3f3504f3u;           /* sqrt(1/2) */
    vf e = __builtin_convertvector((vi)u >> 23, vf);
    vf m = (vf)((u & 0x7fffffu) + 0x3f3504f3u);
    vf s = (m - 1.0f) / (m + 1.0f), q = s * s;
    vf p = v_set(1.0f / 9) * q + v_set(1.0f / 7);
    p = p * q + v_set(0.2f);
    p = p * q + v_set(1.0f / 3);
    return e + (s + s * q * p) * (2 * LOG2E) + (x - x);
}

/* Lanes t of a vector whose row t + `from` lies before key i of a tile: hidden. */
INLINE vf lane_numbers(void)
{
    vf n;
    UNROLL(16) for (int i = 0; i < W; i++)
        n[i] = (float)i;
    return n;
}

/*
 * Puts `value` where a key is not seen: keys from `valid` on do not exist; causal: keys after the row. diagonal = row
 * of lane 0 minus key of s[0].
 */
INLINE void hide(vf s[][4], int valid, int diagonal, float value)
{
    if (valid < KTILE)
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            if (i >= valid)
                UNROLL(4) for (int z = 0; z < Z; z++)
                    s[i][z] = v_set(value);
    if (diagonal < KTILE)
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            UNROLL(4) for (int z = 0; z < Z; z++)
                s[i][z] = v_choose(v_lt(lane_numbers(), v_set((float)(i - diagonal - W * z))), v_set(value), s[i][z]);
}

/* W x W numbers, in place. */
INLINE void transpose(vf r[W])
{
    vf t[W];
#if defined KW_ISA_avx512
#define UNPACK(x, lo, hi) _mm512_unpack##x##_ps((__m512)(lo), (__m512)(hi))
#define PAIR(f, a, b) (vf)_mm512_castpd_ps(f(_mm512_castps_pd((__m512)(a)), _mm512_castps_pd((__m512)(b))))
#define QUARTERS(a, b, how) (vf)_mm512_shuffle_f32x4((__m512)(a), (__m512)(b), how)
    UNROLL(8) for (int i = 0; i < 16; i += 2) {
        t[i] = (vf)UNPACK(lo, r[i], r[i + 1]);
        t[i + 1] = (vf)UNPACK(hi, r[i], r[i + 1]);
    }
    UNROLL(4) for (int i = 0; i < 16; i += 4) {
        r[i] = PAIR(_mm512_unpacklo_pd, t[i], t[i + 2]);
        r[i + 1] = PAIR(_mm512_unpackhi_pd, t[i], t[i + 2]);
        r[i + 2] = PAIR(_mm512_unpacklo_pd, t[i + 1], t[i + 3]);
        r[i + 3] = PAIR(_mm512_unpackhi_pd, t[i + 1], t[i + 3]);
    }
    UNROLL(4) for (int i = 0; i < 4; i++) {
        t[i] = QUARTERS(r[i], r[4 + i], 0x88);
        t[4 + i] = QUARTERS(r[i], r[4 + i], 0xdd);
        t[8 + i] = QUARTERS(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = QUARTERS(r[8 + i], r[12 + i], 0xdd);
    }
    UNROLL(4) for (int i = 0; i < 4; i++) {
        r[i] = QUARTERS(t[i], t[8 + i], 0x88);
        r[4 + i] = QUARTERS(t[4 + i], t[12 + i], 0x88);
        r[8 + i] = QUARTERS(t[i], t[8 + i], 0xdd);
        r[12 + i] = QUARTERS(t[4 + i], t[12 + i], 0xdd);
    }
#undef UNPACK
#undef PAIR
#undef QUARTERS
#elif defined KW_ISA_avx2
    UNROLL(4) for (int i = 0; i < 8; i += 2) {
        t[i] = (vf)_mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
        t[i + 1] = (vf)_mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
    }
    UNROLL(2) for (int i = 0; i < 8; i += 4)
        UNROLL(2) for (int k = 0; k < 2; k++) {
            r[i + 2 * k] = (vf)_mm256_shuffle_ps((__m256)t[i + k], (__m256)t[i + k + 2], 0x44);
            r[i + 2 * k + 1] = (vf)_mm256_shuffle_ps((__m256)t[i + k], (__m256)t[i + k + 2], 0xee);
        }
    UNROLL(4) for (int i = 0; i < 4; i++) {
        t[i] = (vf)_mm256_permute2f128_ps((__m256)r[i], (__m256)r[i + 4], 0x20);
        t[i + 4] = (vf)_mm256_permute2f128_ps((__m256)r[i], (__m256)r[i + 4], 0x31);
    }
    UNROLL(8) for (int i = 0; i < 8; i++)
        r[i] = t[i];
#else
    UNROLL(4) for (int i = 0; i < W; i++)
        t[i] = (vf){ r[0][i], r[1][i], r[2][i], r[3][i] };
    UNROLL(4) for (int i = 0; i < W; i++)
        r[i] = t[i];
#endif
}

/* ---- packing: functions of their own, so that the unrolled transposes exist once per type -------------- */

/* One block of W x W: rows of x to lanes, `tokens` rows and `left` channels of which exist; the rest is zero. */
INLINE void pack_block(const kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int left,
                       float factor, float *lanes)
{
    vf r[W];
    if (tokens >= W && left >= W)
        UNROLL(16) for (int i = 0; i < W; i++)
            r[i] = v_load(t, x, at + i * stride) * factor;
    else
        for (int i = 0; i < W; i++)
            r[i] = i < tokens ? v_load_some(t, x, at + i * stride, KW_MIN(W, left)) * factor : v_set(0);
    transpose(r);
    for (int i = 0; i < W && i < left; i++)
        v_store(KW_F32, lanes, (ptrdiff_t)i * TILE, r[i]);
}

INLINE void pack_lanes_of(const kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int dim,
                          float factor, float *lanes)
{
    for (int i = 0; i < TILE; i += W)
        for (int c = 0; c < dim; c += W)
            pack_block(t, x, at + i * stride + c, stride, tokens - i, dim - c, factor, lanes + (ptrdiff_t)c * TILE + i);
}

/* lanes[c][TILE] of one tile, times factor; tokens that do not exist are zero */
NOINLINE static void pack_lanes(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int dim,
                                float factor, float *lanes)
{
    TYPED(t, pack_lanes_of, x, at, stride, tokens, dim, factor, lanes);
}

INLINE void pack_rows_of(const kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int dim, int w,
                         float factor, float *rows)
{
    for (int i = 0; i < tokens; i++, at += stride, rows += w)
        for (int c = 0; c < w; c += W)
            v_put(KW_F32, rows, c, v_get(t, x, at + c, dim - c) * factor, w - c);
}

/* rows[token][w], times factor; dim <= w < dim + W, zero between, and for tokens that do not exist, up to `padded` */
NOINLINE static void pack_rows(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int padded,
                               int dim, int w,
                               float factor, float *rows)
{
    TYPED(t, pack_rows_of, x, at, stride, tokens, dim, w, factor, rows);
    memset(rows + (size_t)tokens * (size_t)w, 0, (size_t)(padded - tokens) * (size_t)w * sizeof *rows);
}

INLINE void unpack_block(const kw_dtype t, const float *lanes, vf factor, int tokens, int left, void *x, ptrdiff_t at,
                         ptrdiff_t stride)
{
    vf r[W];
    UNROLL(16) for (int i = 0; i < W; i++)
        r[i] = v_load(KW_F32, lanes, (ptrdiff_t)KW_MIN(i, left - 1) * TILE) * factor;
    transpose(r);
    for (int i = 0; i < W && i < tokens; i++)
        v_put(t, x, at + i * stride, r[i], left);
}

INLINE void unpack_lanes_of(const kw_dtype t, const float *lanes, const float *factor, int tokens, int dim, void *x,
                            ptrdiff_t at, ptrdiff_t stride)
{
    for (int i = 0; i < TILE && i < tokens; i += W)
        for (int c = 0; c < dim; c += W)
            unpack_block(t, lanes + (ptrdiff_t)c * TILE + i, v_load(KW_F32, factor, i), tokens - i, dim - c, x,
                         at + i * stride + c, stride);
}

/* The way back from lanes[c][TILE] of one tile, times factor[t]. */
NOINLINE static void unpack_lanes(kw_dtype t, const float *lanes, const float *factor, int tokens, int dim, void *x,
                                  ptrdiff_t at, ptrdiff_t stride)
{
    TYPED(t, unpack_lanes_of, lanes, factor, tokens, dim, x, at, stride);
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* acc[c][TILE] (+)= sum over `steps` keys of  v[key][c] p[key][p_step],  R channels */
INLINE void accumulate_tile(const int R, bool fresh, float *acc, const float *v, int dim, const float *p, int p_step,
                            int steps)
{
    vf a[KTILE][4];
    UNROLL(6) for (int i = 0; i < R; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            a[i][z] = fresh ? v_set(0) : v_load(KW_F32, acc, i * TILE + W * z);
    dot_tile(R, Z, a, v, 1, dim, p, p_step, steps);
    UNROLL(6) for (int i = 0; i < R; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            v_store(KW_F32, acc, i * TILE + W * z, a[i][z]);
}

/* The same for all channels: sixes, then fours, so that no tile is left too small to hide latency if that can be. */
NOINLINE static void accumulate_lanes(bool fresh, float *acc, const float *v, int dim, const float *p, int p_step,
                                      int steps)
{
    int c = 0;
    for (; dim - c >= 6 && dim - c != 8; c += 6)
        accumulate_tile(6, fresh, acc + c * TILE, v + c, dim, p, p_step, steps);
    for (; dim - c >= 4; c += 4)
        accumulate_tile(4, fresh, acc + c * TILE, v + c, dim, p, p_step, steps);
    for (; dim - c >= 2; c += 2)
        accumulate_tile(2, fresh, acc + c * TILE, v + c, dim, p, p_step, steps);
    if (c < dim)
        accumulate_tile(1, fresh, acc + c * TILE, v + c, dim, p, p_step, steps);
}

/* Where head i of batch x heads begins. */
INLINE ptrdiff_t head_at(const kw_attention_shape *s, int i, int tokens, ptrdiff_t stride)
{
    return (ptrdiff_t)(i / s->heads) * tokens * stride + (ptrdiff_t)(i % s->heads) * s->dim;
}

#endif
