/*
 * conv_tile.c - the innermost loops of convolution (see kern/conv_tile.h): WIDE x 3 or ROWS x 2 sums in registers.
 *
 * Per step of the sum three or two vectors of weights are read, a number of each row is read and broadcast, and the
 * sums get one multiply-add each. 4 x 3 or 6 x 2 of 8 floats fill the 16 registers of AVX2, 8 x 3 or 12 x 2 of 16
 * floats the 32 of AVX-512.
 */
#include "simd.h"
#include "kern/conv_tile.h"

#ifdef KW_ISA_avx512
enum { ROWS = 12, WIDE = 8 };
#else
enum { ROWS = 6, WIDE = 4 };
#endif

typedef struct { vf a[ROWS], b[ROWS]; } sums;

INLINE vf load(const float *p) { return (vf)*(const vf_at *)p; }
INLINE void store(float *p, vf x) { *(vf_at *)p = (vf_at)x; }

/*
 * The tile of a product, R rows by C vectors. Fewer instructions for a multiply-add matter where the core is shared
 * with another hyperthread: for 12 multiply-adds 4 x 3 needs 7 loads, 6 x 2 needs 8, each step of the loop 3 more.
 * Zen 3, sums and factors in cache: 4 x 3 reaches 98 % of the peak, on a shared core 80-88; 6 x 2 reaches 96 and 75-82.
 */
#define TILE(name, R, C) \
    static NOINLINE void name(const float *const *x, ptrdiff_t step, int taps, ptrdiff_t first, int n, const float *w, \
                              ptrdiff_t w_step, bool add, float *y) \
    { \
        vf s[R][C]; \
        UNROLL(12) for (int r = 0; r < R; r++) \
            UNROLL(12) for (int c = 0; c < C; c++) \
                s[r][c] = add ? load(y + (r * C + c) * W) : v_set(0); \
        for (int t = 0; t < taps; t++, x += step, w += w_step) { \
            const float *row[R], *v = w; \
            UNROLL(12) for (int r = 0; r < R; r++) \
                row[r] = x[r] + first; \
            STEPS for (ptrdiff_t i = 0; i < n; i++, v += C * W) { \
                vf k[C]; \
                UNROLL(12) for (int c = 0; c < C; c++) \
                    k[c] = load(v + c * W); \
                UNROLL(12) for (int r = 0; r < R; r++) { \
                    vf a = v_set(row[r][i]); \
                    UNROLL(12) for (int c = 0; c < C; c++) \
                        s[r][c] += a * k[c]; \
                } \
            } \
        } \
        UNROLL(12) for (int r = 0; r < R; r++) \
            UNROLL(12) for (int c = 0; c < C; c++) \
                store(y + (r * C + c) * W, s[r][c]); \
    }

#ifdef __clang__
#define STEPS PRAGMA(clang loop unroll_count(4))
#else
#define STEPS PRAGMA(GCC unroll 4)
#endif

TILE(tile_wide, WIDE, 3)
TILE(tile_narrow, ROWS, 2)

#define SUM(name, R, C) \
    static NOINLINE void name(const float *const *x, ptrdiff_t first, int count, const float *d, bool add, float *y) \
    { \
        vf s[R][C]; \
        UNROLL(12) for (int r = 0; r < R; r++) \
            UNROLL(12) for (int c = 0; c < C; c++) \
                s[r][c] = add ? load(y + (r * C + c) * W) : v_set(0); \
        STEPS for (ptrdiff_t q = 0; q < count; q++, d += C * W) { \
            const float *row = x[q] + first; \
            vf k[C]; \
            UNROLL(12) for (int c = 0; c < C; c++) \
                k[c] = load(d + c * W); \
            UNROLL(12) for (int r = 0; r < R; r++) { \
                vf a = v_set(row[r]); \
                UNROLL(12) for (int c = 0; c < C; c++) \
                    s[r][c] += a * k[c]; \
            } \
        } \
        UNROLL(12) for (int r = 0; r < R; r++) \
            UNROLL(12) for (int c = 0; c < C; c++) \
                store(y + (r * C + c) * W, s[r][c]); \
    }

SUM(sum_wide, WIDE, 3)
SUM(sum_narrow, ROWS, 2)

typedef float v4 __attribute__((vector_size(16)));
typedef float v4_at __attribute__((vector_size(16), aligned(4), may_alias));
typedef float v8 __attribute__((vector_size(32)));
typedef float v8_at __attribute__((vector_size(32), aligned(4), may_alias));

/* Rows r and r + 4 in the halves of a vector, so that what is shuffled stays within its half. */
#define PAIR(r, c) __builtin_shufflevector((v4)*(const v4_at *)(a + (r) * lda + (c)), \
                                           (v4)*(const v4_at *)(a + ((r) + 4) * lda + (c)), 0, 1, 2, 3, 4, 5, 6, 7)

