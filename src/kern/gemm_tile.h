/*
 * gemm_tile.h - the innermost loops of matrix products: a tile of sums kept in registers, the packing of a panel, and
 * the way of finished sums to C. One set per instruction set (simd/gemm_tile.c); gemm.c walks over the matrices.
 */
#ifndef KW_GEMM_TILE_H
#define KW_GEMM_TILE_H

#include "kern.h"

/* Lines of the cache that are asked for while tiles are summed, `each` for a tile: what the next block will read. */
typedef struct {
    const char *at;                       /* the row in turn */
    ptrdiff_t ld;                         /* bytes from row to row */
    int64_t line, lines;                  /* in turn, and of each row */
    int64_t left;                         /* to ask for, of all rows */
    int64_t each;
} kw_gemm_ahead;

/*
 * C (m rows, one panel of columns) = [C] + A B, all f32:
 *     c[r*ldc + j] = (add ? c[r*ldc + j] : 0) + sum over i < n of A(r, i) * b[i*ldb + j]   (+ bias[j] unless NULL)
 * A(r, i): a[r*lda + i]; by_columns: a[i*lda + r], the rows of a tile `next` from those of the one before.
 * A panel has `width` columns; with `half` only the first width/2 are computed.
 */
typedef struct {
    int64_t m, n;
    const float *a, *b, *bias;
    ptrdiff_t lda, next, ldb, ldc;
    float *c;
    kw_gemm_ahead *ahead;                 /* NULL: none */
    bool by_columns, add, half;
} kw_gemm_strip;

typedef struct kw_gemm_tile {
    const char *isa;
    int rows, width;                      /* of a tile */
    void (*strip)(const kw_gemm_strip *s);
    /*
     * A panel of B: to[i*width + j] = alpha * B(i, j) for i < n, j < columns; 0 behind them.
     * B(i, j): b[i*ldb + j], or b[j*ldb + i] when transposed. b: F32, BF16, F16, or I8 with a scale for each of its
     * rows: scale[i], or scale[j] when transposed (else NULL).
     */
    void (*pack)(kw_dtype t, const void *b, ptrdiff_t ldb, bool transposed, int64_t n, int columns, float alpha,
                 const float *scale, float *to);
    /* m rows of A as f32. A(r, i) is x[r*ldx + i]: to[r*ldto + i]; I8: times scale[r] */
    void (*widen)(kw_dtype t, const void *x, ptrdiff_t ldx, int64_t m, int64_t n, const float *scale, float *to,
                  ptrdiff_t ldto);
    /* A(r, i) is x[i*ldx + r]: tile by tile, to[(r/rows*n + i)*rows + r%rows] */
    void (*gather)(kw_dtype t, const void *x, ptrdiff_t ldx, int64_t m, int64_t n, float *to);
    /* C = beta C + x + bias: rows x n numbers; C, F32 or BF16, is not read when beta is 0; bias may be NULL */
    void (*finish)(kw_dtype t, void *c, ptrdiff_t ldc, const float *x, ptrdiff_t ldx, int64_t rows, int64_t n,
                   float beta, const float *bias);
} kw_gemm_tile;

/* Of the instruction set that kw_kern_get() has. */
const kw_gemm_tile *kw_gemm_tile_get(void);

#endif
