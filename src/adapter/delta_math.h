/* delta_math.h - products, transposes, inverses of small matrices; internal to adapter/. */
#ifndef KW_ADAPTER_DELTA_MATH_H
#define KW_ADAPTER_DELTA_MATH_H

#include "base/base.h"

/* out (rows, columns) = a (rows, r) · b (r, columns); the same bits for any number of threads. */
void kw__matmul(const float *a, const float *b, int64_t rows, int64_t r, int64_t columns, float *out);
void kw__turn(const float *a, int64_t rows, int64_t columns, float *out);     /* (columns, rows) */
/* out[i][q][p] = Σ_j t[i][j][p] · b[j][q];  t: (i, j, inner), b: (j, in) */
void kw__tucker_half(const float *t, const float *b, int64_t i, int64_t j, int64_t in, int64_t inner, float *out);
/* q becomes (1 + q)(1 - q)⁻¹, q = -qᵀ of b x b numbers; scratch: 2 b². */
void kw__cayley(double *q, int64_t b, double *scratch);
/* Where row x of the order (c, k, g) lies in the order (c, g, k), g = 0, 1, k < h. */
static inline int64_t kw__butterfly(int64_t x, int64_t h)
{
    int64_t c = x / (2 * h), k = x % (2 * h) / 2, g = x % 2;
    return (2 * c + g) * h + k;
}

#endif
