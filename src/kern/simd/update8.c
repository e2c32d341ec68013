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

/* By the low three bits of 127 + decade; before the first decade lies zero. */
static const float power[8] = { 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1, 0, 1e-6f };
static const float inverse_power[8] = { 1e5f, 1e4f, 1e3f, 1e2f, 1e1f, 1, 0, 1e6f };

/* ---- codes ------------------------------------------------------------------------------------------------------- */

INLINE vf as_float(vi x) { return __builtin_convertvector(x, vf); }
INLINE vi as_int(vf x) { return __builtin_convertvector(x, vi); }

/* table[i & 7] of eight numbers */
INLINE vf pick(const float *table, vi i)
{
#if defined KW_ISA_avx512
    return (vf)_mm512_permutexvar_ps((__m512i)(i & 7), _mm512_broadcast_f32x8(_mm256_loadu_ps(table)));
#elif defined KW_ISA_avx2
    return (vf)_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)i);
#else
    vf y;
    for (int k = 0; k < W; k++)
        y[k] = table[i[k] & 7];
    return y;
#endif
}

INLINE vi where(vm m, int a, vi b) { return (vi)v_choose(m, (vf)(a - (vi){ 0 }), (vf)b); }
INLINE vi add_one(vm m, vi x)             /* where m is */
{
#if defined KW_ISA_avx512
    return (vi)_mm512_mask_add_epi32((__m512i)x, m, (__m512i)x, _mm512_set1_epi32(1));
#else
    return x - (vi)m;
#endif
}

/* The values of codes; two: of either sign. */
INLINE vf decode(vi code, const bool two)
{
    vf c = as_float(code), from_zero = c - (two ? 127.0f : 0.0f), rank = v_abs(from_zero);
    vu f = (vu)(rank + (two ? 0.5f : 1.5f));           /* 2^i + cell + 1/2, or twice 2^i: see above */
    vi decade = (vi)(f >> 23) - (two ? 0 : 1);          /* and 127 */
    vf place = (vf)((f & 0x7fffffu) | 0x3f800000u) - 1.0f;
    vf y = pick(power, decade) * (0.9f * place + 0.1f);
    if (two)
        y = (vf)((vu)y | ((vu)from_zero & 0x80000000u));
    return v_choose(v_gt(c, v_set(254.5f)), v_set(1), y);
}

/*
 * The nearest code. Between decades i and i + 1 the middle of the neighbours is 10^(i-6) (1 + 0.9 / N_i), before the
 * first value 10^-6 (0.1 + 0.45 / N_0) / 2, before one 1 - 0.225 / N_6.
 */
INLINE vi encode(vf x, const bool two)
{
    vf a = v_abs(x);
    vi decade = 127 - (vi){ 0 };                        /* and 127 */
    UNROLL(8) for (int i = 1; i < DECADES; i++) {
        const float n = (float)(1 << (two ? i - 1 : i));
        decade = add_one(v_gt(a, v_set(power[(126 + i) & 7] * (1 + 0.9f / n))), decade);
    }
    vf first = (vf)((decade + (two ? 0 : 1)) << 23);    /* N of the decade */
    vf cell = v_max(v_set(0), v_min(first - 0.5f, (a * pick(inverse_power, decade) - 0.1f) * (first * (1 / 0.9f))));
    vi rank = as_int(first + cell) - (two ? 0 : 1);
    rank = where(v_gt(a, v_set(1 - 0.225f / (two ? 64 : 128))), two ? 128 : 255, rank);
    if (two) {
        vi sign = (vi)x >> 31;
        rank = where(v_lt(a, v_set(0.275e-6f)), 0, rank);
        vi code = ((rank ^ sign) - sign) + 127;
        return code & ~(code >> 31);                    /* there is no minus one */
    }
    return (vi)v_choose(v_gt(a, v_set(0)), (vf)rank, v_set(0));
}

INLINE vi load_codes(const uint8_t *p)
{
#if defined KW_ISA_avx512
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
#elif defined KW_ISA_avx2
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
#else
    vi x;
    for (int k = 0; k < W; k++)
        x[k] = p[k];
    return x;
#endif
}

INLINE void store_codes(uint8_t *p, vi x)
{
#if defined KW_ISA_avx512
    _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8((__m512i)x));
#elif defined KW_ISA_avx2
    const __m128i h = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
    _mm_storel_epi64((void *)p, _mm_packus_epi16(h, h));
#else
    for (int k = 0; k < W; k++)
        p[k] = (uint8_t)x[k];
#endif
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Magnitudes as integers stand in the order of their values, and a NaN above all. */
INLINE vi larger(vi most, vf x)
{
    const vi a = (vi)v_abs(x);
#if defined KW_ISA_avx512
    return (vi)_mm512_max_epi32((__m512i)most, (__m512i)a);
#elif defined KW_ISA_avx2
    return (vi)_mm256_max_epi32((__m256i)most, (__m256i)a);
#else
    const vi m = most > a;
    return (most & m) | (a & ~m);
#endif
}

