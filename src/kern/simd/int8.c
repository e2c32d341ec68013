/* int8.c - matrices of one byte a number, a scale for each row (see kern.h): made, and widened again. */
#include "simd.h"

static const float least = 0x1p-100f;     /* a largest number below it: 127 / it would not be finite */

typedef int8_t vb __attribute__((vector_size(W)));

INLINE void store_codes(int8_t *to, vf x, int64_t left)
{
    vb code = __builtin_convertvector(__builtin_convertvector(v_round(x), vi), vb);
    memcpy(to, &code, left >= W ? (size_t)W : (size_t)left);
}

/* Zero times what is not finite is not zero. */
INLINE bool row_as(const kw_dtype t, const void *x, int64_t at, int64_t n, int8_t *codes, float *scale)
{
    vf top = v_set(0), odd = v_set(0);
    for (int64_t i = 0; i < n; i += W) {
        vf v = v_get(t, x, at + i, n - i);
        top = v_max(top, v_abs(v));
        odd += v * 0.0f;
    }
    float most = 0;
    for (int k = 0; k < W; k++)
        most = top[k] > most ? top[k] : most;
    if (v_sum(odd) != 0 || __builtin_isnan(v_sum(odd)))
        return false;
    float by = most < least ? 0 : 127 / most;
    *scale = most < least ? 0 : most / 127;
    for (int64_t i = 0; i < n; i += W)
        store_codes(codes + i, v_get(t, x, at + i, n - i) * by, n - i);
    return true;
}

static bool row(kw_dtype t, const void *x, int64_t at, int64_t n, int8_t *codes, float *scale)
{
    return t == KW_F32 ? row_as(KW_F32, x, at, n, codes, scale) : t == KW_BF16 ? row_as(KW_BF16, x, at, n, codes, scale)
         : row_as(KW_F16, x, at, n, codes, scale);
}

bool ISA(int8_make)(kw_dtype t, const void *x, int64_t rows, int64_t n, void *to)
{
    float *scale = (float *)(void *)((char *)to + kw_int8_codes(rows, n));
    int odd = 0;
#pragma omp parallel for schedule(static) reduction(| : odd) if (rows * n > CHUNK)
    for (int64_t r = 0; r < rows; r++)
        odd |= !row(t, x, r * n, n, (int8_t *)to + r * n, &scale[r]);
    return !odd;
}

INLINE void widen_as(const kw_dtype to, const int8_t *codes, float scale, void *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += W)
        v_put(to, y, i, v_get(KW_I8, codes, i, n - i) * scale, n - i);
}

void ISA(int8_widen)(kw_dtype to, const int8_t *codes, float scale, void *y, int64_t n)
{
    TYPED(to, widen_as, codes, scale, y, n);
}
