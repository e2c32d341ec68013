/*
 * gemm_tile.c - the innermost loops of matrix products (see kern/gemm_tile.h): ROWS x 2 vectors of sums in registers.
 *
 * Per step of the sum two vectors of B are read, ROWS numbers of A are read and spread, 2 ROWS multiply-adds done:
 * 6 x 2 of 8 floats fill the 16 registers of AVX2, 12 x 2 of 16 floats the 32 of AVX-512. Half a panel takes 12 rows of
 * one vector, so that there are sums enough to hide the latency of multiply-adds.
 * Sums run over the steps in order, whatever the tile: where a matrix is cut changes no bit.
 */
#include "simd.h"
#include "kern/gemm_tile.h"

#ifdef KW_ISA_avx512
enum { ROWS = 12 };
#else
enum { ROWS = 6 };
#endif
enum { HALF_ROWS = 12, WIDTH = 2 * W };

INLINE vf load(const float *p) { return (vf)*(const vf_at *)p; }
INLINE void store(float *p, vf x) { *(vf_at *)p = (vf_at)x; }

typedef struct { vf v[2][HALF_ROWS]; } sums;

INLINE void ask(kw_gemm_ahead *q)
{
    int64_t n = KW_MIN(q->each, q->left);
    q->left -= n;
    for (; n > 0; n--) {
        __builtin_prefetch(q->at + q->line * 64, 0, 2);
        if (++q->line == q->lines) {
            q->line = 0;
            q->at += q->ld;
        }
    }
}

/* R rows of C from row r on, V vectors each */
INLINE void tile(const int R, const int V, const bool by_columns, const kw_gemm_strip *s, int64_t r)
{
    const ptrdiff_t lda = s->lda, ldb = s->ldb, ldc = s->ldc;
    const float *b = s->b, *a0 = s->a + (by_columns ? r / ROWS * s->next : r * lda), *a1 = a0 + 3 * lda, *a2 = a1 + 3 * lda,
                *a3 = a2 + 3 * lda;
    const bool add = s->add;
    if (s->ahead)
        ask(s->ahead);
    float *c = s->c + r * ldc;
    sums t;
    UNROLL(12) for (int i = 0; i < R; i++)
        UNROLL(2) for (int j = 0; j < V; j++) {
            if (j * W % 16 == 0)          /* a line of the cache */
                __builtin_prefetch(c + i * ldc + j * W, 1);
            t.v[j][i] = v_set(0);
        }
    for (int64_t k = s->n; k > 0; k--, b += ldb) {
        vf w[2];
        UNROLL(2) for (int j = 0; j < V; j++)
            w[j] = load(b + j * W);
        UNROLL(12) for (int i = 0; i < R; i++) {
            const float *from = i < 3 ? a0 : i < 6 ? a1 : i < 9 ? a2 : a3;
            vf x = v_set(by_columns ? a0[i] : from[i % 3 * lda]);
            UNROLL(2) for (int j = 0; j < V; j++)
                t.v[j][i] += x * w[j];
        }
        if (by_columns)
            a0 += lda;
        else
            a0++, a1++, a2++, a3++;
    }
    if (s->bias)
        UNROLL(12) for (int i = 0; i < R; i++)
            UNROLL(2) for (int j = 0; j < V; j++)
                t.v[j][i] += load(s->bias + j * W);
    if (add)
        UNROLL(12) for (int i = 0; i < R; i++)
            UNROLL(2) for (int j = 0; j < V; j++)
                t.v[j][i] += load(c + i * ldc + j * W);
    UNROLL(12) for (int i = 0; i < R; i++)
        UNROLL(2) for (int j = 0; j < V; j++)
            store(c + i * ldc + j * W, t.v[j][i]);
}

