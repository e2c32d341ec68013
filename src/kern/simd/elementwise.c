/* elementwise.c - sums and products of tensors, broadcast over pixels, sums over pixels, conversions. */
#include "simd.h"

/*  y = a x + b z  */
INLINE void lincomb_piece(const kw_dtype t, float a, const void *x, float b, const void *z, void *y, int64_t from,
                          int64_t to)
{
    if (z)
        for (int64_t i = from; i < to; i += W)
            v_put(t, y, i, a * v_get(t, x, i, to - i) + b * v_get(t, z, i, to - i), to - i);
    else
        for (int64_t i = from; i < to; i += W)
            v_put(t, y, i, a * v_get(t, x, i, to - i), to - i);
}

void ISA(lincomb)(kw_dtype t, float a, const void *x, float b, const void *z, void *y, int64_t n)
{
    FOR_PIECES(n, CHUNK, from, to, TYPED(t, lincomb_piece, a, x, b, z, y, from, to));
}

INLINE void mul_piece(const kw_dtype t, const void *x, const void *z, void *y, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i += W)
        v_put(t, y, i, v_get(t, x, i, to - i) * v_get(t, z, i, to - i), to - i);
}

void ISA(mul)(kw_dtype t, const void *x, const void *z, void *y, int64_t n)
{
    FOR_PIECES(n, CHUNK, from, to, TYPED(t, mul_piece, x, z, y, from, to));
}

/* Rows [from, to) of all images; image r / hw has its own v. */
INLINE void add_channels_rows(const kw_dtype t, const void *x, const void *v, void *y, int64_t hw, int c, int64_t from,
                              int64_t to)
{
    for (int64_t r = from; r < to; r++)
        for (int i = 0; i < c; i += W)
            v_put(t, y, r * c + i, v_get(t, x, r * c + i, c - i) + v_get(t, v, r / hw * c + i, c - i), c - i);
}

void ISA(add_channels)(kw_dtype t, const void *x, const void *v, void *y, int64_t n, int64_t hw, int c)
{
    FOR_PIECES(n * hw, KW_MAX(1, CHUNK / c), from, to, TYPED(t, add_channels_rows, x, v, y, hw, c, from, to));
}

enum { STRIP = 64, SLAB = 256 };          /* channels at a time; pixels summed in f32 before double takes over */

INLINE void sum_strip(const kw_dtype t, const void *x, float *y, int64_t hw, int c, int64_t image, int first)
{
    const int width = KW_MIN(STRIP, c - first);
    double sum[STRIP] = { 0 };
    for (int64_t p0 = 0; p0 < hw; p0 += SLAB) {
        float part[STRIP] = { 0 };
        for (int64_t p = p0; p < KW_MIN(hw, p0 + SLAB); p++)
            for (int i = 0; i < width; i += W)
                v_store(KW_F32, part, i,
                        v_load(KW_F32, part, i) + v_get(t, x, (image * hw + p) * c + first + i, width - i));
        for (int i = 0; i < width; i++)
            sum[i] += (double)part[i];
    }
    for (int i = 0; i < width; i++)
        y[image * c + first + i] = (float)sum[i];
}

void ISA(sum_pixels)(kw_dtype t, const void *x, float *y, int64_t n, int64_t hw, int c)
{
    const int64_t strips = pieces(c, STRIP), count = n * strips;
    _Pragma("omp parallel for schedule(static) if (n * hw * c > CHUNK)")
    for (int64_t i = 0; i < count; i++)
        TYPED(t, sum_strip, x, y, hw, c, i / strips, (int)(i % strips) * STRIP);
}

/* ---- conversions -------------------------------------------------------------------------------------- */

INLINE void convert_piece(const kw_dtype to_type, void *y, const kw_dtype from_type, const void *x, int64_t from,
                          int64_t to)
{
    for (int64_t i = from; i < to; i += W)
        v_put(to_type, y, i, v_get(from_type, x, i, to - i), to - i);
}

INLINE void convert_from(const kw_dtype from_type, kw_dtype to_type, void *y, const void *x, int64_t from, int64_t to)
{
    if (to_type == KW_F32)
        convert_piece(KW_F32, y, from_type, x, from, to);
    else if (to_type == KW_BF16)
        convert_piece(KW_BF16, y, from_type, x, from, to);
    else
        convert_piece(KW_F16, y, from_type, x, from, to);
}

static void convert_any(kw_dtype to_type, void *y, kw_dtype from_type, const void *x, int64_t from, int64_t to)
{
    const size_t e = to_type == KW_F32 ? 4 : 2;
    if (to_type == from_type)
        memmove((char *)y + (size_t)from * e, (const char *)x + (size_t)from * e, (size_t)(to - from) * e);
    else if (from_type == KW_F32)
        convert_from(KW_F32, to_type, y, x, from, to);
    else if (from_type == KW_BF16)
        convert_from(KW_BF16, to_type, y, x, from, to);
    else
        convert_from(KW_F16, to_type, y, x, from, to);
}

void ISA(convert)(kw_dtype to, void *y, kw_dtype from, const void *x, int64_t n)
{
    if (n <= CHUNK)                       /* not even a team of one: weights are packed in runs of a few hundred */
        convert_any(to, y, from, x, 0, n);
    else
        FOR_PIECES(n, CHUNK, first, last, convert_any(to, y, from, x, first, last));
}
