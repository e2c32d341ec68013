/*
 * vec.h - one vector of W floats for every instruction set, and the few idioms the kernels are made of.
 *
 * Arithmetic is that of GCC's vector extensions (a * b + c contracts to a fused multiply-add where there is one); only
 * what these cannot say is an intrinsic. The scalar build uses no intrinsic at all. A NaN survives every function here.
 * The build for KW_ISA_avx512_bf16 has KW_ISA_avx512 too: it differs where dot products of bf16 are used.
 */
#ifndef KW_SIMD_VEC_H
#define KW_SIMD_VEC_H

#include "base/base.h"

#include <string.h>
#if defined KW_ISA_avx2 || defined KW_ISA_avx512
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))      /* a hot loop nest of its own: gcc then keeps the registers for it */
#define PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define UNROLL(n) PRAGMA(clang loop unroll(full))
#else
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif

#if defined KW_ISA_avx512
enum { W = 16 };
#elif defined KW_ISA_avx2
enum { W = 8 };
#else
enum { W = 4 };
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef uint16_t vh __attribute__((vector_size(2 * W)));
typedef float vf_at __attribute__((vector_size(4 * W), aligned(4), may_alias));         /* at any address */
typedef uint16_t vh_at __attribute__((vector_size(2 * W), aligned(2), may_alias));

INLINE vf v_set(float x) { return x - (vf){ 0 }; }
INLINE vu v_set_u(uint32_t x) { return x - (vu){ 0 }; }

/* ---- comparisons and choice ---------------------------------------------------------------------- */