/* Four columns of eight rows. */
INLINE void columns_of(const float *a, ptrdiff_t lda, v8 to[4])
{
    v8 x[4];
    UNROLL(4) for (int k = 0; k < 4; k++)
        x[k] = PAIR(k, 0);
    v8 p = __builtin_shufflevector(x[0], x[1], 0, 8, 1, 9, 4, 12, 5, 13);
    v8 q = __builtin_shufflevector(x[2], x[3], 0, 8, 1, 9, 4, 12, 5, 13);
    v8 s = __builtin_shufflevector(x[0], x[1], 2, 10, 3, 11, 6, 14, 7, 15);
    v8 t = __builtin_shufflevector(x[2], x[3], 2, 10, 3, 11, 6, 14, 7, 15);
    to[0] = __builtin_shufflevector(p, q, 0, 1, 8, 9, 4, 5, 12, 13);
    to[1] = __builtin_shufflevector(p, q, 2, 3, 10, 11, 6, 7, 14, 15);
    to[2] = __builtin_shufflevector(s, t, 0, 1, 8, 9, 4, 5, 12, 13);
    to[3] = __builtin_shufflevector(s, t, 2, 3, 10, 11, 6, 7, 14, 15);
}

/* ---- Winograd's F(4, 3) with the points 0, 1, -1, 2, -2; the fractions of G are moved to B ---- */

#define SPREAD(T, x, to) \
    do { \
        T p = (x(4) - 4.0f * x(2)) * (-1.0f / 6), q = (x(3) - 4.0f * x(1)) * (-1.0f / 6); \
        T r = (x(4) - x(2)) * (1.0f / 24), z = (x(3) - x(1)) * (1.0f / 12); \
        to(0) = x(0) - 1.25f * x(2) + 0.25f * x(4); \
        to(1) = p + q; \
        to(2) = p - q; \
        to(3) = r + z; \
        to(4) = r - z; \
        to(5) = 4.0f * x(1) - 5.0f * x(3) + x(5); \
    } while (0)

static NOINLINE void spread(const float *const *x, ptrdiff_t first, int n, float *v, ptrdiff_t v_step)
{
    int i = 0;
    for (; i + W <= n; i += W) {
        vf d[6], u[6];
        UNROLL(6) for (int k = 0; k < 6; k++)
            d[k] = load(x[k] + first + i);
#define FROM(k) d[k]
#define TO(k) u[k]
        SPREAD(vf, FROM, TO);
        UNROLL(6) for (int k = 0; k < 6; k++)
            store(v + k * v_step + i, u[k]);
    }
#undef FROM
#undef TO
#define FROM(k) x[k][first + i]
#define TO(k) v[k * v_step + i]
    for (; i < n; i++)
        SPREAD(float, FROM, TO);
#undef FROM
#undef TO
}

/* Rows 1 to 4 of G; 0 and 5 are the outer taps themselves. */
#define DERIVE(T, a, b, d, put) \
    do { \
        T even = (a) + (d), even2 = (a) + 4.0f * (d); \
        put(1, even + (b)); \
        put(2, even - (b)); \
        put(3, even2 + 2.0f * (b)); \
        put(4, even2 - 2.0f * (b)); \
    } while (0)

static NOINLINE void derive(const float *w, ptrdiff_t slab, float *u, ptrdiff_t u_step)
{
    for (ptrdiff_t c = 0; c < slab; c += W) {
        vf a = load(w + c), b = load(w + slab + c), d = load(w + 2 * slab + c);
#define PUT(k, x) store(u + ((k) - 1) * u_step + c, x)
        DERIVE(vf, a, b, d, PUT);
#undef PUT
    }
}

static void derive_one(const float *w, ptrdiff_t w_step, float *u, ptrdiff_t u_step)
{
    float a = w[2 * w_step], b = w[w_step], d = w[0];
#define PUT(k, x) u[(k) * u_step] = (x)
    PUT(0, a);
    DERIVE(float, a, b, d, PUT);
    PUT(5, d);
#undef PUT
}

/* Eight rows, four columns of three taps at a time. */
static NOINLINE void derive_turned(const float *w, ptrdiff_t w_step, ptrdiff_t ldw, int rows, int columns, float *u,
                                   ptrdiff_t u_step, ptrdiff_t ldu)
{
    int r = 0, c;
    for (; r + 8 <= rows; r += 8, w += 8 * ldw, u += 8) {
        for (c = 0; c + 4 <= columns; c += 4) {
            v8 a[4], b[4], d[4];
            columns_of(w + 2 * w_step + c, ldw, a);
            columns_of(w + w_step + c, ldw, b);
            columns_of(w + c, ldw, d);
            UNROLL(4) for (int j = 0; j < 4; j++) {
#define PUT(k, x) *(v8_at *)(u + (k) * u_step + (c + j) * ldu) = (v8_at)(x)
                PUT(0, a[j]);
                DERIVE(v8, a[j], b[j], d[j], PUT);
                PUT(5, d[j]);
#undef PUT
            }
        }
        for (; c < columns; c++)
            for (int k = 0; k < 8; k++)
                derive_one(w + k * ldw + c, w_step, u + c * ldu + k, u_step);
    }
    for (; r < rows; r++, w += ldw, u++)
        for (c = 0; c < columns; c++)
            derive_one(w + c, w_step, u + c * ldu, u_step);
}

