/*
 * conv_tile.c - the innermost loops of convolution (see kern/conv_tile.h): ROWS x 2 vectors of sums in registers.
 *
 * Per step of the sum two vectors of weights are read, ROWS numbers are read and spread, 2 ROWS multiply-adds done.
 * 6 x 2 of 8 floats fill the 16 registers of AVX2, 12 x 2 of 16 floats the 32 of AVX-512.
 */
#include "simd.h"
#include "kern/conv_tile.h"

#ifdef KW_ISA_avx512
enum { ROWS = 12 };
#else
enum { ROWS = 6 };
#endif

typedef struct { vf a[ROWS], b[ROWS]; } sums;

INLINE vf load(const float *p) { return (vf)*(const vf_at *)p; }
INLINE void store(float *p, vf x) { *(vf_at *)p = (vf_at)x; }

static NOINLINE void tile_forward(const float *const *x, ptrdiff_t step, int taps, int first, int n, const float *w,
                                  const float *from, bool add, float *y, ptrdiff_t ld)
{
    sums s;
    UNROLL(12) for (int r = 0; r < ROWS; r++) {
        s.a[r] = load(add ? y + r * ld : from);
        s.b[r] = load(add ? y + r * ld + W : from + W);
    }
    for (int t = 0; t < taps; t++, x += step) {
        const float *row[ROWS];
        UNROLL(12) for (int r = 0; r < ROWS; r++)
            row[r] = x[r] + first;
        for (ptrdiff_t i = 0; i < n; i++, w += 2 * W) {
            vf wa = load(w), wb = load(w + W);
            UNROLL(12) for (int r = 0; r < ROWS; r++) {
                vf v = v_set(row[r][i]);
                s.a[r] += v * wa;
                s.b[r] += v * wb;
            }
        }
    }
    UNROLL(12) for (int r = 0; r < ROWS; r++) {
        store(y + r * ld, s.a[r]);
        store(y + r * ld + W, s.b[r]);
    }
}

static NOINLINE void tile_weights(const float *const *x, int first, int pixels, const float *dy, bool add, float *dw,
                                  int skip)
{
    sums s;
    UNROLL(12) for (int r = 0; r < ROWS; r++)
        s.a[r] = s.b[r] = v_set(0);
    for (ptrdiff_t p = 0; p < pixels; p++, dy += 2 * W) {
        const float *row = x[p] + first;
        vf ya = load(dy), yb = load(dy + W);
        UNROLL(12) for (int r = 0; r < ROWS; r++) {
            vf v = v_set(row[r]);
            s.a[r] += v * ya;
            s.b[r] += v * yb;
        }
    }
    for (int r = 0; r < ROWS; r++, dw += 2 * W)
        if (r >= skip) {
            store(dw, add ? load(dw) + s.a[r] : s.a[r]);
            store(dw + W, add ? load(dw + W) + s.b[r] : s.b[r]);
        }
}

static NOINLINE void tile_dense(const float *a, const float *b, int64_t n, const float *from, bool add, float *c,
                                ptrdiff_t ld, int skip)
{
    sums s;
    UNROLL(12) for (int r = 0; r < ROWS; r++) {
        s.a[r] = add ? load(c + r * ld) : from ? load(from) : v_set(0);
        s.b[r] = add ? load(c + r * ld + W) : from ? load(from + W) : v_set(0);
    }
    for (int64_t k = 0; k < n; k++, a += ROWS, b += 2 * W) {
        vf wa = load(b), wb = load(b + W);
        UNROLL(12) for (int r = 0; r < ROWS; r++) {
            vf v = v_set(a[r]);
            s.a[r] += v * wa;
            s.b[r] += v * wb;
        }
    }
    for (int r = 0; r < ROWS; r++, c += ld)
        if (r >= skip) {
            store(c, s.a[r]);
            store(c + W, s.b[r]);
        }
}

static NOINLINE void gather(const float *const *x, int first, int pixels, float *a)
{
    for (int p = 0; p < pixels; p++, a += ROWS) {
        const float *from = x[p] + first;
        UNROLL(12) for (int r = 0; r < ROWS; r++)
            a[r] = from[r];
    }
}

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
extern const kw_conv_tile KW_PASTE(kw_conv_tile, KW_ISA);
const kw_conv_tile KW_PASTE(kw_conv_tile, KW_ISA) = {
    TEXT(KW_ISA), ROWS, 2 * W, tile_forward, tile_weights, tile_dense, gather,
};
