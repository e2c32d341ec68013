/*
 * attention_pack.h - panels of one head (attention_tile.h), packed from (tokens x dim) in memory, and the way back.
 */
#ifndef KW_SIMD_ATTENTION_PACK_H
#define KW_SIMD_ATTENTION_PACK_H

#include "attention_tile.h"

enum { BEHIND = 16 };

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

/* Asks for rows that will be read or written soon: they lie `stride` apart, which no hardware prefetcher follows. */
static inline void prefetch_rows(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int dim)
{
    const ptrdiff_t e = t == KW_F32 ? 4 : 2;
    const char *p = (const char *)x + at * e;
    for (int i = 0; i < tokens; i++, p += stride * e)
        for (ptrdiff_t c = 0; c < dim * e; c += 64)
            __builtin_prefetch(p + c);
}

#ifdef PAIRS

/* 32 neighbours in memory, the first `left` of which exist. */
INLINE vf load_pairs(const void *x, ptrdiff_t at, int left)
{
    const uint16_t *p = (const uint16_t *)x + at;
    return left >= 32 ? (vf)_mm512_loadu_si512(p)
                      : (vf)_mm512_maskz_loadu_epi16(left > 0 ? ((__mmask32)1 << left) - 1 : 0, p);
}

/* bf16 of (a0 b0 a1 b1 ...): neighbours from two vectors; and of (a0 a1 ... b14 b15), as they come */
INLINE vf zip_pairs(vf a, vf b)
{
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                         23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (vf)_mm512_permutexvar_epi16(zip, (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a));
}
INLINE vf row_pairs(vf a, vf b) { return (vf)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a); }

INLINE void pack_block(const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int left, float *lanes)
{
    vf r[W];
    UNROLL(16) for (int i = 0; i < W; i++)
        r[i] = i < tokens ? load_pairs(x, at + i * stride, left) : v_set(0);
    transpose(r);
    for (int i = 0; i < W && i < cells_of(left); i++)
        v_store(KW_F32, lanes, (ptrdiff_t)i * TILE, r[i]);
}

/* lanes of one tile; tokens that do not exist are zero. Pairs stay as they are: factor is applied to the products. */
NOINLINE static void pack_lanes(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int dim,
                                float factor, float *lanes)
{
    (void)t, (void)factor;
    for (int i = 0; i < TILE; i += W)
        for (int c = 0; c < dim; c += 2 * W)
            pack_block(x, at + i * stride + c, stride, tokens - i, dim - c, lanes + (ptrdiff_t)(c / 2) * TILE + i);
}

/* rows[token][step], zero for tokens that do not exist, up to `padded`; what lies beyond dim in a row is not read */
NOINLINE static void pack_rows(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int padded,
                               int dim, int step, float *rows)
{
    (void)t;
    for (int i = 0; i < tokens; i++, rows += step) {
        rows[cells_of(dim) - 1] = 0;      /* odd dim: the last cell's second half */
        memcpy(rows, (const uint16_t *)x + at + i * stride, (size_t)dim * 2);
    }
    memset(rows, 0, (size_t)(padded - tokens) * (size_t)step * sizeof *rows);
}

/* Channels c.. of tokens i and i + 1, as 16 cells. */
INLINE vf token_pairs(const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int left)
{
    const __mmask16 in = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
    const uint16_t *p = (const uint16_t *)x + at;
    const __m256i a = _mm256_maskz_loadu_epi16(tokens > 0 ? in : 0, p);
    const __m256i b = _mm256_maskz_loadu_epi16(tokens > 1 ? in : 0, tokens > 1 ? p + stride : p);
    return (vf)_mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}

/* steps[token / 2][step], width >= dim cells of each written: zero beyond dim, and for tokens that do not exist */
__attribute__((unused))                   /* by the backward pass alone */
NOINLINE static void pack_steps(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int padded,
                                int dim, int width, int step, float *steps)
{
    (void)t;
    for (int i = 0; i < padded; i += 2, steps += step)
        for (int c = 0; c < width; c += W)
            v_put(KW_F32, steps, c, token_pairs(x, i < tokens ? at + i * stride + c : at, stride, tokens - i, dim - c),
                  width - c);
}

