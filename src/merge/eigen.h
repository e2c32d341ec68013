/* eigen.h - symmetric matrices in double; internal to merge/. */
#ifndef KW_MERGE_EIGEN_H
#define KW_MERGE_EIGEN_H

#include "base/base.h"

/*
 * g (n, n), symmetric, both halves given; its content goes. values: n, largest first. vectors: (most, n), row i is that
 * of values[i]. KW_ENUMERIC: not finite.
 */
KW_MUST kw_status kw__eigen(double *g, int64_t n, double *values, double *vectors, int64_t most, kw_err *e);

/* Σ_k a[k] b[k], on the vectors of the instruction set in use. */
double kw__dot(const double *a, const double *b, int64_t n);
/* g[i][j] += Σ_k p[i][k] p[j][k] for j <= i; p: (n, k), rows `stride` apart. */
void kw__gram_add(const double *p, int64_t n, int64_t k, int64_t stride, double *g);

#endif
