/*
 * gemm_whole.h - products of frozen weights in whole numbers: C = alpha A Bᵀ + beta C (+ bias), B a matrix of one byte a
 * number (KW_I8). Each row of A is rounded to whole numbers of 16 bits, so many steps that no sum leaves 32 bits:
 *
 *     most = min(32767, (2^31 - 1) / (127 k))      a[r][i] = round(A[r][i] most / max |A[r]|)
 *     C[r][j] = alpha (sum over i of a[r][i] b[j][i]) (max |A[r]| / most) scale[j]
 *
 * With k = 320 a row has 65,535 steps, with 5120 6,605: what is rounded off is a hundredth of what B lost to one byte.
 * Sums of whole numbers are exact, whatever their order: the same bits for every number of threads.
 */
#ifndef KW_GEMM_WHOLE_H
#define KW_GEMM_WHOLE_H

#include "kern.h"

typedef struct {
    int rows, width;                      /* of a tile: 6 x 16 */
    /* Row x[at .. at + n) of type t; returns its scale: a NaN where a number is not finite. */
    float (*round)(kw_dtype t, const void *x, int64_t at, int64_t n, int most, int16_t *to);
    /* A panel of B, rows of k codes: to[i/2][column][i%2], zeros behind the last column and the last of an odd k. */
    void (*pack)(const int8_t *b, int64_t k, int columns, int16_t *to);
    /* c (rows, width) = (add ? c : 0) + A B, `pairs` > 0 steps of two numbers */
    void (*tile)(const int16_t *a, ptrdiff_t lda, const int16_t *b, int64_t pairs, bool add, int32_t *c);
    /* A tile of sums to C, F32 or BF16 */
    void (*finish)(kw_dtype t, void *c, ptrdiff_t ldc, const int32_t *sums, const float *row_scale, const float *scale,
                   int rows, int columns, float alpha, float beta, const float *bias);
} kw_gemm_whole_tile;

/* Is this product done so? Where s->whole asks for it, and the instruction set has the tile (AVX2). */
bool kw_gemm_whole_fits(const kw_gemm_shape *s);
size_t kw_gemm_whole_scratch(const kw_gemm_shape *s);
void kw_gemm_whole(const kw_gemm_shape *s, const void *a, const void *b, const float *bias, void *c, void *scratch);

#endif
