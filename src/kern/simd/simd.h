/*
 * simd.h - the names of the vector kernels in this build: every file here is compiled once per instruction set, KW_ISA.
 *
 * Work is split in chunks of fixed size, whatever the number of threads, and sums over chunks are added in order, so
 * the bits never depend on the number of threads.
 */
#ifndef KW_SIMD_SIMD_H
#define KW_SIMD_SIMD_H

#include "kern/kern.h"
#include "vec.h"

#include <omp.h>

#define KW_PASTE2(a, b) a##_##b
#define KW_PASTE(a, b) KW_PASTE2(a, b)
#define ISA(name) KW_PASTE(kw_simd_##name, KW_ISA)      /* kw_simd_mul_avx2 */


void ISA(group_norm)(kw_dtype t, const void *x, const float *gamma, const float *beta, void *y, float *mean,
                     float *rstd, int n,
                int64_t hw, int c, int groups, float eps, bool silu);
void ISA(group_moments)(kw_dtype t, const void *x, double *moments, int n, int64_t rows, int64_t columns, int c,
                        int groups, void *scratch);
void ISA(group_apply)(kw_dtype t, const void *x, const float *gamma, const float *beta, const float *mean,
                      const float *rstd, void *y, int n, int64_t hw, int c, int groups, bool silu);
void ISA(group_norm_grad)(kw_dtype t, const void *x, const void *dy, const float *gamma, const float *beta,
                          const float *mean, const float *rstd, void *dx, float *dgamma, float *dbeta, int n,
                          int64_t hw, int c, int groups, bool silu, float *scratch);
size_t ISA(group_norm_grad_scratch)(int n, int64_t hw, int c);
void ISA(layer_norm)(kw_dtype t, const void *x, const float *gamma, const float *beta, void *y, float *mean,
                     float *rstd,
                int64_t rows, int c, float eps);
void ISA(layer_norm_grad)(kw_dtype t, const void *x, const void *dy, const float *gamma, const float *mean,
                          const float *rstd,
                     void *dx, float *dgamma, float *dbeta, int64_t rows, int c, float *scratch);
size_t ISA(layer_norm_grad_scratch)(int64_t rows, int c);
void ISA(attention)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v, void *o,
                    float *lse,
               void *scratch);
void ISA(attention_grad)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v,
                         const void *o,
                    const float *lse, const void *d_o, void *dq, void *dk, void *dv, void *scratch);
size_t ISA(attention_scratch)(kw_dtype t, const kw_attention_shape *s, int threads);
size_t ISA(attention_grad_scratch)(kw_dtype t, const kw_attention_shape *s, int threads);
#ifdef KW_ISA_avx512_bf16                 /* the same on pairs of bf16: where t is BF16 the four above call these */
void ISA(attention_pairs)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v, void *o,
                          float *lse, void *scratch);
void ISA(attention_grad_pairs)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v,
                               const void *o, const float *lse, const void *d_o, void *dq, void *dk, void *dv,
                               void *scratch);
size_t ISA(attention_scratch_pairs)(kw_dtype t, const kw_attention_shape *s, int threads);
size_t ISA(attention_grad_scratch_pairs)(kw_dtype t, const kw_attention_shape *s, int threads);
#endif
void ISA(unary)(kw_dtype t, kw_unary f, const void *x, void *y, int64_t n);
void ISA(unary_grad)(kw_dtype t, kw_unary f, const void *x, const void *dy, void *dx, int64_t n);
void ISA(geglu)(kw_dtype t, const void *x, void *y, int64_t rows, int c);
void ISA(geglu_grad)(kw_dtype t, const void *x, const void *dy, void *dx, int64_t rows, int c);
void ISA(lincomb)(kw_dtype t, float a, const void *x, float b, const void *z, void *y, int64_t n);
void ISA(mul)(kw_dtype t, const void *x, const void *z, void *y, int64_t n);
void ISA(add_channels)(kw_dtype t, const void *x, const void *v, void *y, int64_t n, int64_t hw, int c);
void ISA(sum_pixels)(kw_dtype t, const void *x, float *y, int64_t n, int64_t hw, int c);
void ISA(convert)(kw_dtype to, void *y, kw_dtype from, const void *x, int64_t n);
void ISA(adamw)(const kw_adamw *o, float *p, const float *g, float *m, float *v, int64_t n);
void ISA(adamw_bf16)(const kw_adamw *o, uint16_t *p, const float *g, float *m, float *v, int64_t n, uint64_t key,
                     int64_t index);
void ISA(adamw8)(const kw_adamw *o, kw_dtype t, void *p, const float *g, const kw_moments8 *s, int64_t n, uint64_t key,
                 int64_t index);
void ISA(compress)(bool two, const float *x, uint8_t *code, float *scale, int64_t n);
void ISA(expand)(bool two, const uint8_t *code, const float *scale, float *x, int64_t n);
void ISA(lerp)(float *y, const float *x, float keep, int64_t n);
double ISA(sum_squares)(const float *x, int64_t n);
double ISA(peak)(kw_peak k, int64_t n);
bool ISA(int8_make)(kw_dtype t, const void *x, int64_t rows, int64_t n, void *to);
void ISA(int8_widen)(kw_dtype to, const int8_t *codes, float scale, void *y, int64_t n);

enum { CHUNK = 16384 };                   /* elements of one piece of elementwise work */

INLINE int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* f with a constant type first: two loops instead of one with a branch. */
#define TYPED(t, f, ...) ((t) == KW_F32 ? f(KW_F32, __VA_ARGS__) : f(KW_BF16, __VA_ARGS__))

/* for every piece of [0, n): from, to; `body` is one call */
#define FOR_PIECES(n, size, from, to, body) \
    do { \
        const int64_t n_ = (n), size_ = (size), count_ = pieces(n_, size_); \
        PRAGMA(omp parallel for schedule(static) if (count_ > 1)) \
        for (int64_t i_ = 0; i_ < count_; i_++) { \
            const int64_t from = i_ * size_, to = KW_MIN(n_, from + size_); \
            body; \
        } \
    } while (0)

#endif
