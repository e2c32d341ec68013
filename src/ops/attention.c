/* attention.c - softmax(q kᵀ / √d) v per head, and its gradient. The fast kernels keep no Tq x Tk matrix. */
#include "op.h"

#include <math.h>
#include <string.h>

typedef struct { int heads; bool causal; } attention;

static kw_attention_shape shape_of(const kw_graph *g, const kw_node *n)
{
    kw_shape q = kw_shape_of(g, n->in[0]), k = kw_shape_of(g, n->in[1]);
    int heads = ATTR(n, attention)->heads, c = (int)q.d[2];
    return (kw_attention_shape){ .batch = (int)q.d[0], .heads = heads, .dim = c / heads, .tq = (int)q.d[1],
                                 .tk = (int)k.d[1], .q_stride = c, .k_stride = c, .v_stride = c, .o_stride = c,
                                 .scale = (float)(1 / sqrt((double)(c / heads))),
                                 .causal = ATTR(n, attention)->causal };
}

static double pairs(const kw_attention_shape *s)
{
    return (double)s->batch * s->heads * s->tq * s->tk * s->dim * (s->causal ? 0.5 : 1);
}

static kw_status attention_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape q = kw_shape_of(g, n->in[0]), k = kw_shape_of(g, n->in[1]);
    int heads = ATTR(n, attention)->heads;
    if (q.rank != 3 || k.rank != 3 || q.d[0] != k.d[0] || q.d[2] != k.d[2] || heads < 1 || q.d[2] % heads) {
        char s[64], t[64];
        return kw_fail(e, KW_EDATA, "attention of %d heads between %s and %s", heads, kw_dims_text(q, s),
                       kw_dims_text(k, t));
    }
    KW_TRY(kw__same(g, n->in[1], n->in[2], e));
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    shape[1] = KW_SHAPE(q.d[0], heads, q.d[1]);
    dtype[1] = kw_sum_type(dtype[0]);
    return KW_OK;
}

static void attention_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    kw_val d = KW_EMIT(g, &kw_op_attention_grad, n->attr, n->in[0], n->in[1], n->in[2], n->out[0], n->out[1], dout[0]);
    for (int i = 0; i < 3; i++)
        if (want[i])
            din[i] = kw_out(g, d, i);
}

static void attention_cost(const kw_graph *g, const kw_node *n, double *flops)
{
    kw_attention_shape s = shape_of(g, n);
    *flops = 4 * pairs(&s);
}

/* The scores of one query row: exp(scale q·k - lse) when lse is known, else raw; returns how many keys it sees. */
static int scores(const kw_attention_shape *s, const double *q, const double *k, int row, double *p)
{
    int n = s->causal ? KW_MIN(row + 1, s->tk) : s->tk;
    for (int j = 0; j < n; j++) {
        p[j] = 0;
        for (int d = 0; d < s->dim; d++)
            p[j] += q[d] * k[j * s->k_stride + d];
        p[j] /= sqrt((double)s->dim);
    }
    return n;
}

static void attention_ref(const kw_call *c)
{
    kw_attention_shape s = shape_of(c->g, c->node);
    double *p = kw_block_new(sizeof *p * (size_t)s.tk);
    for (int64_t i = 0; i < (int64_t)s.batch * s.heads * s.tq; i++) {
        int64_t b = i / (s.heads * s.tq), h = i / s.tq % s.heads, r = i % s.tq, head = h * s.dim;
        const double *q = (const double *)c->in[0] + (b * s.tq + r) * s.q_stride + head;
        const double *k = (const double *)c->in[1] + b * s.tk * s.k_stride + head;
        const double *v = (const double *)c->in[2] + b * s.tk * s.v_stride + head;
        double *o = (double *)c->out[0] + (b * s.tq + r) * s.o_stride + head, top = -INFINITY, sum = 0;
        int n = scores(&s, q, k, (int)r, p);
        for (int j = 0; j < n; j++)
            top = fmax(top, p[j]);
        for (int j = 0; j < n; j++)
            sum += p[j] = exp(p[j] - top);
        memset(o, 0, sizeof *o * (size_t)s.dim);
        for (int j = 0; j < n; j++)
            for (int d = 0; d < s.dim; d++)
                o[d] += p[j] / sum * v[j * s.v_stride + d];
        ((double *)c->out[1])[i] = top + log(sum);
    }
    kw_block_free(p);
}

static kw_status attention_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    (void)e;
    kw_attention_shape s = shape_of(g, n);
    need->scratch = kw_kern_get()->attention_scratch(kw_dtype_of(g, n->in[0]), &s, kw_threads());
    return KW_OK;
}

static void attention_run(const kw_call *c)
{
    kw_attention_shape s = shape_of(c->g, c->node);
    kw_kern_get()->attention(TYPE_IN(c, 0), &s, c->in[0], c->in[1], c->in[2], c->out[0], c->out[1], c->scratch);
}