static NOINLINE void join(const float *m, ptrdiff_t m_step, const float *bias, int width, float *y, ptrdiff_t ld,
                          int count)
{
    for (int c = 0; c < width; c += W) {
        vf u[6], to[4];
        UNROLL(6) for (int k = 0; k < 6; k++)
            u[k] = load(m + k * m_step + c);
        vf from = load(bias + c), p = u[1] + u[2], q = u[1] - u[2], r = u[3] + u[4], z = u[3] - u[4];
        to[0] = u[0] + p + r + from;
        to[1] = q + 2.0f * z + from;
        to[2] = p + 4.0f * r + from;
        to[3] = q + 8.0f * z + u[5] + from;
        for (int k = 0; k < count; k++)
            store(y + k * ld + c, to[k]);
    }
}

/* ---- the same for the gradient of the weight: dg = G^T ((A dy) (B^T d)) ---- */

static NOINLINE void unjoin(const float *const *y, int width, float *d, ptrdiff_t d_step)
{
    for (int c = 0; c < width; c += W) {
        vf a = load(y[0] + c), b = load(y[1] + c), e = load(y[2] + c), f = load(y[3] + c);
        vf p = a + e, q = b + f, r = a + 4.0f * e, z = 2.0f * b + 8.0f * f;
        vf to[6] = { a, p + q, p - q, r + z, r - z, f };
        UNROLL(6) for (int k = 0; k < 6; k++)
            store(d + k * d_step + c, to[k]);
    }
}

static NOINLINE void fold(const float *u, ptrdiff_t u_step, int width, float *w, ptrdiff_t w_step)
{
    for (int c = 0; c < width; c += W) {
        vf v[6];
        UNROLL(6) for (int k = 0; k < 6; k++)
            v[k] = load(u + k * u_step + c);
        vf p = v[1] + v[2], q = v[1] - v[2], r = v[3] + v[4], z = v[3] - v[4];
        store(w + c, v[0] + p + r);
        store(w + w_step + c, q + 2.0f * z);
        store(w + 2 * w_step + c, p + 4.0f * r + v[5]);
    }
}

/* Blocks of 8 x 4, 4 x 4, and what is left. */
static NOINLINE void turn(const float *a, ptrdiff_t lda, int rows, int columns, float *b, ptrdiff_t ldb)
{
    int r = 0, c;
    for (; r + 8 <= rows; r += 8, a += 8 * lda, b += 8) {
        for (c = 0; c + 4 <= columns; c += 4) {
            v8 x[4];
            columns_of(a + c, lda, x);
            UNROLL(4) for (int k = 0; k < 4; k++)
                *(v8_at *)(b + (c + k) * ldb) = (v8_at)x[k];
        }
        for (; c < columns; c++)
            for (int k = 0; k < 8; k++)
                b[c * ldb + k] = a[k * lda + c];
    }
    for (; r + 4 <= rows; r += 4, a += 4 * lda, b += 4) {
        for (c = 0; c + 4 <= columns; c += 4) {
            v4 x[4];
            for (int k = 0; k < 4; k++)
                x[k] = (v4)*(const v4_at *)(a + k * lda + c);
            v4 p = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5), q = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
            v4 s = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7), t = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
            *(v4_at *)(b + c * ldb) = (v4_at)__builtin_shufflevector(p, q, 0, 1, 4, 5);
            *(v4_at *)(b + (c + 1) * ldb) = (v4_at)__builtin_shufflevector(p, q, 2, 3, 6, 7);
            *(v4_at *)(b + (c + 2) * ldb) = (v4_at)__builtin_shufflevector(s, t, 0, 1, 4, 5);
            *(v4_at *)(b + (c + 3) * ldb) = (v4_at)__builtin_shufflevector(s, t, 2, 3, 6, 7);
        }
        for (; c < columns; c++)
            for (int k = 0; k < 4; k++)
                b[c * ldb + k] = a[k * lda + c];
    }
    for (; r < rows; r++, a += lda, b++)
        for (c = 0; c < columns; c++)
            b[c * ldb] = a[c];
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
    TEXT(KW_ISA), { { WIDE, 3 * W, tile_wide, sum_wide }, { ROWS, 2 * W, tile_narrow, sum_narrow } }, ROWS, 2 * W,
    tile_weights, tile_dense, gather, spread, derive, derive_turned, join, unjoin, fold, turn,
};