INLINE float largest(vi most)
{
    int32_t y = most[0];
    for (int k = 1; k < W; k++)
        y = KW_MAX(y, most[k]);
    float x;
    memcpy(&x, &y, sizeof x);
    return x;
}

/* Codes of a block whose largest magnitude is `most`; its scale. A block with a NaN becomes one of NaN: it is seen. */
INLINE float compress(uint8_t *code, const float *x, float most, const bool two)
{
    const float inverse = most > 0 ? 1 / most : 0;
    if (!(most > 0 && inverse < __builtin_inff())) {    /* nothing, less than 3e-39, or no number at all */
        memset(code, two ? 127 : 0, BLOCK);
        return most > 0 || most != most ? most : 0;
    }
    for (int i = 0; i < BLOCK; i += W)
        store_codes(code + i, encode(v_load(KW_F32, x, i) * inverse, two));
    return most;
}

static NOINLINE float compress_two(uint8_t *code, const float *x, float most) { return compress(code, x, most, true); }
static NOINLINE float compress_one(uint8_t *code, const float *x, float most) { return compress(code, x, most, false); }

static float compress_block(bool two, const float *x, uint8_t *code)
{
    vi most = { 0 };
    for (int i = 0; i < BLOCK; i += W)
        most = larger(most, v_load(KW_F32, x, i));
    return (two ? compress_two : compress_one)(code, x, largest(most));
}

/* A block that is cut has zeros behind it. */
void ISA(compress)(bool two, const float *x, uint8_t *code, float *scale, int64_t n)
{
    for (; n >= BLOCK; n -= BLOCK, x += BLOCK, code += BLOCK)
        *scale++ = compress_block(two, x, code);
    if (n > 0) {
        float cut[BLOCK] = { 0 };
        uint8_t cut_code[BLOCK];
        memcpy(cut, x, (size_t)n * sizeof *x);
        *scale = compress_block(two, cut, cut_code);
        memcpy(code, cut_code, (size_t)n);
    }
}

static void expand_block(bool two, const uint8_t *code, float scale, float *x)
{
    if (two)
        for (int i = 0; i < BLOCK; i += W)
            v_store(KW_F32, x, i, decode(load_codes(code + i), true) * scale);
    else
        for (int i = 0; i < BLOCK; i += W)
            v_store(KW_F32, x, i, decode(load_codes(code + i), false) * scale);
}

void ISA(expand)(bool two, const uint8_t *code, const float *scale, float *x, int64_t n)
{
    for (; n >= BLOCK; n -= BLOCK, x += BLOCK, code += BLOCK)
        expand_block(two, code, *scale++, x);
    if (n > 0) {
        float cut[BLOCK];
        uint8_t cut_code[BLOCK] = { 0 };
        memcpy(cut_code, code, (size_t)n);
        expand_block(two, cut_code, *scale, cut);
        memcpy(x, cut, (size_t)n * sizeof *x);
    }
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
    const uint32_t high = (uint32_t)(key >> 32) + (uint32_t)(at >> 32) * 0x9e3779b9u;
    return mix(mix((lane + (uint32_t)at) ^ (uint32_t)key) ^ high);
}

/*
 * Up with the probability that what is cut off has of a whole step: right on average. What would pass the largest
 * number is cut, and so is a NaN: one that was computed has the first bit of its fraction.
 */
