/*
 * gemm_whole.c - products of whole numbers (see kern/gemm_whole.h), for AVX2: a tile of 6 x 16 sums of 32 bits in registers.
 *
 * Per step two numbers of the sum are taken at once: two vectors of B are read, six pairs of A read and spread, twelve
 * vpmaddwd (16 multiply-adds each, where a fused one of floats has 8) and twelve additions done. The loop is assembly:
 * 12 sums, 2 of B, a pair and a product are all 16 registers, and compilers spill a third of the sums (48 instead of
 * 81 G multiply-adds a second on Zen 3, where floats reach 50).
 */
#include "simd.h"

#ifdef KW_ISA_avx2
#include "kern/gemm_whole.h"

enum { ROWS = 6, WIDTH = 16 };

static const float least = 0x1p-100f;

/* ---- A: rows to whole numbers ------------------------------------------------------------------------------------ */

/* To the nearest, ties to even. */
INLINE __m256i sixteen(vf a, vf b)
{
    __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32((__m256)a), _mm256_cvtps_epi32((__m256)b));
    return _mm256_permute4x64_epi64(both, 0xd8);       /* packing goes by halves */
}

/* What is not finite makes the scale, and so the row of C, a NaN. */
INLINE float round_as(const kw_dtype t, const void *x, int64_t at, int64_t n, int most, int16_t *to)
{
    vf top = v_set(0), odd = v_set(0);
    for (int64_t i = 0; i < n; i += W) {
        vf v = v_get(t, x, at + i, n - i);
        top = v_max(top, v_abs(v));
        odd += v * 0.0f;
    }
    float largest = 0;
    for (int k = 0; k < W; k++)
        largest = top[k] > largest ? top[k] : largest;
    bool finite = v_sum(odd) == 0;
    float by = !finite || largest < least ? 0 : (float)most / largest;
    for (int64_t i = 0; i < n && finite; i += 2 * W) {
        __m256i whole = sixteen(v_get(t, x, at + i, n - i) * by,
                                n - i > W ? v_get(t, x, at + i + W, n - i - W) * by : v_set(0));
        memcpy(to + i, &whole, sizeof *to * (size_t)KW_MIN(2 * W, n - i));
    }
    return !finite ? __builtin_nanf("") : largest < least ? 0 : largest / (float)most;
}

static float round_row(kw_dtype t, const void *x, int64_t at, int64_t n, int most, int16_t *to)
{
    return t == KW_F32 ? round_as(KW_F32, x, at, n, most, to) : t == KW_BF16 ? round_as(KW_BF16, x, at, n, most, to)
         : round_as(KW_F16, x, at, n, most, to);
}

/* ---- B: a panel -------------------------------------------------------------------------------------------------- */

#define LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)

/* 8 x 8 pairs turned round by three perfect shuffles of the rows. */
INLINE void turn(vi *x)
{
    UNROLL(3) for (int n = 1; n < W; n *= 2) {
        vi y[W];
        UNROLL(4) for (int i = 0; i < W / 2; i++) {
            y[2 * i] = LOW(x[i], x[i + W / 2]);
            y[2 * i + 1] = HIGH(x[i], x[i + W / 2]);
        }
        UNROLL(8) for (int i = 0; i < W; i++)
            x[i] = y[i];
    }
}

static void pack_rest(const int8_t *b, int64_t k, int64_t n, int columns, int16_t *to)
{
    for (int64_t i = 0; i < n; i += 2)
        for (int j = 0; j < WIDTH; j++, to += 2) {
            to[0] = j < columns ? b[j * k + i] : 0;
            to[1] = j < columns && i + 1 < n ? b[j * k + i + 1] : 0;
        }
}

static void pack(const int8_t *b, int64_t k, int columns, int16_t *to)
{
    int64_t whole = k / 16 * 16;
    for (int64_t i = 0; i < whole; i += 16)
        UNROLL(2) for (int half = 0; half < 2; half++) {
            vi x[W];
            UNROLL(8) for (int j = 0; j < W; j++)
                x[j] = half * W + j < columns
                     ? (vi)_mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(b + (half * W + j) * k + i))) : (vi){ 0 };
            turn(x);
            UNROLL(8) for (int p = 0; p < W; p++)
                memcpy(to + i * WIDTH + p * 2 * WIDTH + half * 2 * W, &x[p], sizeof x[p]);
        }
    pack_rest(b + whole, k, k - whole, columns, to + whole * WIDTH);
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

#define ROW(at, p, q) \
    "vpbroadcastd " at ",%%ymm14\n vpmaddwd %%ymm12,%%ymm14,%%ymm15\n vpmaddwd %%ymm13,%%ymm14,%%ymm14\n" \
    " vpaddd %%ymm15,%%ymm" #p ",%%ymm" #p "\n vpaddd %%ymm14,%%ymm" #q ",%%ymm" #q "\n"
#define EACH_SUM(what) ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n " what "\n.endr\n"

/* Sums lie tile by tile: 6 x 16 of them together. */
static NOINLINE void tile(const int16_t *a, ptrdiff_t lda, const int16_t *b, int64_t pairs, bool add, int32_t *c)
{
    const int16_t *a3 = a + 3 * lda;
    ptrdiff_t row = lda * (ptrdiff_t)sizeof *a;
    if (!add)
        memset(c, 0, sizeof *c * ROWS * WIDTH);
    __asm__ volatile(
        EACH_SUM("vmovdqu 32*\\r(%5),%%ymm\\r")
        ".p2align 5\n1:\n vmovdqa (%1),%%ymm12\n vmovdqa 32(%1),%%ymm13\n"
        ROW("(%0)", 0, 1) ROW("(%0,%4)", 2, 3) ROW("(%0,%4,2)", 4, 5)
        ROW("(%3)", 6, 7) ROW("(%3,%4)", 8, 9) ROW("(%3,%4,2)", 10, 11)
        " add $64,%1\n add $4,%0\n add $4,%3\n dec %2\n jnz 1b\n"
        EACH_SUM("vmovdqu %%ymm\\r,32*\\r(%5)")
        : "+r"(a), "+r"(b), "+r"(pairs), "+r"(a3)
        : "r"(row), "r"(c)
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

/* ---- to C -------------------------------------------------------------------------------------------------------- */

INLINE void finish_as(const kw_dtype t, void *c, ptrdiff_t ldc, const int32_t *sums, const float *row_scale,
                      const float *scale, int rows, int columns, float alpha, float beta, const float *bias)
{
    for (int r = 0; r < rows; r++, sums += WIDTH)
        for (int i = 0; i < columns; i += W) {
            vi whole;
            memcpy(&whole, sums + i, sizeof whole);
            vf y = __builtin_convertvector(whole, vf) * (row_scale[r] * alpha) * v_get(KW_F32, scale, i, columns - i);
            if (bias)
                y += v_get(KW_F32, bias, i, columns - i);
            if (beta != 0)
                y += beta * v_get(t, c, r * ldc + i, columns - i);
            v_put(t, c, r * ldc + i, y, columns - i);
        }
}

static void finish(kw_dtype t, void *c, ptrdiff_t ldc, const int32_t *sums, const float *row_scale, const float *scale,
                   int rows, int columns, float alpha, float beta, const float *bias)
{
    TYPED(t, finish_as, c, ldc, sums, row_scale, scale, rows, columns, alpha, beta, bias);
}

extern const kw_gemm_whole_tile kw_gemm_whole_avx2;
const kw_gemm_whole_tile kw_gemm_whole_avx2 = { ROWS, WIDTH, round_row, pack, tile, finish };
#else
typedef int kw_nothing_here;              /* a file holds something */
#endif
