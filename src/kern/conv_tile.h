/*
 * conv_tile.h - the innermost loops of our own convolution: a tile of ROWS x WIDTH sums kept in registers.
 * One set per instruction set (simd/conv_tile.c); conv_tiles.c, conv_winograd.c and conv_weights.c walk over the tensor
 * with them. All f32.
 */
#ifndef KW_CONV_TILE_H
#define KW_CONV_TILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KW_TILE_MAX = 12 * 32, KW_TILE_WIDTH_MAX = 48, KW_TILE_ROOM = 24 };     /* ROOM: a multiple of every `rows` */

/* One form of tile; y is dense, rows x width. */
typedef struct {
    int rows, width;
    /*
     * y[r*width + c] = start + sum over t < taps, i < n of x[t*step + r][first + i] * w[t*w_step + i*width + c]
     * start: y itself if `add`, else 0
     */
    void (*run)(const float *const *x, ptrdiff_t step, int taps, ptrdiff_t first, int n, const float *w,
                ptrdiff_t w_step, bool add, float *y);
    /* y[r*width + c] = start + sum over q < count of x[q][first + r] * d[q*width + c] */
    void (*sum)(const float *const *x, ptrdiff_t first, int count, const float *d, bool add, float *y);
} kw_tile_form;

typedef struct kw_conv_tile {
    const char *isa;
    kw_tile_form form[2];                 /* wide, few rows: most work for an instruction; and narrow, for the rest */
    int rows, width;                      /* of the three below */
    /*
     * dw[r*width + c] = start + sum over p < pixels of x[p][first + r] * dy[p*width + c],  for the rows r >= skip
     * start: dw itself if `add`, else 0
     */
    void (*weights)(const float *const *x, int first, int pixels, const float *dy, bool add, float *dw, int skip);
    /*
     * Both factors dense: c[r*ld + col] = start + sum over k < n of a[k*rows + r] * b[k*width + col],
     * for the rows r >= skip
     * start: c itself if `add`, else from[col] (0 if NULL)
     */
    void (*dense)(const float *a, const float *b, int64_t n, const float *from, bool add, float *c, ptrdiff_t ld,
                  int skip);
    /* a[p*rows + r] = x[p][first + r] */
    void (*gather)(const float *const *x, int first, int pixels, float *a);

    /*
     * Winograd's F(4, 3), see conv_winograd.c.
     * spread: v[u*v_step + i] = (B^T)[u] x[.][first + i] for u < 6, i < n
     * derive: u[k*u_step + c] = rows 1..4 of G times w[c], w[slab + c], w[2*slab + c]; slab is a multiple of a width
     * derive_turned: from a weight in which inputs and outputs have changed places: g = w[2*w_step + r*ldw + c],
     *         w[w_step + r*ldw + c], w[r*ldw + c] to u[k*u_step + c*ldu + r], all six rows of G; r < rows, c < columns
     * join:   y[j*ld + c] = bias[c] + (A^T)[j] m[.*m_step + c] for j < count <= 4, c < width
     */
    void (*spread)(const float *const *x, ptrdiff_t first, int n, float *v, ptrdiff_t v_step);
    void (*derive)(const float *w, ptrdiff_t slab, float *u, ptrdiff_t u_step);
    void (*derive_turned)(const float *w, ptrdiff_t w_step, ptrdiff_t ldw, int rows, int columns, float *u,
                          ptrdiff_t u_step, ptrdiff_t ldu);
    void (*join)(const float *m, ptrdiff_t m_step, const float *bias, int width, float *y, ptrdiff_t ld, int count);
    /*
     * unjoin: d[u*d_step + c] = A[u] y[.][c] for u < 6, c < width
     * fold:   w[k*w_step + c] = (G^T)[k] u[.*u_step + c] for k < 3, c < width
     * turn:   b[c*ldb + r] = a[r*lda + c]
     */
    void (*unjoin)(const float *const *y, int width, float *d, ptrdiff_t d_step);
    void (*fold)(const float *u, ptrdiff_t u_step, int width, float *w, ptrdiff_t w_step);
    void (*turn)(const float *a, ptrdiff_t lda, int rows, int columns, float *b, ptrdiff_t ldb);
} kw_conv_tile;

/* Of the instruction set that kw_kern_get() has. */
const kw_conv_tile *kw_conv_tile_get(void);

#endif
