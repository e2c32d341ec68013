/*
 * conv_tile.h - the innermost loops of our own convolution: a tile of ROWS x WIDTH sums kept in registers.
 * One set per instruction set (simd/conv_tile.c); conv_tiles.c walks over the tensor with them. All f32.
 */
#ifndef KW_CONV_TILE_H
#define KW_CONV_TILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KW_TILE_MAX = 12 * 32 };

typedef struct kw_conv_tile {
    const char *isa;
    int rows, width;
    /*
     * y[r*ld + c] = start + sum over t < taps, i < n of x[t*step + r][first + i] * w[(t*n + i)*width + c]
     * start: y itself if `add`, else from[c]
     */
    void (*forward)(const float *const *x, ptrdiff_t step, int taps, int first, int n, const float *w,
                    const float *from, bool add, float *y, ptrdiff_t ld);
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
} kw_conv_tile;

/* Of the instruction set that kw_kern_get() has. */
const kw_conv_tile *kw_conv_tile_get(void);

#endif
