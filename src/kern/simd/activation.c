/*
 * activation.c - SiLU, the three GELUs, sigmoid, GEGLU, and their gradients.
 *
 *     gelu(x) = x Phi(x)      gelu'(x) = Phi(x) + x phi(x)      phi = Phi' = exp(-x^2/2) / sqrt(2 pi)
 *
 * Phi(-a) for a >= 0 comes from one exponential and one reciprocal, t = 1 / (1 + 0.35 a):
 *
 *     Phi(-a) = exp(-a^2/2) (c1 t + c2 t^2 + ... + c9 t^9),   relative error 3.2e-8 on [0, 14] (own minimax fit),
 *
 * so the small tail values keep their relative accuracy, which 1 + erf would lose.
 */
#include "simd.h"

/* What h = a^2 lost to rounding: the exponential would turn it into a relative error of h 6e-8. */
INLINE vf square_rest(vf a, vf h)
{
#if defined KW_ISA_avx512
    return (vf)_mm512_fmsub_ps((__m512)a, (__m512)a, (__m512)h);
#elif defined KW_ISA_avx2
    return (vf)_mm256_fmsub_ps((__m256)a, (__m256)a, (__m256)h);        /* one rounding, at the end */
#else
    vf top = (vf)((vu)a & 0xfffff000u);   /* 12 bits: top^2 is exact */
    return (top * top - h) + (a - top) * (a + top);
#endif
}

/* Phi(x), and e = exp(-x^2/2). Beyond 20 both are constant in f32. */
INLINE vf normal_cdf(vf x, vf *e)
{
    vf a = v_min(v_set(20), v_abs(x)), t = 1.0f / (1.0f + a * 0.35f), h = a * a;
    *e = v_exp(h * -0.5f);
    *e = *e - *e * (square_rest(a, h) * 0.5f);
    vf p = v_set(-0.0291454824f) * t + v_set(0.143969734f);
    p = p * t + v_set(-0.255710637f);
    p = p * t + v_set(0.159170526f);
    p = p * t + v_set(-0.023107667f);
    p = p * t + v_set(0.105507223f);
    p = p * t + v_set(0.119833032f);
    p = p * t + v_set(0.139861851f);
    p = p * t + v_set(0.139621405f);
    p = p * t * *e;
    return v_choose(v_gt(x, v_set(0)), 1.0f - p, p);
}

/*  tanh form: x (1 + tanh u) / 2 = x sigmoid(2 u),  u = sqrt(2/pi) (x + 0.044715 x^3)  */
INLINE vf tanh_argument(vf x) { return 1.5957691216f * x * (1.0f + 0.044715f * x * x); }

INLINE vf value(const kw_unary f, vf x)
{
    vf e;
    switch (f) {
    case KW_SILU: return x * v_sigmoid(x);
    case KW_GELU: return x * normal_cdf(x, &e);
    case KW_QUICK_GELU: return x * v_sigmoid(1.702f * x);
    case KW_GELU_TANH: return x * v_sigmoid(tanh_argument(x));
    default: return v_sigmoid(x);
    }
}

INLINE vf gelu_slope(vf x)
{
    vf e, p = normal_cdf(x, &e);
    vf a = v_max(v_set(-20), v_min(v_set(20), x));      /* infinity times zero */
    return a * e * 0.39894228f + p;
}

INLINE vf slope(const kw_unary f, vf x)
{
    vf s, r, a = v_max(v_set(-100), v_min(v_set(100), x));      /* infinity times zero, again */
    switch (f) {
    case KW_SILU:
        s = v_sigmoid_rest(x, &r);
        return s * (1.0f + a * r);
    case KW_GELU:
        return gelu_slope(x);
    case KW_QUICK_GELU:
        s = v_sigmoid_rest(1.702f * x, &r);
        return s * (1.0f + 1.702f * a * r);
    case KW_GELU_TANH:
        s = v_sigmoid_rest(tanh_argument(x), &r);
        return s * (1.0f + a * r * 1.5957691216f * (1.0f + 0.134145f * a * a));
    default:
        s = v_sigmoid_rest(x, &r);
        return s * r;
    }
}

