/* update.c - how parameters move: one op over a flat range. The new values are bound to the old ones' storage. */
#include "op.h"

#include <math.h>

/* ---- AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), PyTorch's order of operations ------------------------ */

enum { RATE, DECAY, BIAS1, BIAS2, CLIP };

static kw_status adamw_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    for (int i = 1; i < 4; i++)
        KW_TRY(kw__same(g, n->in[0], n->in[i], e));
    if (kw_count(kw_shape_of(g, n->in[4])) != 5)
        return kw_fail(e, KW_EDATA, "AdamW needs five scalars");
    for (int i = 0; i < 3; i++) {
        shape[i] = kw_shape_of(g, n->in[0]);
        dtype[i] = kw_dtype_of(g, n->in[0]);
    }
    return KW_OK;
}

/* in: p, grad, m, v, scalars; out: p, m, v */
static void adamw_ref(const kw_call *c)
{
    const kw_adam *a = ATTR(c->node, kw_adam);
    const double *s = c->in[4], b1 = (double)a->beta1, b2 = (double)a->beta2;
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++) {
        double p = ((const double *)c->in[0])[i], grad = ((const double *)c->in[1])[i] * s[CLIP];
        double m = ((const double *)c->in[2])[i] * b1 + (1 - b1) * grad;
        double v = ((const double *)c->in[3])[i] * b2 + (1 - b2) * grad * grad;
        ((double *)c->out[0])[i] = p * (1 - s[RATE] * s[DECAY]) - s[RATE] / s[BIAS1] * m
            / (sqrt(v) / sqrt(s[BIAS2]) + (double)a->eps);
        ((double *)c->out[1])[i] = m;
        ((double *)c->out[2])[i] = v;
    }
}

static bool all_f32(const kw_graph *g, const kw_node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (kw_dtype_of(g, n->in[i]) != KW_F32)
            return false;
    return true;
}

static void copy(float *to, const float *from, int64_t n)
{
    if (to != from)
        kw_kern_get()->convert(KW_F32, to, KW_F32, from, n);
}

static void adamw_run(const kw_call *c)
{
    const kw_adam *a = ATTR(c->node, kw_adam);
    const float *s = c->in[4];
    int64_t n = kw_count(SHAPE_IN(c, 0));
    kw_adamw o = { .rate = s[RATE], .beta1 = a->beta1, .beta2 = a->beta2, .eps = a->eps, .decay = s[DECAY],
                   .bias1 = s[BIAS1], .bias2 = s[BIAS2], .clip = s[CLIP] };
    copy(c->out[0], c->in[0], n);
    copy(c->out[1], c->in[2], n);
    copy(c->out[2], c->in[3], n);
    kw_kern_get()->adamw(&o, c->out[0], c->in[1], c->out[1], c->out[2], n);
}

static kw_val adamw_cases(kw_graph *g, int i)
{
    if (i)
        return KW_NONE;
    kw_dtype t = kw_sum_type(g->compute);
    kw_val x[4];
    for (int k = 0; k < 4; k++)
        x[k] = kw_input(g, "flat", KW_SHAPE(1001), t);
    kw_val positive = kw_mul(g, x[3], x[3]), s = kw_input(g, "s", KW_SHAPE(5), t);
    return kw_adamw_step(g, x[0], x[1], x[2], positive, kw_mul(g, s, s), (kw_adam){ 0.9f, 0.99f, 1e-2f });
}

kw_val kw_adamw_step(kw_graph *g, kw_val p, kw_val grad, kw_val m, kw_val v, kw_val scalars, kw_adam c)
{
    return KW_EMIT(g, &kw_op_adamw, &c, p, grad, m, v, scalars);
}

const kw_op kw_op_adamw = {
    .name = "adamw",
    .math = "m = β₁m + (1-β₁)g, v = β₂v + (1-β₂)g², p = (1 - rate decay) p - rate m̂ / (√v̂ + ε)",
    .n_in = 5, .n_out = 3,
    .attr_size = sizeof(kw_adam), .infer = adamw_infer, .no_grad = "nothing is learned through an update",
    .ref = adamw_ref,
    .fast = { { .name = "simd", .fits = all_f32, .run = adamw_run } }, .in_place = true, .cases = adamw_cases,
};

/* ---- lerp: the moving average of weights ------------------------------------------------------------------------ */

static kw_status lerp_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__same(g, n->in[0], n->in[1], e));
    return kw__like_first(g, n, shape, dtype, e);
}

static void lerp_ref(const kw_call *c)
{
    double keep = *(const double *)c->in[2];
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++)
        ((double *)c->out[0])[i] = keep * ((const double *)c->in[0])[i] + (1 - keep) * ((const double *)c->in[1])[i];
}

static void lerp_run(const kw_call *c)
{
    int64_t n = kw_count(SHAPE_IN(c, 0));
    copy(c->out[0], c->in[0], n);
    kw_kern_get()->lerp(c->out[0], c->in[1], *(const float *)c->in[2], n);
}

static kw_val lerp_cases(kw_graph *g, int i)
{
    kw_dtype t = kw_sum_type(g->compute);
    return i ? KW_NONE : kw_lerp(g, kw_input(g, "y", KW_SHAPE(77), t), kw_input(g, "x", KW_SHAPE(77), t),
                                 kw_input(g, "keep", KW_SHAPE(1), t));
}

kw_val kw_lerp(kw_graph *g, kw_val y, kw_val x, kw_val keep) { return KW_EMIT(g, &kw_op_lerp, NULL, y, x, keep); }

const kw_op kw_op_lerp = {
    .name = "lerp", .math = "y = keep y + (1 - keep) x", .n_in = 3, .n_out = 1, .infer = lerp_infer,
    .no_grad = "nothing is learned through an average",
    .ref = lerp_ref, .fast = { { .name = "simd", .fits = all_f32, .run = lerp_run } }, .in_place = true,
    .cases = lerp_cases,
};

/* ---- sum of squares, in double: the norm of a gradient; not finite as soon as one element is not ----------------- */

static kw_status sum_squares_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)g, (void)n, (void)e;
    shape[0] = KW_SHAPE(1);
    dtype[0] = KW_F64;
    return KW_OK;
}

static void sum_squares_ref(const kw_call *c)
{
    double sum = 0;
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++)
        sum += ((const double *)c->in[0])[i] * ((const double *)c->in[0])[i];
    *(double *)c->out[0] = sum;
}

static void sum_squares_run(const kw_call *c)
{
    *(double *)c->out[0] = kw_kern_get()->sum_squares(c->in[0], kw_count(SHAPE_IN(c, 0)));
}

static kw_val sum_squares_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_sum_squares(g, kw_input(g, "x", KW_SHAPE(9999), kw_sum_type(g->compute)));
}

kw_val kw_sum_squares(kw_graph *g, kw_val x) { return KW_EMIT(g, &kw_op_sum_squares, NULL, x); }

const kw_op kw_op_sum_squares = {
    .name = "sum_squares", .math = "y = sum x²", .n_in = 1, .n_out = 1, .infer = sum_squares_infer,
    .no_grad = "a measure, not a loss",
    .ref = sum_squares_ref, .fast = { { .name = "simd", .fits = all_f32, .run = sum_squares_run } },
    .cases = sum_squares_cases,
};
