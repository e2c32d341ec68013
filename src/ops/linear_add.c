/*
 * linear_add.c - a product and the sum after it in one: y = y0 + a x wᵀ (+ bias), or y0 + a x w (the gradient of the first
 * towards its input). No model is written with it: kw_fuse finds the pairs. y0 may be overwritten by y, so that a branch
 * of an adapter, or one of several gradients of a value, is added where the sum lies.
 */
#include "linear.h"

#include <string.h>

enum { Y0, X, WEIGHT, BIAS };

typedef struct { float a; bool back; } linear_add;

static int64_t outputs(const kw_graph *g, const kw_node *n)
{
    kw_shape w = kw_shape_of(g, n->in[WEIGHT]);
    return ATTR(n, linear_add)->back ? kw_count(w) / w.d[0] : w.d[0];
}

static kw_status add_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape y = kw_shape_of(g, n->in[Y0]), x = kw_shape_of(g, n->in[X]), w = kw_shape_of(g, n->in[WEIGHT]);
    int64_t in = kw_count(w) / outputs(g, n);
    if (in != kw_last(x) || kw_last(y) != outputs(g, n) || kw__rows(x) != kw__rows(y)) {
        char s[3][64];
        return kw_fail(e, KW_EDATA, "%s plus a product of %s with %s", kw_dims_text(y, s[0]), kw_dims_text(x, s[1]),
                       kw_dims_text(w, s[2]));
    }
    return kw__like_first(g, n, shape, dtype, e);
}

static void add_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    const linear_add c = *ATTR(n, linear_add);
    kw_val dy = c.a == 1 ? dout[0] : kw_scale(g, dout[0], c.a), x = n->in[X], w = n->in[WEIGHT];
    din[Y0] = want[Y0] ? dout[0] : KW_NONE;
    if (want[X])
        din[X] = c.back ? kw_linear_as(g, dy, w, KW_NONE, kw_dtype_of(g, x)) : kw__linear_dx(g, dy, w, kw_dtype_of(g, x));
    if (want[WEIGHT])
        din[WEIGHT] = kw_reshape(g, c.back ? kw__linear_dw(g, dy, x) : kw__linear_dw(g, x, dy), kw_shape_of(g, w));
    if (want[BIAS])
        din[BIAS] = kw_sum_leading(g, dout[0], 1);
}

static void add_cost(const kw_graph *g, const kw_node *n, double *flops)
{
    *flops = 2 * (double)kw_count(kw_shape_of(g, n->in[X])) * (double)outputs(g, n);
}

static void add_ref(const kw_call *c)
{
    const linear_add t = *ATTR(c->node, linear_add);
    const double *y0 = c->in[Y0], *x = c->in[X], *w = c->in[WEIGHT], *bias = c->in[BIAS];
    double *y = c->out[0];
    int64_t n = outputs(c->g, c->node), in = kw_last(SHAPE_IN(c, X)), count = kw_count(SHAPE_OUT(c, 0));
    for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        for (int64_t k = 0; k < in; k++)
            sum += x[i / n * in + k] * (t.back ? w[k * n + i % n] : w[i % n * in + k]);
        y[i] = y0[i] + (double)t.a * sum + (bias ? bias[i % n] : 0);
    }
}

static kw_gemm_shape product(const kw_graph *g, const kw_node *n)
{
    const linear_add *t = ATTR(n, linear_add);
    kw_gemm_shape s = (t->back ? kw__linear_back : kw__linear_forward)(g, n->in[X], n->in[WEIGHT], n->out[0]);
    s.alpha = t->a;
    s.beta = 1;
    return s;
}

static kw_status add_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_gemm_shape s = product(g, n);
    need->scratch = kw_gemm_scratch_size(&s);
    return kw__linear_need(g, n, WEIGHT, s.b, need, e);
}

static void add_run(const kw_call *c)
{
    kw_gemm_shape s = product(c->g, c->node);
    if (c->out[0] != c->in[Y0])
        kw_kern_get()->convert(s.c, c->out[0], s.c, c->in[Y0], kw_count(SHAPE_OUT(c, 0)));
    kw_gemm(&s, c->in[X], c->packed ? c->packed : c->in[WEIGHT], c->in[BIAS], c->out[0], c->scratch);
}

static bool add_fits(const kw_graph *g, const kw_node *n)
{
    return kw__linear_fits(g, n->in[X], n->in[WEIGHT], n->out[0])
        && (n->in[BIAS] < 0 || kw_dtype_of(g, n->in[BIAS]) == KW_F32);
}

kw_val kw_linear_add(kw_graph *g, kw_val y0, float a, kw_val x, kw_val w, kw_val bias, bool back)
{
    return KW_EMIT(g, &kw_op_linear_add, (&(linear_add){ a, back }), y0, x, w, bias);
}

static kw_val add_cases(kw_graph *g, int i)
{
    kw_dtype t = kw_sum_type(g->compute);
    kw_val y0 = kw_input(g, "y0", KW_SHAPE(2, 5, 12), g->compute);
    kw_val x = kw_input(g, "x", KW_SHAPE(2, 5, 7), i == 2 ? t : g->compute);
    switch (i) {
    case 0: return kw_linear_add(g, y0, 1, x, kw_input(g, "w", KW_SHAPE(12, 7), t), kw_input(g, "b", KW_SHAPE(12), t), false);
    case 1: return kw_linear_add(g, y0, -0.5f, x, kw_input(g, "w", KW_SHAPE(7, 12), t), KW_NONE, true);
    case 2: return kw_linear_add(g, y0, 2, x, kw_input(g, "w", KW_SHAPE(12, 7), t), KW_NONE, false);
    case 3: return kw_linear_add(g, kw_silu(g, y0), 1, x, kw_input(g, "w", KW_SHAPE(12, 7), g->compute), KW_NONE, false);
    default: return KW_NONE;
    }
}

const kw_op kw_op_linear_add = {
    .name = "linear_add", .math = "y = y0 + a x wᵀ + bias  or  y0 + a x w", .n_in = 4, .n_optional = 1, .n_out = 1,
    .attr_size = sizeof(linear_add), .infer = add_infer, .grad = add_grad, .cost = add_cost, .ref = add_ref,
    .fast = { { .name = "gemm", .fits = add_fits, .prepare = add_prepare, .pack = kw__linear_pack, .run = add_run,
                .release = kw__linear_release } },
    .in_place = true, .cases = add_cases,
};
