/*
 * update8.c - AdamW for little memory: weights in bf16 that are rounded by chance, moments of one byte.
 *
 * Block-wise dynamic quantisation (Dettmers et al. 2022, arXiv:2110.02861): each block of 256 numbers is divided by its
 * largest magnitude, and what remains goes to the nearest of 256 values. Decade i = 0..6 reaches from 10^(i-7) to
 * 10^(i-6) and has N_i values in the middles of equal cells, N_i = 2^i of either sign, or 2^(i+1) above zero:
 *
 *      10^(i-6) (0.1 + 0.9 (cell + 1/2) / N_i)         and besides them 0 and 1
 *
 * With j counting from the smallest value, j + 1 = 2^i + cell (signed) or j + 2 = 2^(i+1) + cell: as a float its
 * exponent is the decade and its fraction the place in it, so no table is searched. Codes stand in the order of values:
 * signed 0..126 below zero, 127 zero, 128..254 above, 255 one; unsigned 0 zero, 1..254, 255 one.
 *
 * A second moment above zero never becomes zero: what divides by it would explode.
 */
#include "simd.h"

enum { BLOCK = 256, DECADES = 7 };

/* By decade; the eighth is for vectors of eight. */
static const float power[8] = { 1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1, 1 };
static const float inverse_power[8] = { 1e6f, 1e5f, 1e4f, 1e3f, 1e2f, 1e1f, 1, 1 };

/* ---- codes ------------------------------------------------------------------------------------------------------- */

INLINE vf as_float(vi x) { return __builtin_convertvector(x, vf); }
INLINE vi as_int(vf x) { return __builtin_convertvector(x, vi); }

/* table[i] of eight numbers */
INLINE vf pick(const float *table, vi i)
{
#if defined KW_ISA_avx512
    return (vf)_mm512_permutexvar_ps((__m512i)i, _mm512_broadcast_f32x8(_mm256_loadu_ps(table)));
#elif defined KW_ISA_avx2
    return (vf)_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)i);
#else
    vf y;
    for (int k = 0; k < W; k++)
        y[k] = table[i[k]];
    return y;
#endif
}

INLINE vi or_int(vm m, int a, vi b) { return (vi)v_choose(m, (vf)(a - (vi){ 0 }), (vf)b); }

/* The values of codes; two: of either sign. */
INLINE vf decode(vi code, const bool two)
{
    vf c = as_float(code), zero = v_set(two ? 127 : 0), rank = v_abs(c - zero);
    vu f = (vu)(rank + (two ? 0.5f : 1.5f));           /* 2^i + cell + 1/2, or twice 2^i: see above */
    vi decade = (vi)(f >> 23) - (two ? 127 : 128);
    vf place = (vf)((f & 0x7fffffu) | 0x3f800000u) - 1.0f;
    vf y = pick(power, (vi)v_choose(v_lt(rank, v_set(0.5f)), v_set(0), (vf)decade)) * (0.9f * place + 0.1f);
    y = v_choose(v_lt(rank, v_set(0.5f)), v_set(0), y);
    y = v_choose(v_lt(c, zero), -y, y);
    return v_choose(v_gt(c, v_set(254.5f)), v_set(1), y);
}

/*
 * The nearest code. Between decades i and i + 1 the middle of the neighbours is 10^(i-6) (1 + 0.9 / N_i), before the
 * first value 10^-6 (0.1 + 0.45 / N_0) / 2, before one 1 - 0.225 / N_6.
 */
INLINE vi encode(vf x, const bool two)
{
    vf a = v_abs(x);
    vi decade = { 0 };
    UNROLL(8) for (int i = 1; i < DECADES; i++) {
        const float n = (float)(1 << (two ? i - 1 : i));
        decade = or_int(v_gt(a, v_set(power[i - 1] * (1 + 0.9f / n))), i, decade);
    }
    vf first = (vf)((decade + (two ? 127 : 128)) << 23);                 /* N of the decade */
    vf cell = v_max(v_set(0), v_min(first - 0.5f, (a * pick(inverse_power, decade) - 0.1f) * (first * (1 / 0.9f))));
    vi rank = as_int(first + cell) - (two ? 0 : 1);
    rank = or_int(v_gt(a, v_set(1 - 0.225f / (two ? 64 : 128))), two ? 128 : 255, rank);
    if (two) {
        rank = or_int(v_lt(a, v_set(0.275e-6f)), 0, rank);
        vf below = v_max(-as_float(rank), v_set(-127));                  /* there is no minus one */
        return as_int(v_choose(v_lt(x, v_set(0)), below, as_float(rank))) + 127;
    }
    return (vi)v_choose(v_gt(a, v_set(0)), (vf)rank, v_set(0));
}