INLINE void unary_piece(const kw_dtype t, const kw_unary f, const void *x, void *y, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i += W)
        v_put(t, y, i, value(f, v_get(t, x, i, to - i)), to - i);
}

INLINE void unary_grad_piece(const kw_dtype t, const kw_unary f, const void *x, const void *dy, void *dx, int64_t from,
                             int64_t to)
{
    for (int64_t i = from; i < to; i += W)
        v_put(t, dx, i, v_get(t, dy, i, to - i) * slope(f, v_get(t, x, i, to - i)), to - i);
}

/* One loop for each function, chosen once per piece. */
#define BY_FUNCTION(call) \
    switch (f) { \
    case KW_SILU: call(KW_SILU); break; \
    case KW_GELU: call(KW_GELU); break; \
    case KW_QUICK_GELU: call(KW_QUICK_GELU); break; \
    case KW_GELU_TANH: call(KW_GELU_TANH); break; \
    default: call(KW_SIGMOID); break; \
    }

NOINLINE static void unary_any(kw_dtype t, kw_unary f, const void *x, void *y, int64_t from, int64_t to)
{
#define CALL(which) TYPED(t, unary_piece, which, x, y, from, to)
    BY_FUNCTION(CALL)
#undef CALL
}

NOINLINE static void unary_grad_any(kw_dtype t, kw_unary f, const void *x, const void *dy, void *dx, int64_t from,
                                    int64_t to)
{
#define CALL(which) TYPED(t, unary_grad_piece, which, x, dy, dx, from, to)
    BY_FUNCTION(CALL)
#undef CALL
}

void ISA(unary)(kw_dtype t, kw_unary f, const void *x, void *y, int64_t n)
{
    FOR_PIECES(n, CHUNK, from, to, unary_any(t, f, x, y, from, to));
}

void ISA(unary_grad)(kw_dtype t, kw_unary f, const void *x, const void *dy, void *dx, int64_t n)
{
    FOR_PIECES(n, CHUNK, from, to, unary_grad_any(t, f, x, dy, dx, from, to));
}

/* ---- GEGLU ------------------------------------------------------------------------------------------------ */

INLINE void geglu_rows(const kw_dtype t, const void *x, void *y, int c, int64_t from, int64_t to)
{
    for (int64_t r = from; r < to; r++)
        for (int i = 0; i < c; i += W) {
            const ptrdiff_t v = 2 * r * c + i, g = v + c;
            v_put(t, y, r * c + i, v_get(t, x, v, c - i) * value(KW_GELU, v_get(t, x, g, c - i)), c - i);
        }
}

/*  d value = dy gelu(gate),  d gate = dy value gelu'(gate)  */
INLINE void geglu_grad_rows(const kw_dtype t, const void *x, const void *dy, void *dx, int c, int64_t from, int64_t to)
{
    for (int64_t r = from; r < to; r++)
        for (int i = 0; i < c; i += W) {
            const ptrdiff_t at = 2 * r * c + i;
            vf v = v_get(t, x, at, c - i), g = v_get(t, x, at + c, c - i), d = v_get(t, dy, r * c + i, c - i);
            vf e, p = normal_cdf(g, &e);
            vf a = v_max(v_set(-20), v_min(v_set(20), g));
            v_put(t, dx, at, d * g * p, c - i);
            v_put(t, dx, at + c, d * v * (a * e * 0.39894228f + p), c - i);
        }
}

void ISA(geglu)(kw_dtype t, const void *x, void *y, int64_t rows, int c)
{
    FOR_PIECES(rows, KW_MAX(1, CHUNK / 2 / c), from, to, TYPED(t, geglu_rows, x, y, c, from, to));
}

void ISA(geglu_grad)(kw_dtype t, const void *x, const void *dy, void *dx, int64_t rows, int c)
{
    FOR_PIECES(rows, KW_MAX(1, CHUNK / 2 / c), from, to, TYPED(t, geglu_grad_rows, x, dy, dx, c, from, to));
}