/* groups of padded / 2 steps; zero for tokens that do not exist. Up to BEHIND cells behind the last are written. */
NOINLINE static void pack_groups(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int padded,
                                 int dim, float *groups)
{
    (void)t;
    for (int c = 0, n; c < dim; c += n) {
        n = group_width(c, dim);
        for (int i = 0; i < padded; i += 2, groups += n)
            v_store(KW_F32, groups, 0,
                    token_pairs(x, i < tokens ? at + i * stride + c : at, stride, tokens - i, dim - c));
    }
}

#else

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

/* lanes of one tile, times factor; tokens that do not exist are zero */
NOINLINE static void pack_lanes(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int dim,
                                float factor, float *lanes)
{
    TYPED(t, pack_lanes_of, x, at, stride, tokens, dim, factor, lanes);
}

INLINE void pack_steps_of(const kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int dim,
                          int width, int step, float *rows)
{
    for (int i = 0; i < tokens; i++, at += stride, rows += step) {
        int c = 0;
        for (; c + W <= dim; c += W)
            v_store(KW_F32, rows, c, v_load(t, x, at + c));
        if (c < width)
            v_put(KW_F32, rows, c, c < dim ? v_load_some(t, x, at + c, dim - c) : v_set(0), width - c);
    }
}

/* steps[token][step], dim <= width < dim + W cells of each written: zero beyond dim, and for tokens up to `padded` */
NOINLINE static void pack_steps(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int padded,
                                int dim, int width, int step, float *steps)
{
    TYPED(t, pack_steps_of, x, at, stride, tokens, dim, width, step, steps);
    memset(steps + (size_t)tokens * (size_t)step, 0, (size_t)(padded - tokens) * (size_t)step * sizeof *steps);
}

static void pack_rows(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int padded, int dim,
                      int step, float *rows)
{
    pack_steps(t, x, at, stride, tokens, padded, dim, dim, step, rows);
}

enum { WIDEST = W == 4 ? 2 * W : W };  /* numbers read and written for a group */

/* Tokens whose WIDEST numbers from c on can be read, though they may go beyond dim into the next token's. */
INLINE int whole_tokens(ptrdiff_t stride, int tokens, int dim, int c)
{
    return c + WIDEST <= dim ? tokens : c + WIDEST <= stride + dim ? tokens - 1 : 0;
}

INLINE void pack_groups_of(const kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int padded,
                           int dim, float *groups)
{
    for (int c = 0, n; c < dim; c += n) {
        const int whole = whole_tokens(stride, tokens, dim, c);
        n = group_width(c, dim);
        for (int i = 0; i < padded; i++, groups += n)
            UNROLL(2) for (int k = 0; k < WIDEST; k += W)
                if (i < whole)
                    v_store(KW_F32, groups, k, v_load(t, x, at + i * stride + c + k));
                else
                    v_store(KW_F32, groups, k, i < tokens && c + k < dim
                            ? v_load_some(t, x, at + i * stride + c + k, KW_MIN(W, dim - c - k)) : v_set(0));
    }
}

/* groups of `padded` steps; zero for tokens that do not exist. Up to BEHIND cells behind the last are written. */
NOINLINE static void pack_groups(kw_dtype t, const void *x, ptrdiff_t at, ptrdiff_t stride, int tokens, int padded,
                                 int dim, float *groups)
{
    TYPED(t, pack_groups_of, x, at, stride, tokens, padded, dim, groups);
}

#endif

/* ---- and back ---------------------------------------------------------------------------------------------------- */

INLINE void unpack_block(const kw_dtype t, const float *lanes, vf factor, int tokens, int left, void *x, ptrdiff_t at,
                         ptrdiff_t stride)
{
    vf r[W];
    if (tokens >= W && left >= W) {
        UNROLL(16) for (int i = 0; i < W; i++)
            r[i] = v_load(KW_F32, lanes, (ptrdiff_t)i * TILE) * factor;
        transpose(r);
        UNROLL(16) for (int i = 0; i < W; i++)
            v_store(t, x, at + i * stride, r[i]);
        return;
    }
    for (int i = 0; i < W; i++)
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

/* The way back from sums[c][TILE] of one tile, times factor[t]. */
NOINLINE static void unpack_lanes(kw_dtype t, const float *lanes, const float *factor, int tokens, int dim, void *x,
                                  ptrdiff_t at, ptrdiff_t stride)
{
    TYPED(t, unpack_lanes_of, lanes, factor, tokens, dim, x, at, stride);
}

#endif
