/* dtype.c - number formats and the conversions between them. Round to nearest even everywhere. */
#include "base.h"

#include <math.h>
#include <string.h>

static const struct { size_t size; const char *name; } table[] = {
#define X(name, bytes, text) { bytes, text },
    KW_DTYPE_MAP(X)
#undef X
};

size_t kw_dtype_size(kw_dtype t) { return table[t].size; }
const char *kw_dtype_name(kw_dtype t) { return table[t].name; }

float kw_f16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v;
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31)
        v.u = sign | 0x7f800000u | fraction << 13;
    else if (exponent)
        v.u = sign | (exponent + 112) << 23 | fraction << 13;
    else {
        v.f = (float)fraction * 0x1p-24f;
        v.u |= sign;
    }
    return v.f;
}

uint16_t kw_f32_to_f16(float f)
{
    union { float f; uint32_t u; } v = { f };
    uint16_t sign = (uint16_t)(v.u >> 16 & 0x8000);
    v.u &= 0x7fffffffu;
    if (v.u > 0x7f800000u)
        return sign | 0x7e00;
    if (v.u >= 0x477ff000u)                            /* rounds to 65536 or more */
        return sign | 0x7c00;
    if (v.u < 0x38800000u)                             /* subnormal: let the addition round */
        return sign | (uint16_t)lrintf(v.f * 0x1p24f);
    v.u += 0xfff + (v.u >> 13 & 1);
    return sign | (uint16_t)((v.u - 0x38000000u) >> 13);
}

/*  1 sign, e exponent, m fraction bits; E4M3 (fn) has no infinity, E5M2 is the top of f16  */
static float f8_e4m3(uint8_t b)
{
    int exponent = b >> 3 & 15, fraction = b & 7;
    float x = (b & 127) == 127 ? NAN : exponent ? ldexpf(1 + (float)fraction / 8, exponent - 7)
            : ldexpf((float)fraction, -9);
    return b & 128 ? -x : x;
}

/* From 464 on, which would round to 480, there is only NaN: callers look for it (torch's answer differs by version). */
static uint8_t to_f8_e4m3(float f)
{
    union { float f; uint32_t u; } v = { f };
    uint8_t sign = (uint8_t)(v.u >> 24 & 0x80);
    v.u &= 0x7fffffffu;
    if (!(v.f <= 464))                                 /* 464 is a tie between 448 and 480: to the even fraction, 448 */
        return sign | 0x7f;
    if (v.f < 0x1p-6f)                                 /* subnormal: multiples of 2^-9 */
        return sign | (uint8_t)lrintf(v.f * 0x1p9f);
    v.u += 0x7ffff + (v.u >> 20 & 1);
    return sign | (uint8_t)((v.u - 0x3c000000u) >> 20);
}

static double get(kw_dtype t, const void *p, size_t i)
{
    switch (t) {
    case KW_F32: return (double)((const float *)p)[i];
    case KW_F64: return ((const double *)p)[i];
    case KW_F16: return (double)kw_f16_to_f32(((const uint16_t *)p)[i]);
    case KW_BF16: return (double)kw_bf16_to_f32(((const uint16_t *)p)[i]);
    case KW_I64: return (double)((const int64_t *)p)[i];
    case KW_I32: return (double)((const int32_t *)p)[i];
    case KW_U8: return (double)((const uint8_t *)p)[i];
    case KW_F8_E4M3: return (double)f8_e4m3(((const uint8_t *)p)[i]);
    case KW_F8_E5M2: return (double)kw_f16_to_f32((uint16_t)(((const uint8_t *)p)[i] << 8));
    default: KW_BUG("no conversion from %s", kw_dtype_name(t));
    }
}

static void put(kw_dtype t, void *p, size_t i, double x)
{
    switch (t) {
    case KW_F32: ((float *)p)[i] = (float)x; break;
    case KW_F64: ((double *)p)[i] = x; break;
    case KW_F16: ((uint16_t *)p)[i] = kw_f32_to_f16((float)x); break;
    case KW_BF16: ((uint16_t *)p)[i] = kw_f32_to_bf16((float)x); break;
    case KW_F8_E4M3: ((uint8_t *)p)[i] = to_f8_e4m3((float)x); break;
    default: KW_BUG("no conversion to %s", kw_dtype_name(t));
    }
}

void kw_convert(kw_dtype to, void *dst, kw_dtype from, const void *src, size_t n)
{
    if (to == from) {
        memmove(dst, src, n * kw_dtype_size(to));
    } else if (to == KW_F32 && from == KW_BF16) {
        for (size_t i = 0; i < n; i++)
            ((float *)dst)[i] = kw_bf16_to_f32(((const uint16_t *)src)[i]);
    } else if (to == KW_BF16 && from == KW_F32) {
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)dst)[i] = kw_f32_to_bf16(((const float *)src)[i]);
    } else if (to == KW_F32 && from == KW_F16) {
        for (size_t i = 0; i < n; i++)
            ((float *)dst)[i] = kw_f16_to_f32(((const uint16_t *)src)[i]);
    } else if (to == KW_F16 && from == KW_F32) {
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)dst)[i] = kw_f32_to_f16(((const float *)src)[i]);
    } else {
        for (size_t i = 0; i < n; i++)
            put(to, dst, i, get(from, src, i));
    }
}
