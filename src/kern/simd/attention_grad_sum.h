/*
 * attention_grad_sum.h - the products that sum over rows, dV = P^T dO and dK = dS^T Q, with channels in the lanes:
 *
 *     out[key][c] += sum over the rows of a tile of  p[key][row] x[row][c]
 *
 * A head's channels are rounded up to whole vectors. Where half a vector is left over (d = 40 in AVX-512) two keys
 * share the last one, the even key in its lower half, the odd one in the upper: x holds those channels twice, and the
 * broadcast of the odd key is merged into the upper lanes. (Prototype, d = 40: 77 to 83 % of peak.)
 */
#ifndef KW_SIMD_ATTENTION_GRAD_SUM_H
#define KW_SIMD_ATTENTION_GRAD_SUM_H

#include "attention_tile.h"

/* Smaller heads lack accumulators for it. */
INLINE bool half_left(int dim) { return W == 16 && dim % 16 == 8 && dim >= 40; }

/* Cells of a row of x and out: whole lines of the cache, and not a multiple of 512 bytes. */
INLINE int sum_width(int dim) { return row_cells(round_up(dim, 16)); }

/* Where W channels from c on of key j lie in out: those of an odd key's last half behind an even key's. */
INLINE ptrdiff_t half_at(int j, int c, int dim, int w)
{
    if (half_left(dim) && c + W > dim && j % 2)
        return (ptrdiff_t)(j - 1) * w + c + W / 2;
    return (ptrdiff_t)j * w + c;
}

/* Lanes beyond dim repeat the last 8 channels. */
static void repeat_half(float *steps, int dim, int count)
{
    if (half_left(dim))
        for (int i = 0; i < count; i++)
            memcpy(steps + (ptrdiff_t)i * sum_width(dim) + dim, steps + (ptrdiff_t)i * sum_width(dim) + dim - 8,
                   8 * sizeof *steps);
}

/* R keys and N vectors of channels; p of the next tile of rows lies `next` cells away */
INLINE void sum_rows_tile(const int R, const int N, float *out, const float *p, ptrdiff_t next, const float *x, int w,
                          int rows)
{
    vf a[12][4];
    UNROLL(12) for (int i = 0; i < R; i++)
        UNROLL(4) for (int z = 0; z < N; z++)
            a[i][z] = v_load(KW_F32, out, (ptrdiff_t)i * w + W * z);
    for (int r = 0; r < rows; r += TILE, p += next, x += (ptrdiff_t)(TILE / PER) * w)
        dot_tile(R, N, a, p, TILE / PER, 1, x, w, TILE / PER);
    UNROLL(12) for (int i = 0; i < R; i++)
        UNROLL(4) for (int z = 0; z < N; z++)
            v_store(KW_F32, out, (ptrdiff_t)i * w + W * z, a[i][z]);
}

/* keys: a multiple of KTILE; R divides 12 */
INLINE void sum_rows_by(const int R, const int N, float *out, const float *p, const float *x, int w, int keys, int rows)
{
    const ptrdiff_t next = (ptrdiff_t)keys * (TILE / PER);
    int j = 0;
    for (; j + R <= keys; j += R)
        sum_rows_tile(R, N, out + (ptrdiff_t)j * w, p + j * (TILE / PER), next, x, w, rows);
    for (; j < keys; j += 2)
        sum_rows_tile(2, N, out + (ptrdiff_t)j * w, p + j * (TILE / PER), next, x, w, rows);
}

NOINLINE static void sum_rows_4(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    sum_rows_by(KTILE, 4, out, p, x, w, keys, rows);
}
NOINLINE static void sum_rows_3(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    sum_rows_by(W == 16 ? KTILE : 4, 3, out, p, x, w, keys, rows);
}
NOINLINE static void sum_rows_2(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    sum_rows_by(KTILE, 2, out, p, x, w, keys, rows);
}
NOINLINE static void sum_rows_1(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    sum_rows_by(12, 1, out, p, x, w, keys, rows);
}

#if defined KW_ISA_avx512
/* KTILE keys, two vectors of channels, and half a one that each pair of keys shares. */
INLINE void sum_shared_tile(float *out, const float *p, ptrdiff_t next, const float *x, int w, int rows)
{
    vf a[KTILE][2], h[KTILE / 2];
    UNROLL(6) for (int i = 0; i < KTILE; i++)
        UNROLL(2) for (int z = 0; z < 2; z++)
            a[i][z] = v_load(KW_F32, out, (ptrdiff_t)i * w + W * z);
    UNROLL(3) for (int i = 0; i < KTILE / 2; i++)
        h[i] = v_load(KW_F32, out, (ptrdiff_t)2 * i * w + 2 * W);
    for (int r = 0; r < rows; r += TILE, p += next)
        for (int s = 0; s < TILE / PER; s++, x += w) {
            const vf x0 = v_load(KW_F32, x, 0), x1 = v_load(KW_F32, x, W), xh = v_load(KW_F32, x, 2 * W);
            UNROLL(3) for (int i = 0; i < KTILE; i += 2) {
                const vf even = v_cell(p + i * (TILE / PER) + s), odd = v_cell(p + (i + 1) * (TILE / PER) + s);
                a[i][0] = dot_step(a[i][0], even, x0), a[i][1] = dot_step(a[i][1], even, x1);
                a[i + 1][0] = dot_step(a[i + 1][0], odd, x0), a[i + 1][1] = dot_step(a[i + 1][1], odd, x1);
                h[i / 2] = dot_step(h[i / 2], v_choose(0xff00, odd, even), xh);
            }
        }
    UNROLL(6) for (int i = 0; i < KTILE; i++)
        UNROLL(2) for (int z = 0; z < 2; z++)
            v_store(KW_F32, out, (ptrdiff_t)i * w + W * z, a[i][z]);
    UNROLL(3) for (int i = 0; i < KTILE / 2; i++)
        v_store(KW_F32, out, (ptrdiff_t)2 * i * w + 2 * W, h[i]);
}

NOINLINE static void sum_rows_shared(float *out, const float *p, const float *x, int w, int keys, int rows)
{
    for (int j = 0; j < keys; j += KTILE)
        sum_shared_tile(out + (ptrdiff_t)j * w, p + j * (TILE / PER), (ptrdiff_t)keys * (TILE / PER), x, w, rows);
}
#endif

/* All channels, so that no register tile is too small to hide latency. keys: a multiple of KTILE. */
static void sum_rows(float *out, const float *p, const float *x, int dim, int keys, int rows)
{
    const int w = sum_width(dim), whole = round_up(dim, W) - (half_left(dim) ? 3 * W : 0);
    for (int c = 0; c < whole;) {
        const int left = (whole - c) / W;
        const int n = left == 3 || left == 1 ? left : Z == 4 && left == 5 ? 3 : Z == 4 && left >= 4 ? 4 : 2;
        (n == 4 ? sum_rows_4 : n == 3 ? sum_rows_3 : n == 2 ? sum_rows_2 : sum_rows_1)(out + c, p, x + c, w, keys,
                                                                                       rows);
        c += n * W;
    }
#if defined KW_ISA_avx512
    if (half_left(dim))
        sum_rows_shared(out + whole, p, x + whole, w, keys, rows);
#endif
}

#endif
