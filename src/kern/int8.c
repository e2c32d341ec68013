/* int8.c - whole matrices of one byte a number as other types. */
#include "kern.h"

void kw_int8_rows(kw_dtype to, const void *w, int64_t rows, int64_t n, void *y)
{
    const kw_kern *k = kw_kern_get();
    const float *scale = kw_int8_scales(w, rows, n);
    size_t size = kw_dtype_size(to);
#pragma omp parallel for schedule(static) if (rows * n > 16384)
    for (int64_t r = 0; r < rows; r++)
        k->int8_widen(to, (const int8_t *)w + r * n, scale[r], (char *)y + (size_t)(r * n) * size, n);
}