typedef uint8_t vb __attribute__((vector_size(W)));

/* W bytes, or as many as are left. */
INLINE vi load_codes(const uint8_t *p, int64_t left)
{
    vb c = { 0 };
    if (__builtin_expect(left >= W, 1))
        memcpy(&c, p, W);
    else
        memcpy(&c, p, (size_t)left);
    return __builtin_convertvector(c, vi);
}
INLINE void store_codes(uint8_t *p, vi code, int64_t left)
{
    const vb c = __builtin_convertvector(code, vb);
    if (__builtin_expect(left >= W, 1))
        memcpy(p, &c, W);
    else
        memcpy(p, &c, (size_t)left);
}

INLINE void expand(const uint8_t *code, float scale, float *x, int64_t n, const bool two)
{
    for (int64_t i = 0; i < n; i += W)
        v_put(KW_F32, x, i, decode(load_codes(code + i, n - i), two) * scale, n - i);
}

/* The largest magnitude, or a NaN if there is one. */
INLINE float largest(const float *x, int64_t n)
{
    vf most = v_set(0);
    for (int64_t i = 0; i < n; i += W) {
        vf a = v_abs(v_get(KW_F32, x, i, n - i));
        most = v_choose(v_nan(most), most, v_choose(v_lt(a, most), most, a));
    }
    float y = most[0];
    for (int k = 1; k < W; k++)
        y = y != y || most[k] < y ? y : most[k];
    return y;
}

/* Codes of n numbers, and their scale. A block with a NaN becomes one of NaN, so that it is seen. */
INLINE float compress(uint8_t *code, const float *x, int64_t n, const bool two)
{
    const float most = largest(x, n);
    const float inverse = most > 0 ? 1 / most : 0;
    if (!(most > 0 && inverse < __builtin_inff())) {    /* nothing, less than 3e-39, or no number at all */
        memset(code, two ? 127 : 0, (size_t)n);
        return most > 0 || most != most ? most : 0;
    }
    for (int64_t i = 0; i < n; i += W)
        store_codes(code + i, encode(v_get(KW_F32, x, i, n - i) * inverse, two), n - i);
    return most;
}

void ISA(compress)(bool two, const float *x, uint8_t *code, float *scale, int64_t n)
{
    for (int64_t at = 0; at < n; at += BLOCK)
        scale[at / BLOCK] = two ? compress(code + at, x + at, KW_MIN(n - at, BLOCK), true)
                                : compress(code + at, x + at, KW_MIN(n - at, BLOCK), false);
}

void ISA(expand)(bool two, const uint8_t *code, const float *scale, float *x, int64_t n)
{
    for (int64_t at = 0; at < n; at += BLOCK)
        if (two)
            expand(code + at, scale[at / BLOCK], x + at, KW_MIN(n - at, BLOCK), true);
        else
            expand(code + at, scale[at / BLOCK], x + at, KW_MIN(n - at, BLOCK), false);
}

/* ---- weights in bf16, rounded by chance -------------------------------------------------------------------------- */

/*
 * 32 random bits for number i of a step: a mixing of the index with both words of the key (two rounds of the usual
 * multiply-and-shift finaliser). Part of what a resumed run repeats.
 */
INLINE vu mix(vu x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}
INLINE vu random_bits(uint64_t key, int64_t index)
{
    vu lane;
    UNROLL(16) for (int k = 0; k < W; k++)
        lane[k] = (uint32_t)k;
    const uint64_t at = (uint64_t)index;
    return mix(mix((lane + (uint32_t)at) ^ (uint32_t)key) ^ ((uint32_t)(key >> 32) + (uint32_t)(at >> 32) * 0x9e3779b9u));
}