/* All whole tiles, then one of the rows that are left. */
INLINE void tiles(const int most, const int V, const bool by_columns, const kw_gemm_strip *s)
{
    int64_t r = 0;
    for (; r + most <= s->m; r += most)
        tile(most, V, by_columns, s, r);
    switch (s->m - r) {
#define LEFT(n) case n: if (n < most) tile(n, V, by_columns, s, r); break;
    LEFT(1) LEFT(2) LEFT(3) LEFT(4) LEFT(5) LEFT(6) LEFT(7) LEFT(8) LEFT(9) LEFT(10) LEFT(11)
    default: break;
    }
}

static NOINLINE void whole_rows(const kw_gemm_strip *s) { tiles(ROWS, 2, false, s); }
static NOINLINE void whole_columns(const kw_gemm_strip *s) { tiles(ROWS, 2, true, s); }
static NOINLINE void half_rows(const kw_gemm_strip *s) { tiles(HALF_ROWS, 1, false, s); }
static NOINLINE void half_columns(const kw_gemm_strip *s)
{
    if (s->next == ROWS)
        tiles(HALF_ROWS, 1, true, s);
    else
        tiles(ROWS, 1, true, s);
}

static void strip(const kw_gemm_strip *s)
{
    if (s->half)
        (s->by_columns ? half_columns : half_rows)(s);
    else
        (s->by_columns ? whole_columns : whole_rows)(s);
}

/* ---- packing ---------------------------------------------------------------------------------------------- */

#if defined KW_ISA_avx512
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined KW_ISA_avx2
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

/* W x W numbers turned round: log2 W perfect shuffles of the rows. */
INLINE void turn(vf *x)
{
    UNROLL(4) for (int n = 1; n < W; n *= 2) {
        vf y[W];
        UNROLL(8) for (int i = 0; i < W / 2; i++) {
            y[2 * i] = LOW(x[i], x[i + W / 2]);
            y[2 * i + 1] = HIGH(x[i], x[i + W / 2]);
        }
        UNROLL(16) for (int i = 0; i < W; i++)
            x[i] = y[i];
    }
}

/* W columns of a panel, of which `columns` are there, from rows of B's memory. */
INLINE void pack_turned(const kw_dtype t, const void *b, ptrdiff_t ldb, int64_t n, int columns, float alpha,
                        const float *scale, float *to)
{
    float by[W];
    for (int j = 0; j < W; j++)
        by[j] = t == KW_I8 && j < columns ? scale[j] * alpha : alpha;
    for (int64_t i = 0; i < n; i += W, to += W * WIDTH) {
        vf x[W];
        int64_t left = n - i;
        UNROLL(16) for (int j = 0; j < W; j++)
            x[j] = j < columns ? v_get(t, b, j * ldb + i, left) * by[j] : v_set(0);
        turn(x);
        if (left >= W)
            UNROLL(16) for (int j = 0; j < W; j++)
                store(to + j * WIDTH, x[j]);
        else
            for (int j = 0; j < left; j++)
                store(to + j * WIDTH, x[j]);
    }
}

INLINE void pack_straight(const kw_dtype t, const void *b, ptrdiff_t ldb, int64_t n, int columns, float alpha,
                          const float *scale, float *to)
{
    if (columns == WIDTH) {
        for (int64_t i = 0; i < n; i++, to += WIDTH) {
            float by = t == KW_I8 ? scale[i] * alpha : alpha;
            store(to, v_load(t, b, i * ldb) * by);
            store(to + W, v_load(t, b, i * ldb + W) * by);
        }
        return;
    }
    int first = KW_MIN(columns, W), rest = columns - first;
    for (int64_t i = 0; i < n; i++, to += WIDTH) {
        float by = t == KW_I8 ? scale[i] * alpha : alpha;
        store(to, v_get(t, b, i * ldb, first) * by);
        store(to + W, rest ? v_get(t, b, i * ldb + W, rest) * by : v_set(0));
    }
}

INLINE void pack_as(const kw_dtype t, const void *b, ptrdiff_t ldb, bool transposed, int64_t n, int columns,
                    float alpha, const float *scale, float *to)
{
    if (!transposed) {
        pack_straight(t, b, ldb, n, columns, alpha, scale, to);
        return;
    }
    pack_turned(t, b, ldb, n, columns, alpha, scale, to);
    pack_turned(t, (const char *)b + W * ldb * v_bytes(t), ldb, n, columns - W, alpha, t == KW_I8 ? scale + W : NULL,
                to + W);
}

