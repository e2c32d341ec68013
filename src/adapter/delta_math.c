/* delta_math.c - products, transposes, inverses of small matrices. */
#include "delta_math.h"

#include <math.h>
#include <string.h>

/* Columns in blocks that stay in the first cache while the rank goes by. */
void kw__matmul(const float *a, const float *b, int64_t rows, int64_t r, int64_t columns, float *out)
{
    enum { BLOCK = 2048 };
#pragma omp parallel for schedule(static) if (rows * r * columns > 100000)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t from = 0; from < columns; from += BLOCK) {
            int64_t n = KW_MIN(columns - from, BLOCK);
            float *to = out + i * columns + from;
            memset(to, 0, (size_t)n * sizeof *to);
            for (int64_t k = 0; k < r; k++) {
                const float f = a[i * r + k], *x = b + k * columns + from;
#pragma omp simd
                for (int64_t j = 0; j < n; j++)
                    to[j] += f * x[j];
            }
        }
}

void kw__turn(const float *a, int64_t rows, int64_t columns, float *out)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            out[j * rows + i] = a[i * columns + j];
}

void kw__tucker_half(const float *t, const float *b, int64_t i, int64_t j, int64_t in, int64_t inner, float *out)
{
    memset(out, 0, (size_t)(i * in * inner) * sizeof *out);
    for (int64_t x = 0; x < i; x++)
        for (int64_t y = 0; y < j; y++)
            for (int64_t q = 0; q < in; q++)
                for (int64_t p = 0; p < inner; p++)
                    out[(x * in + q) * inner + p] += t[(x * j + y) * inner + p] * b[y * in + q];
}

/* Gauss and Jordan over [m | x] until m is 1: x becomes m⁻¹ x. 1 - q of a skew q is never singular. */
static void solve(double *m, double *x, int64_t n)
{
    for (int64_t c = 0; c < n; c++) {
        int64_t best = c;
        for (int64_t i = c + 1; i < n; i++)
            best = fabs(m[i * n + c]) > fabs(m[best * n + c]) ? i : best;
        for (int64_t j = 0; j < n && best != c; j++) {
            double u = m[c * n + j], v = x[c * n + j];
            m[c * n + j] = m[best * n + j];
            x[c * n + j] = x[best * n + j];
            m[best * n + j] = u;
            x[best * n + j] = v;
        }
        double f = 1 / m[c * n + c];
        for (int64_t j = 0; j < n; j++) {
            m[c * n + j] *= f;
            x[c * n + j] *= f;
        }
        for (int64_t i = 0; i < n; i++) {
            double g = i == c ? 0 : m[i * n + c];
            for (int64_t j = 0; j < n && g != 0; j++) {
                m[i * n + j] -= g * m[c * n + j];
                x[i * n + j] -= g * x[c * n + j];
            }
        }
    }
}

/* (1 + q) and (1 - q)⁻¹ commute, so the product is also (1 - q)⁻¹ (1 + q): one system of equations. */
void kw__cayley(double *q, int64_t b, double *scratch)
{
    double *minus = scratch, *plus = scratch + b * b;
    for (int64_t i = 0; i < b; i++)
        for (int64_t j = 0; j < b; j++) {
            minus[i * b + j] = (i == j) - q[i * b + j];
            plus[i * b + j] = (i == j) + q[i * b + j];
        }
    solve(minus, plus, b);
    memcpy(q, plus, (size_t)(b * b) * sizeof *q);
}