/* Up with the probability that what is cut off has of a whole step: right on average. */
INLINE vf round_by_chance(vf x, vu bits)
{
    vu u = (vu)x, r = (u + (bits >> 16)) & 0xffff0000u;
    const vu magnitude = u & 0x7fffffffu;
    vm strange = v_gt((vf)magnitude, v_set(3.3e38f));                    /* would pass the largest number */
    return v_choose(v_nan(x), x, v_choose(strange, (vf)(u & 0xffff0000u), (vf)r));
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

typedef struct { float clip, keep, b1, b2, r1, r2, root, eps, step; } terms;

static float rest(float b) { return (float)((double)(int64_t)((1 - (double)b) * 1e7 + 0.5) / 1e7); }   /* see update.c */

static terms terms_of(const kw_adamw *o)
{
    return (terms){
        .clip = o->clip, .keep = (float)(1 - (double)o->rate * (double)o->decay), .b1 = o->beta1, .b2 = o->beta2,
        .r1 = rest(o->beta1), .r2 = rest(o->beta2), .root = (float)__builtin_sqrt((double)o->bias2), .eps = o->eps,
        .step = (float)((double)o->rate / (double)o->bias1),
    };
}

/* As update.c, number for number; p of type t. */
INLINE void move(const terms *k, const kw_dtype t, void *p, const float *grad, float *m, float *v, int64_t from, int64_t n,
                 uint64_t key, int64_t index)
{
    for (int64_t i = 0; i < n; i += W) {
        const int64_t left = n - i;
        vf g = v_get(KW_F32, grad, from + i, left) * k->clip;
        vf mi = v_get(KW_F32, m, i, left), vi_ = v_get(KW_F32, v, i, left);
        mi = mi + k->r1 * (g - mi);
        vi_ = k->b2 * vi_ + k->r2 * g * g;
        vf denominator = v_sqrt(vi_) / k->root + k->eps;
        vf x = v_get(t, p, from + i, left) * k->keep - k->step * (mi / denominator);
        if (t == KW_BF16)
            x = round_by_chance(x, random_bits(key, index + from + i));
        v_put(t, p, from + i, x, left);
        v_put(KW_F32, m, i, mi, left);
        v_put(KW_F32, v, i, vi_, left);
    }
}

INLINE void move_as(const terms *k, kw_dtype t, void *p, const float *grad, float *m, float *v, int64_t from, int64_t n,
                    uint64_t key, int64_t index)
{
    if (t == KW_F32)
        move(k, KW_F32, p, grad, m, v, from, n, key, index);
    else
        move(k, KW_BF16, p, grad, m, v, from, n, key, index);
}

void ISA(adamw_bf16)(const kw_adamw *o, uint16_t *p, const float *g, float *m, float *v, int64_t n, uint64_t key,
                     int64_t index)
{
    const terms k = terms_of(o);
    FOR_PIECES(n, CHUNK, from, to,
               move(&k, KW_BF16, p, g, m + from, v + from, from, to - from, key, index));
}

static NOINLINE void block8(const terms *k, kw_dtype t, void *p, const float *g, const kw_moments8 *s, int64_t from,
                            int64_t to, uint64_t key, int64_t index)
{
    float m[BLOCK], v[BLOCK];
    for (; from < to; from += BLOCK) {
        const int64_t n = KW_MIN(BLOCK, to - from), block = from / BLOCK;
        expand(s->m + from, s->m_scale[block], m, n, true);
        expand(s->v + from, s->v_scale[block], v, n, false);
        move_as(k, t, p, g, m, v, from, n, key, index);
        s->m_scale[block] = compress(s->m + from, m, n, true);
        s->v_scale[block] = compress(s->v + from, v, n, false);
    }
}

void ISA(adamw8)(const kw_adamw *o, kw_dtype t, void *p, const float *g, const kw_moments8 *s, int64_t n, uint64_t key,
                 int64_t index)
{
    const terms k = terms_of(o);
    FOR_PIECES(n, CHUNK, from, to, block8(&k, t, p, g, s, from, to, key, index));
}