static kw_val attention_cases(kw_graph *g, int i)
{
    static const struct { int64_t n, tq, tk, c; int heads; bool causal; } k[] = {
        { 2, 5, 5, 8, 2, false }, { 1, 9, 4, 12, 3, false }, { 2, 7, 7, 8, 2, true }, { 1, 3, 20, 10, 1, false },
        { 1, 33, 77, 32, 4, false },
    };
    if (i >= (int)KW_LEN(k))
        return KW_NONE;
    kw_val q = kw_input(g, "q", KW_SHAPE(k[i].n, k[i].tq, k[i].c), g->compute);
    kw_val key = kw_input(g, "k", KW_SHAPE(k[i].n, k[i].tk, k[i].c), g->compute);
    return kw_attention(g, q, key, kw_input(g, "v", KW_SHAPE(k[i].n, k[i].tk, k[i].c), g->compute), k[i].heads,
                        k[i].causal);
}

kw_val kw_attention(kw_graph *g, kw_val q, kw_val k, kw_val v, int heads, bool causal)
{
    return KW_EMIT(g, &kw_op_attention, (&(attention){ heads, causal }), q, k, v);
}

const kw_op kw_op_attention = {
    .name = "attention", .math = "o = softmax(q kᵀ / √d) v per head; lse = log sum exp", .n_in = 3, .n_out = 2,
    .attr_size = sizeof(attention), .infer = attention_infer, .grad = attention_grad, .cost = attention_cost,
    .ref = attention_ref,
    .fast = { { .name = "simd", .fits = kw__activations, .prepare = attention_prepare, .run = attention_run } },
    .cases = attention_cases,
};

/* ---- gradient: p = exp(s - lse), dp = do vᵀ, ds = p (dp - rowsum(do o)) / √d; dq = ds k, dk = dsᵀ q, dv = pᵀ do */

static kw_status grad_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    for (int i = 0; i < 3; i++) {
        shape[i] = kw_shape_of(g, n->in[i]);
        dtype[i] = kw_dtype_of(g, n->in[i]);
    }
    return KW_OK;
}

/* Four products, dv, dp, dq, dk; the scores are q kᵀ once more, which the forward pass has counted. */
static void grad_cost(const kw_graph *g, const kw_node *n, double *flops)
{
    kw_attention_shape s = shape_of(g, n);
    *flops = 8 * pairs(&s);
}

/* in: q, k, v, o, lse, do; out: dq, dk, dv. One query row of one head. */
static void grad_row(const kw_call *c, const kw_attention_shape *s, int64_t i, double *p)
{
    int64_t b = i / (s->heads * s->tq), h = i / s->tq % s->heads, r = i % s->tq, head = h * s->dim;
    int64_t qi = (b * s->tq + r) * s->q_stride + head, ki = b * s->tk * s->k_stride + head;
    const double *q = (const double *)c->in[0] + qi, *k = (const double *)c->in[1] + ki,
                 *v = (const double *)c->in[2] + ki;
    const double *o = (const double *)c->in[3] + qi, *d_o = (const double *)c->in[5] + qi;
    double *dq = (double *)c->out[0] + qi, *dk = (double *)c->out[1] + ki, *dv = (double *)c->out[2] + ki, delta = 0;
    int n = scores(s, q, k, (int)r, p);
    for (int d = 0; d < s->dim; d++)
        delta += d_o[d] * o[d];
    for (int j = 0; j < n; j++) {
        double pj = exp(p[j] - ((const double *)c->in[4])[i]), dp = 0;
        for (int d = 0; d < s->dim; d++)
            dp += d_o[d] * v[j * s->v_stride + d];
        double ds = pj * (dp - delta) / sqrt((double)s->dim);
        for (int d = 0; d < s->dim; d++) {
            dq[d] += ds * k[j * s->k_stride + d];
            dk[j * s->k_stride + d] += ds * q[d];
            dv[j * s->v_stride + d] += pj * d_o[d];
        }
    }
}

static void grad_ref(const kw_call *c)
{
    kw_attention_shape s = shape_of(c->g, c->node);
    double *p = kw_block_new(sizeof *p * (size_t)s.tk);
    for (int i = 0; i < 3; i++)
        memset(c->out[i], 0, sizeof(double) * (size_t)kw_count(SHAPE_OUT(c, i)));
    for (int64_t i = 0; i < (int64_t)s.batch * s.heads * s.tq; i++)
        grad_row(c, &s, i, p);
    kw_block_free(p);
}

static kw_status grad_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    (void)e;
    kw_attention_shape s = shape_of(g, n);
    need->scratch = kw_kern_get()->attention_grad_scratch(kw_dtype_of(g, n->in[0]), &s, kw_threads());
    return KW_OK;
}

static void grad_run(const kw_call *c)
{
    kw_attention_shape s = shape_of(c->g, c->node);
    kw_kern_get()->attention_grad(TYPE_IN(c, 0), &s, c->in[0], c->in[1], c->in[2], c->in[3], c->in[4], c->in[5],
                                  c->out[0], c->out[1], c->out[2], c->scratch);
}

const kw_op kw_op_attention_grad = {
    .name = "attention_grad", .math = "dq, dk, dv of attention, scores recomputed from lse", .n_in = 6, .n_out = 3,
    .attr_size = sizeof(attention), .infer = grad_infer, .no_grad = SECOND, .cost = grad_cost, .ref = grad_ref,
    .fast = { { .name = "simd", .fits = kw__activations, .prepare = grad_prepare, .run = grad_run } },
};
