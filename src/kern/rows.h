/* rows.h - numbers between the narrow types and f32, on the team of threads. */
#ifndef KW_ROWS_H
#define KW_ROWS_H

#include "base/base.h"

/* n numbers to f32 from F32, BF16 or F16; one thread. */
static inline void kw_run_widen(float *y, kw_dtype from, const void *x, int64_t n)
{
    if (from == KW_F16) {
        for (int64_t i = 0; i < n; i++)
            y[i] = kw_f16_to_f32(((const uint16_t *)x)[i]);
    } else {
        kw_convert(KW_F32, y, from, x, (size_t)n);
    }
}

/* rows x n numbers, x with `ld` numbers from row to row, y dense. */
static inline void kw_rows_widen(float *y, kw_dtype from, const void *x, int64_t rows, int64_t n, int64_t ld)
{
    size_t size = kw_dtype_size(from);
#pragma omp parallel for schedule(static) if (rows * n > 4096)
    for (int64_t r = 0; r < rows; r++)
        kw_run_widen(y + r * n, from, (const char *)x + (size_t)(r * ld) * size, n);
}

enum { KW_RUN = 4096 };                   /* numbers that one thread takes at a time */

static inline void kw_widen(float *y, kw_dtype from, const void *x, int64_t n)
{
    size_t size = kw_dtype_size(from);
#pragma omp parallel for schedule(static) if (n > KW_RUN)
    for (int64_t i = 0; i < n; i += KW_RUN)
        kw_run_widen(y + i, from, (const char *)x + (size_t)i * size, KW_MIN(n - i, (int64_t)KW_RUN));
}

static inline void kw_narrow(kw_dtype to, void *y, const float *x, int64_t n)
{
    size_t size = kw_dtype_size(to);
#pragma omp parallel for schedule(static) if (n > KW_RUN)
    for (int64_t i = 0; i < n; i += KW_RUN)
        kw_convert(to, (char *)y + (size_t)i * size, KW_F32, x + i, (size_t)KW_MIN(n - i, (int64_t)KW_RUN));
}

#endif
