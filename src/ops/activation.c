/* activation.c - SiLU, GELU and their kind, and GEGLU (Shazeer 2020, arXiv:2002.05202). */
#include "op.h"

#include <math.h>

typedef struct { kw_unary f; } unary;

/* Value and slope of each function, in double. */
static double value(kw_unary f, double x)
{
    switch (f) {
    case KW_SILU: return x / (1 + exp(-x));
    case KW_GELU: return 0.5 * x * erfc(-x * M_SQRT1_2);
    case KW_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case KW_GELU_TANH: return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    default: return 1 / (1 + exp(-x));
    }
}

static double slope(kw_unary f, double x)
{
    double s, t;
    switch (f) {
    case KW_SILU: s = 1 / (1 + exp(-x)); return s * (1 + x * (1 - s));
    case KW_GELU: return 0.5 * erfc(-x * M_SQRT1_2) + x * exp(-0.5 * x * x) * 0.3989422804014327;
    case KW_QUICK_GELU: s = 1 / (1 + exp(-1.702 * x)); return s * (1 + 1.702 * x * (1 - s));
    case KW_GELU_TANH:
        t = tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
    default: s = 1 / (1 + exp(-x)); return s * (1 - s);
    }
}

/* ---- unary ------------------------------------------------------------------------------------------ */

static void unary_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_unary_grad, n->attr, n->in[0], dout[0]);
}

static void unary_ref(const kw_call *c)
{
    const double *x = c->in[0];
    double *y = c->out[0];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++)
        y[i] = value(ATTR(c->node, unary)->f, x[i]);
}

static void unary_run(const kw_call *c)
{
    kw_kern_get()->unary(TYPE_IN(c, 0), ATTR(c->node, unary)->f, c->in[0], c->out[0], kw_count(SHAPE_OUT(c, 0)));
}

static kw_val unary_cases(kw_graph *g, int i)
{
    return i < KW_N_UNARY ? kw_activation(g, (kw_unary)i, kw_input(g, "x", KW_SHAPE(3, 41), g->compute)) : KW_NONE;
}

kw_val kw_activation(kw_graph *g, kw_unary f, kw_val x) { return KW_EMIT(g, &kw_op_unary, (&(unary){ f }), x); }

const kw_op kw_op_unary = {
    .name = "unary", .math = "y = f(x), f of SiLU GELU quick-GELU tanh-GELU sigmoid", .n_in = 1, .n_out = 1,
    .attr_size = sizeof(unary), .infer = kw__like_first, .grad = unary_grad, .ref = unary_ref,
    .fast = { { .name = "simd", .fits = kw__activations, .run = unary_run } }, .in_place = true, .cheap = true,
    .cases = unary_cases,
};

static void unary_grad_ref(const kw_call *c)
{
    const double *x = c->in[0], *dy = c->in[1];
    double *dx = c->out[0];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++)
        dx[i] = dy[i] * slope(ATTR(c->node, unary)->f, x[i]);
}

static void unary_grad_run(const kw_call *c)
{
    kw_kern_get()->unary_grad(TYPE_IN(c, 0), ATTR(c->node, unary)->f, c->in[0], c->in[1], c->out[0],
                              kw_count(SHAPE_OUT(c, 0)));
}

const kw_op kw_op_unary_grad = {
    .name = "unary_grad", .math = "dx = f'(x) dy", .n_in = 2, .n_out = 1, .attr_size = sizeof(unary),
    .infer = kw__like_first,
    .no_grad = SECOND, .ref = unary_grad_ref, .fast = { { .name = "simd", .fits = kw__activations,
                                                          .run = unary_grad_run } },
    .in_place = true, .cheap = true,
};

/* ---- geglu: value * gelu(gate), the value half first (diffusers) ------------------------------------ */

static kw_status geglu_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    if (kw_last(shape[0]) % 2)
        return kw_fail(e, KW_EDATA, "%lld channels cannot be halved", (long long)kw_last(shape[0]));
    shape[0].d[shape[0].rank - 1] /= 2;
    return KW_OK;
}

static void geglu_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_geglu_grad, NULL, n->in[0], dout[0]);
}

static void geglu_ref(const kw_call *c)
{
    const double *x = c->in[0];
    double *y = c->out[0];
    int64_t ch = kw_last(SHAPE_OUT(c, 0));
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++) {
        const double *row = x + i / ch * 2 * ch;
        y[i] = row[i % ch] * value(KW_GELU, row[ch + i % ch]);
    }
}

static void geglu_run(const kw_call *c)
{
    kw_kern_get()->geglu(TYPE_IN(c, 0), c->in[0], c->out[0], kw__rows(SHAPE_OUT(c, 0)), (int)kw_last(SHAPE_OUT(c, 0)));
}

static kw_val geglu_cases(kw_graph *g, int i)
{
    return i < 2 ? kw_geglu(g, kw_input(g, "x", KW_SHAPE(2, 3, i ? 6 : 38), g->compute)) : KW_NONE;
}

kw_val kw_geglu(kw_graph *g, kw_val x) { return KW_EMIT(g, &kw_op_geglu, NULL, x); }

const kw_op kw_op_geglu = {
    .name = "geglu", .math = "y = value gelu(gate)", .n_in = 1, .n_out = 1, .infer = geglu_infer, .grad = geglu_grad,
    .ref = geglu_ref,
    .fast = { { .name = "simd", .fits = kw__activations, .run = geglu_run } }, .cheap = true, .cases = geglu_cases,
};

static void geglu_grad_ref(const kw_call *c)
{
    const double *x = c->in[0], *dy = c->in[1];
    double *dx = c->out[0];
    int64_t ch = kw_last(SHAPE_IN(c, 1));
    for (int64_t i = 0, n = kw_count(SHAPE_IN(c, 1)); i < n; i++) {
        int64_t v = i / ch * 2 * ch + i % ch;
        dx[v] = dy[i] * value(KW_GELU, x[v + ch]);
        dx[v + ch] = dy[i] * x[v] * slope(KW_GELU, x[v + ch]);
    }
}

static void geglu_grad_run(const kw_call *c)
{
    kw_kern_get()->geglu_grad(TYPE_IN(c, 0), c->in[0], c->in[1], c->out[0], kw__rows(SHAPE_IN(c, 1)),
                              (int)kw_last(SHAPE_IN(c, 1)));
}

const kw_op kw_op_geglu_grad = {
    .name = "geglu_grad", .math = "dvalue = dy gelu(gate), dgate = dy value gelu'(gate)", .n_in = 2, .n_out = 1,
    .infer = kw__like_first, .no_grad = SECOND, .ref = geglu_grad_ref,
    .fast = { { .name = "simd", .fits = kw__activations, .run = geglu_grad_run } }, .cheap = true,
};