INLINE vh round_by_chance(vf x, vu bits)
{
    const vu u = (vu)x, up = u + (bits >> 16);
    return v_narrow((vu)v_choose(v_lt(v_abs(x), v_set(3.3e38f)), (vf)up, x) >> 16);
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

typedef struct { float clip, keep, b1, b2, r1, r2, root, eps, step; } terms;

static float rest(float b) { return (float)((double)(int64_t)((1 - (double)b) * 1e7 + 0.5) / 1e7); }  /* see update.c */

static terms terms_of(const kw_adamw *o)
{
    return (terms){
        .clip = o->clip, .keep = (float)(1 - (double)o->rate * (double)o->decay), .b1 = o->beta1, .b2 = o->beta2,
        .r1 = rest(o->beta1), .r2 = rest(o->beta2), .root = (float)__builtin_sqrt((double)o->bias2), .eps = o->eps,
        .step = (float)((double)o->rate / (double)o->bias1),
    };
}

/* As update.c, number for number. */
INLINE vf move(const terms *k, vf p, vf g, vf *m, vf *v)
{
    g *= k->clip;
    *m = *m + k->r1 * (g - *m);
    *v = k->b2 * *v + k->r2 * g * g;
    const vf denominator = v_sqrt(*v) / k->root + k->eps;
    return p * k->keep - k->step * (*m / denominator);
}

INLINE void put_by_chance(uint16_t *p, vf x, vu bits, int64_t left)
{
    const vh h = round_by_chance(x, bits);
    if (__builtin_expect(left >= W, 1))
        *(vh_at *)p = (vh_at)h;
    else
        memcpy(p, &h, (size_t)left * sizeof *p);
}

INLINE void piece(const terms *k, uint16_t *p, const float *grad, float *m, float *v, int64_t from, int64_t to,
                  uint64_t key, int64_t index)
{
    for (int64_t i = from; i < to; i += W) {
        const int64_t left = to - i;
        vf mi = v_get(KW_F32, m, i, left), vi_ = v_get(KW_F32, v, i, left);
        vf x = move(k, v_get(KW_BF16, p, i, left), v_get(KW_F32, grad, i, left), &mi, &vi_);
        put_by_chance(p + i, x, random_bits(key, index + i), left);
        v_put(KW_F32, m, i, mi, left);
        v_put(KW_F32, v, i, vi_, left);
    }
}

void ISA(adamw_bf16)(const kw_adamw *o, uint16_t *p, const float *g, float *m, float *v, int64_t n, uint64_t key,
                     int64_t index)
{
    const terms k = terms_of(o);
    FOR_PIECES(n, CHUNK, from, to, piece(&k, p, g, m, v, from, to, key, index));
}

/* A block: its numbers' codes and two scales; p, of type t, and its gradients; index: of its first number */
INLINE void block8(const terms *k, const kw_dtype t, void *p, const float *g, uint8_t *m, uint8_t *v, float *m_scale,
                   float *v_scale, uint64_t key, int64_t index)
{
    float next_m[BLOCK], next_v[BLOCK];
    vi most_m = { 0 }, most_v = { 0 };
    for (int i = 0; i < BLOCK; i += W) {
        vf mi = decode(load_codes(m + i), true) * *m_scale, vi_ = decode(load_codes(v + i), false) * *v_scale;
        const vf x = move(k, v_load(t, p, i), v_load(KW_F32, g, i), &mi, &vi_);
        if (t == KW_BF16)
            put_by_chance((uint16_t *)p + i, x, random_bits(key, index + i), W);
        else
            v_store(KW_F32, p, i, x);
        v_store(KW_F32, next_m, i, mi);
        v_store(KW_F32, next_v, i, vi_);
        most_m = larger(most_m, mi);
        most_v = larger(most_v, vi_);
    }
    *m_scale = compress_two(m, next_m, largest(most_m));
    *v_scale = compress_one(v, next_v, largest(most_v));
}

/* The last block, if it is cut, has zeros behind it. */
INLINE void cut_block8(const terms *k, const kw_dtype t, void *p, const float *g, uint8_t *m, uint8_t *v,
                       float *m_scale, float *v_scale, int64_t n, uint64_t key, int64_t index)
{
    float cut_p[BLOCK] = { 0 }, cut_g[BLOCK] = { 0 };
    uint8_t cut_m[BLOCK], cut_v[BLOCK] = { 0 };
    const size_t count = (size_t)n, size = count * (t == KW_F32 ? 4 : 2);
    memset(cut_m, 127, BLOCK);
    memcpy(cut_p, p, size);
    memcpy(cut_g, g, count * sizeof *g);
    memcpy(cut_m, m, count);
    memcpy(cut_v, v, count);
    block8(k, t, cut_p, cut_g, cut_m, cut_v, m_scale, v_scale, key, index);
    memcpy(p, cut_p, size);
    memcpy(m, cut_m, count);
    memcpy(v, cut_v, count);
}

INLINE void blocks8(const terms *k, const kw_dtype t, char *p, const float *g, const kw_moments8 *s, int64_t from,
                    int64_t to, uint64_t key, int64_t index)
{
    for (; from < to; from += BLOCK) {
        char *at = p + from * (t == KW_F32 ? 4 : 2);
        float *m_scale = s->m_scale + from / BLOCK, *v_scale = s->v_scale + from / BLOCK;
        if (to - from >= BLOCK)
            block8(k, t, at, g + from, s->m + from, s->v + from, m_scale, v_scale, key, index + from);
        else
            cut_block8(k, t, at, g + from, s->m + from, s->v + from, m_scale, v_scale, to - from, key, index + from);
    }
}

static NOINLINE void blocks_f32(const terms *k, char *p, const float *g, const kw_moments8 *s, int64_t from, int64_t to)
{
    blocks8(k, KW_F32, p, g, s, from, to, 0, 0);
}

static NOINLINE void blocks_bf16(const terms *k, char *p, const float *g, const kw_moments8 *s, int64_t from,
                                 int64_t to, uint64_t key, int64_t index)
{
    blocks8(k, KW_BF16, p, g, s, from, to, key, index);
}

void ISA(adamw8)(const kw_adamw *o, kw_dtype t, void *p, const float *g, const kw_moments8 *s, int64_t n, uint64_t key,
                 int64_t index)
{
    const terms k = terms_of(o);
    if (t == KW_F32)
        FOR_PIECES(n, CHUNK, from, to, blocks_f32(&k, p, g, s, from, to));
    else
        FOR_PIECES(n, CHUNK, from, to, blocks_bf16(&k, p, g, s, from, to, key, index));
}