#define BY_TYPE(t, f, ...) \
    ((t) == KW_F32 ? f(KW_F32, __VA_ARGS__) : (t) == KW_BF16 ? f(KW_BF16, __VA_ARGS__) : f(KW_F16, __VA_ARGS__))
#define BY_TYPE_OR_CODES(t, f, ...) ((t) == KW_I8 ? f(KW_I8, __VA_ARGS__) : BY_TYPE(t, f, __VA_ARGS__))

static void pack(kw_dtype t, const void *b, ptrdiff_t ldb, bool transposed, int64_t n, int columns, float alpha,
                 const float *scale, float *to)
{
    BY_TYPE_OR_CODES(t, pack_as, b, ldb, transposed, n, columns, alpha, scale, to);
}

INLINE void widen_as(const kw_dtype t, const void *x, ptrdiff_t ldx, int64_t rows, int64_t n, const float *scale,
                     float *to, ptrdiff_t ldto)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i += W) {
            vf y = v_get(t, x, r * ldx + i, n - i);
            v_put(KW_F32, to, r * ldto + i, t == KW_I8 ? y * scale[r] : y, n - i);
        }
}

static void widen(kw_dtype t, const void *x, ptrdiff_t ldx, int64_t rows, int64_t n, const float *scale, float *to,
                  ptrdiff_t ldto)
{
    BY_TYPE_OR_CODES(t, widen_as, x, ldx, rows, n, scale, to, ldto);
}

INLINE float one(const kw_dtype t, const void *x, int64_t i)
{
    return t == KW_F16 ? kw_f16_to_f32(((const uint16_t *)x)[i]) : get_one(t, x, i);
}

INLINE void gather_as(const kw_dtype t, const void *x, ptrdiff_t ldx, int64_t m, int64_t n, float *to)
{
    int64_t whole = m / ROWS * ROWS;
    for (int64_t i = 0; i < n; i++, to += ROWS, x = (const char *)x + ldx * (ptrdiff_t)(t == KW_F32 ? 4 : 2)) {
        for (int64_t r = 0; r < whole; r += ROWS)
            if (t == KW_F32)
                memcpy(to + r * n, (const float *)x + r, ROWS * sizeof *to);
            else
                UNROLL(12) for (int64_t k = 0; k < ROWS; k++)
                    to[r * n + k] = one(t, x, r + k);
        for (int64_t r = whole; r < m; r++)
            to[whole * n + r - whole] = one(t, x, r);
    }
}

static void gather(kw_dtype t, const void *x, ptrdiff_t ldx, int64_t m, int64_t n, float *to)
{
    BY_TYPE(t, gather_as, x, ldx, m, n, to);
}

/* ---- to C -------------------------------------------------------------------------------------------------- */

INLINE void finish_as(const kw_dtype t, void *c, ptrdiff_t ldc, const float *x, ptrdiff_t ldx, int64_t rows, int64_t n,
                      float beta, const float *bias)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i += W) {
            vf y = v_get(KW_F32, x, r * ldx + i, n - i);
            if (bias)
                y += v_get(KW_F32, bias, i, n - i);
            if (beta != 0)
                y += beta * v_get(t, c, r * ldc + i, n - i);
            v_put(t, c, r * ldc + i, y, n - i);
        }
}

static void finish(kw_dtype t, void *c, ptrdiff_t ldc, const float *x, ptrdiff_t ldx, int64_t rows, int64_t n,
                   float beta, const float *bias)
{
    TYPED(t, finish_as, c, ldc, x, ldx, rows, n, beta, bias);
}

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
extern const kw_gemm_tile KW_PASTE(kw_gemm_tile, KW_ISA);
const kw_gemm_tile KW_PASTE(kw_gemm_tile, KW_ISA) = { TEXT(KW_ISA), ROWS, WIDTH, strip, pack, widen, gather, finish };
