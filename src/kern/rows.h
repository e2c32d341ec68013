/* rows.h - rows of numbers between the narrow types and f32, on the team of threads. */
#ifndef KW_ROWS_H
#define KW_ROWS_H

#include "kern.h"

/* n numbers to f32 from F32, BF16 or F16. Called inside a parallel loop it runs on that thread alone. */
static inline void kw_widen(float *y, kw_dtype from, const void *x, int64_t n)
{
    kw_kern_get()->convert(KW_F32, y, from, x, n);
}

/* Numbers first .. first + n of row r of a matrix of rows x `each`, which may be I8. */
static inline void kw_widen_part(float *y, kw_dtype from, const void *w, int64_t rows, int64_t each, int64_t r,
                                 int64_t first, int64_t n)
{
    const char *at = (const char *)w + (size_t)(r * each + first) * kw_dtype_size(from);
    if (from == KW_I8)
        kw_kern_get()->int8_widen(KW_F32, (const int8_t *)at, kw_int8_scales(w, rows, each)[r], y, n);
    else
        kw_widen(y, from, at, n);
}

static inline void kw_narrow(kw_dtype to, void *y, const float *x, int64_t n)
{
    kw_kern_get()->convert(to, y, KW_F32, x, n);
}

/* rows x n numbers, x with `ld` numbers from row to row, y dense. */
static inline void kw_rows_widen(float *y, kw_dtype from, const void *x, int64_t rows, int64_t n, int64_t ld)
{
    size_t size = kw_dtype_size(from);
    if (ld == n) {
        kw_widen(y, from, x, rows * n);
        return;
    }
#pragma omp parallel for schedule(static) if (rows * n > 4096)
    for (int64_t r = 0; r < rows; r++)
        kw_widen(y + r * n, from, (const char *)x + (size_t)(r * ld) * size, n);
}

#endif
