/*
 * attention_grad.c - o = softmax(scale q k^T) v per head, forward and backward, row by row. Plain loops.
 */
#include "simd.h"

#include <math.h>

enum { KEYS = 64 };

typedef struct {
    const kw_attention_shape *s;
    const void *q, *k, *v, *o, *d_o;
    void *out, *dq, *dk, *dv;
    float *lse;
} task;

static void set_one(kw_dtype t, void *p, ptrdiff_t i, float x)
{
    if (t == KW_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = kw_f32_to_bf16(x);
}

static double dot(kw_dtype t, const void *a, ptrdiff_t i, const void *b, ptrdiff_t j, int n)
{
    double sum = 0;
    for (int c = 0; c < n; c++)
        sum += (double)get_one(t, a, i + c) * (double)get_one(t, b, j + c);
    return sum;
}

static ptrdiff_t row_of(const kw_attention_shape *s, int head, int tokens, int token, ptrdiff_t stride)
{
    return ((ptrdiff_t)(head / s->heads) * tokens + token) * stride + (ptrdiff_t)(head % s->heads) * s->dim;
}

size_t ISA(attention_grad_scratch)(kw_dtype t, const kw_attention_shape *s, int threads)
{
    (void)t, (void)threads;
    return (size_t)s->batch * (size_t)s->heads * ((size_t)s->tq + 2 * (size_t)s->tk) * (size_t)s->dim * sizeof(double);
}

static void backward_head(kw_dtype t, const task *k, int head, double *dq, double *dk, double *dv)
{
    const kw_attention_shape *s = k->s;
    const int d = s->dim;
    for (int r = 0; r < s->tq; r++) {
        const ptrdiff_t q = row_of(s, head, s->tq, r, s->q_stride), o = row_of(s, head, s->tq, r, s->o_stride);
        const double delta = dot(t, k->o, o, k->d_o, o, d), lse = (double)k->lse[(ptrdiff_t)head * s->tq + r];
        for (int j = 0; j < (s->causal ? KW_MIN(r + 1, s->tk) : s->tk); j++) {
            const ptrdiff_t key = row_of(s, head, s->tk, j, s->k_stride), v = row_of(s, head, s->tk, j, s->v_stride);
            double p = exp((double)s->scale * dot(t, k->q, q, k->k, key, d) - lse);
            double ds = (double)s->scale * p * (dot(t, k->d_o, o, k->v, v, d) - delta);
            for (int c = 0; c < d; c++) {
                dq[r * d + c] += ds * (double)get_one(t, k->k, key + c);
                dk[j * d + c] += ds * (double)get_one(t, k->q, q + c);
                dv[j * d + c] += p * (double)get_one(t, k->d_o, o + c);
            }
        }
    }
}

void ISA(attention_grad)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v, const void *o,
                         const float *lse, const void *d_o, void *dq, void *dk, void *dv, void *scratch)
{
    const task a = { .s = s, .q = q, .k = k, .v = v, .o = o, .d_o = d_o, .lse = (float *)(uintptr_t)lse };
    const size_t size = ((size_t)s->tq + 2 * (size_t)s->tk) * (size_t)s->dim;
    memset(scratch, 0, ISA(attention_grad_scratch)(t, s, 1));
    _Pragma("omp parallel for schedule(static)")
    for (int head = 0; head < s->batch * s->heads; head++) {
        double *wq = (double *)scratch + (size_t)head * size, *wk = wq + s->tq * s->dim, *wv = wk + s->tk * s->dim;
        backward_head(t, &a, head, wq, wk, wv);
        for (int r = 0; r < s->tq; r++)
            for (int c = 0; c < s->dim; c++)
                set_one(t, dq, row_of(s, head, s->tq, r, s->q_stride) + c, (float)wq[r * s->dim + c]);
        for (int j = 0; j < s->tk; j++)
            for (int c = 0; c < s->dim; c++) {
                set_one(t, dk, row_of(s, head, s->tk, j, s->k_stride) + c, (float)wk[j * s->dim + c]);
                set_one(t, dv, row_of(s, head, s->tk, j, s->v_stride) + c, (float)wv[j * s->dim + c]);
            }
    }
}
