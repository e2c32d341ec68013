/*
 * gemm.c - kw_gemm: C = alpha op(A) op(B) + beta C (+ bias) by oneDNN, in f32, operands of other types widened in
 * scratch; bf16 with bf16 in bf16 where the machine has such products (AVX512-BF16), summed in f32.
 *
 * scratch:  [A as f32, dense] [B as f32, dense] [C as f32, dense]    or    [bias / alpha] [oneDNN's own]
 *
 * % of the FMA peak of one Zen 3 core, dnnl_sgemm, busy machine: 4096 x 320 x 320 72-76, 4096 x 2560 x 320 80-86,
 * 256 x 1280 x 1280 64, LoRA of rank 16: down (4096 x 16 x 320) 50, up (4096 x 320 x 16) 53, gradients 50-57;
 * of rank 4: 22-30, bound by memory. The same layer as a 1 x 1 convolution with a packed weight has 85-92 (kw_conv).
 */
#include "dnn.h"
#include "rows.h"

#include <string.h>

enum { SMALL = 4096 };                    /* numbers that are not worth a team */

#define ALIGN(n) (((n) + 63) & ~(size_t)63)

typedef struct { int64_t rows, columns, ld; kw_dtype type; } matrix;     /* as stored */

static matrix matrix_a(const kw_gemm_shape *s)
{
    return (matrix){ s->ta ? s->k : s->m, s->ta ? s->m : s->k, s->lda, s->a };
}
static matrix matrix_b(const kw_gemm_shape *s)
{
    return (matrix){ s->tb ? s->n : s->k, s->tb ? s->k : s->n, s->ldb, s->b };
}
static matrix matrix_c(const kw_gemm_shape *s) { return (matrix){ s->m, s->n, s->ldc, s->c }; }

static size_t wide_size(const matrix *m) { return m->type == KW_F32 ? 0 : ALIGN((size_t)(m->rows * m->columns) * 4); }

static const kw_dnn_matmul *native(const kw_gemm_shape *s)
{
    return s->a == KW_BF16 && s->b == KW_BF16 && s->k > 0 && s->alpha != 0 ? kw_dnn_matmul_get(s) : NULL;
}

size_t kw_gemm_scratch_size(const kw_gemm_shape *s)
{
    const kw_dnn_matmul *bf16 = native(s);
    if (bf16)
        return ALIGN((size_t)s->n * sizeof(float)) + kw_dnn_matmul_scratch_size(bf16);
    matrix a = matrix_a(s), b = matrix_b(s), c = matrix_c(s);
    return wide_size(&a) + wide_size(&b) + wide_size(&c);
}

/* The matrix as f32: itself, or a dense copy at *scratch, which moves on. */
static float *widened(matrix *m, const void *x, bool read, char **scratch)
{
    if (m->type == KW_F32)
        return (float *)(uintptr_t)x;
    float *y = (float *)*scratch;
    *scratch += wide_size(m);
    if (read)
        kw_rows_widen(y, m->type, x, m->rows, m->columns, m->ld);
    m->ld = m->columns;
    return y;
}

/* Rows of C: add the bias, and round to the type that the caller wants. */
static void finish(const kw_gemm_shape *s, float *wide, int64_t ld, const float *bias, void *c)
{
    size_t row = (size_t)s->ldc * kw_dtype_size(s->c);
    if (!bias && s->c == KW_F32)
        return;
#pragma omp parallel for schedule(static) if (s->m * s->n > SMALL)
    for (int64_t r = 0; r < s->m; r++) {
        float *x = wide + r * ld;
        if (bias)
            for (int64_t i = 0; i < s->n; i++)
                x[i] += bias[i];
        if (s->c != KW_F32)
            kw_narrow(s->c, (char *)c + (size_t)r * row, x, s->n);
    }
}

/*  nothing to add up: C = beta C  */
static void scale(float *c, int64_t m, int64_t n, int64_t ld, float beta)
{
    for (int64_t r = 0; r < m; r++)
        for (int64_t i = 0; i < n; i++)
            c[r * ld + i] = beta == 0 ? 0 : beta * c[r * ld + i];
}

/* The library multiplies the bias by alpha too. */
static void run_native(const kw_dnn_matmul *p, const kw_gemm_shape *s, const void *a, const void *b, const float *bias,
                       void *c, float *scratch)
{
    for (int64_t i = 0; i < s->n; i++)
        scratch[i] = bias ? bias[i] / s->alpha : 0;
    kw_dnn_matmul_run(p, a, b, scratch, c, (char *)scratch + ALIGN((size_t)s->n * sizeof(float)));
}

void kw_gemm(const kw_gemm_shape *s, const void *a, const void *b, const float *bias, void *c, void *scratch)
{
    matrix ma = matrix_a(s), mb = matrix_b(s), mc = matrix_c(s);
    char *free_from = scratch;
    if (s->m < 1 || s->n < 1)
        return;
    const kw_dnn_matmul *bf16 = native(s);
    if (bf16) {
        run_native(bf16, s, a, b, bias, c, scratch);
        return;
    }
    const float *fa = widened(&ma, a, true, &free_from), *fb = widened(&mb, b, true, &free_from);
    float *fc = widened(&mc, c, s->beta != 0, &free_from);
    if (s->k < 1)
        scale(fc, s->m, s->n, mc.ld, s->beta);
    else
        kw_dnn_sgemm(s->ta, s->tb, s->m, s->n, s->k, s->alpha, fa, ma.ld, fb, mb.ld, s->beta, fc, mc.ld);
    finish(s, fc, mc.ld, bias, c);
}