#if defined KW_ISA_avx512
typedef __mmask16 vm;
INLINE vm v_gt(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
INLINE vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
INLINE vm v_nan(vf a) { return _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q); }
INLINE bool v_any(vm m) { return m != 0; }
INLINE vf v_choose(vm m, vf a, vf b) { return (vf)_mm512_mask_mov_ps((__m512)b, m, (__m512)a); }
INLINE vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vf v_round(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf v_ceil(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
INLINE vf v_sqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
#elif defined KW_ISA_avx2
typedef vi vm;
INLINE vm v_gt(vf a, vf b) { return (vm)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ); }
INLINE vm v_lt(vf a, vf b) { return (vm)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ); }
INLINE vm v_nan(vf a) { return (vm)_mm256_cmp_ps((__m256)a, (__m256)a, _CMP_UNORD_Q); }
INLINE bool v_any(vm m) { return _mm256_movemask_ps((__m256)m) != 0; }
INLINE vf v_choose(vm m, vf a, vf b) { return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m); }
/* As the instructions: the second operand when either is a NaN. */
INLINE vf v_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf v_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vf v_round(vf x) { return (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf v_ceil(vf x) { return (vf)_mm256_ceil_ps((__m256)x); }
INLINE vf v_sqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
#else
typedef vi vm;
INLINE vm v_gt(vf a, vf b) { return (vm)(a > b); }
INLINE vm v_lt(vf a, vf b) { return (vm)(a < b); }
INLINE vm v_nan(vf a) { return (vm)(a != a); }
INLINE bool v_any(vm m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
INLINE vf v_choose(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
INLINE vf v_max(vf a, vf b) { return v_choose(v_gt(a, b), a, b); }
INLINE vf v_min(vf a, vf b) { return v_choose(v_lt(a, b), a, b); }
/* |x| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction. */
INLINE vf v_round(vf x)
{
    return x + v_set(12582912.0f) - v_set(12582912.0f);
}
INLINE vf v_ceil(vf x) { vf r = v_round(x); return v_choose(v_lt(r, x), r + 1.0f, r); }
INLINE vf v_sqrt(vf x) { UNROLL(4) for (int i = 0; i < W; i++) x[i] = __builtin_sqrtf(x[i]); return x; }
#endif

INLINE vf v_abs(vf x) { return (vf)((vu)x & 0x7fffffffu); }
INLINE float v_sum(vf x)                  /* in a fixed tree */
{
    for (int n = W / 2; n; n /= 2)
        UNROLL(8) for (int i = 0; i < n; i++)
            x[i] += x[i + n];
    return x[0];
}

/* ---- loads and stores of F32, BF16, F16 ------------------------------------------------------------ */

INLINE vu v_widen(vh h)
{
#if defined KW_ISA_avx512
    return (vu)_mm512_cvtepu16_epi32((__m256i)h);
#elif defined KW_ISA_avx2
    return (vu)_mm256_cvtepu16_epi32((__m128i)h);
#else
    return __builtin_convertvector(h, vu);
#endif
}
INLINE vh v_narrow(vu u)                  /* values below 2^16 */
{
#if defined KW_ISA_avx512
    return (vh)_mm512_cvtepi32_epi16((__m512i)u);
#elif defined KW_ISA_avx2
    return (vh)_mm_packus_epi32(_mm256_castsi256_si128((__m256i)u), _mm256_extracti128_si256((__m256i)u, 1));
#else
    return __builtin_convertvector(u, vh);
#endif
}

INLINE vf v_of_bf16(vh h) { return (vf)(v_widen(h) << 16); }
INLINE vh v_to_bf16(vf x)                 /* to nearest even; a NaN stays a NaN */
{
    vu u = (vu)x, r = (u + 0x7fffu + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
    return v_narrow((vu)v_choose(v_nan(x), (vf)nan, (vf)r));
}

INLINE vf v_of_f16(vh h)
{
#if defined KW_ISA_avx512
    return (vf)_mm512_cvtph_ps((__m256i)h);
#elif defined KW_ISA_avx2
    return (vf)_mm256_cvtph_ps((__m128i)h);
#else
    vf x = { 0 };
    for (int i = 0; i < W; i++)
        x[i] = kw_f16_to_f32(h[i]);
    return x;
#endif
}
INLINE vh v_to_f16(vf x)
{
#if defined KW_ISA_avx512
    return (vh)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined KW_ISA_avx2
    return (vh)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    vh h = { 0 };
    for (int i = 0; i < W; i++)
        h[i] = kw_f32_to_f16(x[i]);
    return h;
#endif
}

INLINE vf v_of_i8(const int8_t *p)
{
#if defined KW_ISA_avx512
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
#elif defined KW_ISA_avx2
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
#else
    vf x = { 0 };
    for (int i = 0; i < W; i++)
        x[i] = p[i];
    return x;
#endif
}

INLINE ptrdiff_t v_bytes(const kw_dtype t) { return t == KW_F32 ? 4 : t == KW_I8 ? 1 : 2; }

/* W values of type t from element i on; t is a constant wherever this is used. KW_I8: its codes as they are. */
INLINE vf v_load(const kw_dtype t, const void *p, ptrdiff_t i)
{
    if (t == KW_F32)
        return (vf)*(const vf_at *)((const float *)p + i);
    if (t == KW_I8)
        return v_of_i8((const int8_t *)p + i);
    vh h = (vh)*(const vh_at *)((const uint16_t *)p + i);
    return t == KW_BF16 ? v_of_bf16(h) : v_of_f16(h);
}
INLINE void v_store(const kw_dtype t, void *p, ptrdiff_t i, vf x)
{
    if (t == KW_F32)
        *(vf_at *)((float *)p + i) = (vf_at)x;
    else
        *(vh_at *)((uint16_t *)p + i) = (vh_at)(t == KW_BF16 ? v_to_bf16(x) : v_to_f16(x));
}

/* The first `left` < W values only; the other lanes read as zero. */
INLINE vf v_load_some(const kw_dtype t, const void *p, ptrdiff_t i, int64_t left)
{
    ptrdiff_t e = v_bytes(t);
    float buffer[W] = { 0 };
    memcpy(buffer, (const char *)p + i * e, (size_t)(left * e));
    return v_load(t, buffer, 0);
}
INLINE void v_store_some(const kw_dtype t, void *p, ptrdiff_t i, vf x, int64_t left)
{
    size_t e = t == KW_F32 ? 4 : 2;
    float buffer[W];
    v_store(t, buffer, 0, x);
    memcpy((char *)p + i * (ptrdiff_t)e, buffer, (size_t)left * e);
}

/* As many as are left, up to W. */
INLINE vf v_get(const kw_dtype t, const void *p, ptrdiff_t i, int64_t left)
{
    return __builtin_expect(left >= W, 1) ? v_load(t, p, i) : v_load_some(t, p, i, left);
}
INLINE void v_put(const kw_dtype t, void *p, ptrdiff_t i, vf x, int64_t left)
{
    if (__builtin_expect(left >= W, 1))
        v_store(t, p, i, x);
    else
        v_store_some(t, p, i, x, left);
}
INLINE float get_one(kw_dtype t, const void *p, ptrdiff_t i)
{
    return t == KW_F32 ? ((const float *)p)[i] : kw_bf16_to_f32(((const uint16_t *)p)[i]);
}

/* ---- exponentials ------------------------------------------------------------------------------------ */

/* 2^f on [-1/2, 1/2], degree 5, relative error 7.5e-8 */
INLINE vf v_exp2_fraction(vf f)
{
    vf p = v_set(1.32764564e-3f) * f + v_set(9.67554121e-3f);
    p = p * f + v_set(5.55071332e-2f);
    p = p * f + v_set(2.40221197e-1f);
    p = p * f + v_set(6.93146967e-1f);
    return p * f + v_set(1);
}

/* x a, rounded to a whole number r: returns r, and what v_scale needs to multiply by 2^r. |r| < 2^22 */
INLINE vf v_whole(vf x, float a, vf *scale)
{
#if defined KW_ISA_avx512
    *scale = v_round(x * a);
    return *scale;
#else
    const float magic = 12582912.0f + 127;      /* no bits left for a fraction; exponent field in the low bits */
    *scale = x * a + magic;
    return *scale - magic;
#endif
}
INLINE vf v_scale(vf p, vf scale)
{
#if defined KW_ISA_avx512
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)scale);
#else
    return p * (vf)((vu)scale << 23);     /* r = -127 multiplies by 0, r = 128 by infinity */
#endif
}

#define LOG2E 1.44269504f                 /* as a float 1.93e-8 too small */

/* x LOG2E - r for the r of v_whole */
INLINE vf v_fraction(vf x, vf r)
{
#ifdef __FMA__
    return (x * LOG2E - r) + x * 1.92596299e-8f;        /* one rounding where multiply and add are fused */
#else
    return ((x - r * 0.693359375f) + r * 2.12194440e-4f) * LOG2E;    /* ln 2 in two parts: r times the first is exact */
#endif
}

/* Where e^x has left the range of floats on either side. */
#define EXP_LOW (W == 16 ? -110.0f : -88.0f)
#define EXP_HIGH (W == 16 ? 95.0f : 88.8f)

/* e^x, relative error 1.5e-7; 0 below -87.7, infinity above 88.4 */
INLINE vf v_exp(vf x)
{
    vf scale, c = v_min(v_set(EXP_HIGH), v_max(v_set(EXP_LOW), x)), r = v_whole(c, LOG2E, &scale);
    return v_scale(v_exp2_fraction(v_fraction(c, r)), scale);
}

/* 1 + e^-x: relative error of the exponential (1.5 + 0.2 |x|) 1e-7, without fused operations (1.5 + 0.9 |x|) 1e-7 */
INLINE vf v_sigmoid_below(vf x, vf *e)
{
    vf scale, r = v_whole(x, -LOG2E, &scale);
    *e = v_scale(v_exp2_fraction(x * -LOG2E - r), scale);
    return *e + 1.0f;
}

INLINE vf v_sigmoid(vf x)
{
    vf e;
    return 1.0f / v_sigmoid_below(v_min(v_set(-EXP_LOW), v_max(v_set(-EXP_HIGH), x)), &e);
}

/* s, and 1 - s without cancellation. */
INLINE vf v_sigmoid_rest(vf x, vf *rest)
{
    vf e, s = 1.0f / v_sigmoid_below(v_min(v_set(-EXP_LOW), v_max(v_set(-87), x)), &e);
    *rest = e * s;
    return s;
}

#endif
