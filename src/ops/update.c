/* update.c - how parameters move: one op over a flat range. The new values are bound to the old ones' storage. */
#include "op.h"

#include <math.h>
#include <string.h>

/* ---- AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), PyTorch's order of operations ------------------------ */

enum { RATE, DECAY, BIAS1, BIAS2, CLIP };

typedef struct { kw_adam c; int64_t at; } adamw;

static kw_status adamw_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    for (int i = 1; i < 4; i++)
        KW_TRY(kw__same(g, n->in[0], n->in[i], e));
    if (kw_count(kw_shape_of(g, n->in[4])) != 5)
        return kw_fail(e, KW_EDATA, "AdamW needs five scalars");
    if (kw_dtype_of(g, n->in[0]) == KW_BF16 && n->in[5] < 0)
        return kw_fail(e, KW_EDATA, "AdamW needs a key to round bf16 weights by");
    static const int from[] = { 0, 2, 3 };
    for (int i = 0; i < 3; i++) {
        shape[i] = kw_shape_of(g, n->in[from[i]]);
        dtype[i] = kw_dtype_of(g, n->in[from[i]]);
    }
    return KW_OK;
}

static void adamw_keep(const kw_call *c)
{
    static const int from[] = { 0, 2, 3 };
    for (int i = 0; i < 3; i++)
        memcpy(c->out[i], c->in[from[i]], sizeof(double) * (size_t)kw_count(SHAPE_IN(c, 0)));
}

/* in: p, grad, m, v, scalars, key; out: p, m, v. Which way bf16 weights are rounded is not told here: to the nearest. */
static void adamw_ref(const kw_call *c)
{
    const kw_adam *a = &ATTR(c->node, adamw)->c;
    const double *s = c->in[4], b1 = (double)a->beta1, b2 = (double)a->beta2;
    if (isnan(s[CLIP])) {
        adamw_keep(c);
        return;
    }
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

static bool adamw_fits(const kw_graph *g, const kw_node *n)
{
    kw_dtype t = kw_dtype_of(g, n->in[0]);
    for (int i = 1; i < 5; i++)
        if (kw_dtype_of(g, n->in[i]) != KW_F32)
            return false;
    return t == KW_F32 || t == KW_BF16;
}

static void copy(float *to, const float *from, int64_t n)
{
    if (to != from)
        kw_kern_get()->convert(KW_F32, to, KW_F32, from, n);
}

/* What is not bound to its source's storage is copied first. A clip that is no number: nothing moves. */
static void adamw_run(const kw_call *c)
{
    const kw_adam *a = &ATTR(c->node, adamw)->c;
    const float *s = c->in[4];
    int64_t n = kw_count(SHAPE_IN(c, 0));
    kw_dtype t = TYPE_IN(c, 0);
    kw_adamw o = { .rate = s[RATE], .beta1 = a->beta1, .beta2 = a->beta2, .eps = a->eps, .decay = s[DECAY],
                   .bias1 = s[BIAS1], .bias2 = s[BIAS2], .clip = s[CLIP] };
    if (c->out[0] != c->in[0])
        memcpy(c->out[0], c->in[0], (size_t)n * kw_dtype_size(t));
    copy(c->out[1], c->in[2], n);
    copy(c->out[2], c->in[3], n);
    if (isnan(o.clip))
        return;
    if (t == KW_F32)
        kw_kern_get()->adamw(&o, c->out[0], c->in[1], c->out[1], c->out[2], n);
    else
        kw_kern_get()->adamw_bf16(&o, c->out[0], c->in[1], c->out[1], c->out[2], n, *(const uint64_t *)c->in[5], ATTR(c->node, adamw)->at);
}

static kw_val adamw_cases(kw_graph *g, int i)
{
    if (i > 1)
        return KW_NONE;
    kw_dtype t = kw_sum_type(g->compute);
    kw_val x[4], key = i ? kw_input(g, "key", KW_SHAPE(1), KW_I64) : KW_NONE;
    for (int k = 0; k < 4; k++)
        x[k] = kw_input(g, "flat", KW_SHAPE(1001), k || !i ? t : g->compute);
    kw_val positive = kw_mul(g, x[3], x[3]), s = kw_input(g, "s", KW_SHAPE(5), t);
    return kw_adamw_rounded(g, x[0], x[1], x[2], positive, kw_mul(g, s, s), key, 7, (kw_adam){ 0.9f, 0.99f, 1e-2f });
}

kw_val kw_adamw_rounded(kw_graph *g, kw_val p, kw_val grad, kw_val m, kw_val v, kw_val scalars, kw_val key, int64_t at,
                        kw_adam c)
{
    return KW_EMIT(g, &kw_op_adamw, (&(adamw){ c, at }), p, grad, m, v, scalars, key);
}

kw_val kw_adamw_step(kw_graph *g, kw_val p, kw_val grad, kw_val m, kw_val v, kw_val scalars, kw_adam c)
{
    return kw_adamw_rounded(g, p, grad, m, v, scalars, KW_NONE, 0, c);
}

const kw_op kw_op_adamw = {
    .name = "adamw",
    .math = "m = β₁m + (1-β₁)g, v = β₂v + (1-β₂)g², p = (1 - rate decay) p - rate m̂ / (√v̂ + ε)",
    .n_in = 6, .n_optional = 1, .n_out = 3,
    .attr_size = sizeof(adamw), .infer = adamw_infer, .no_grad = "nothing is learned through an update",
    .ref = adamw_ref,
    .fast = { { .name = "simd", .fits = adamw_fits, .run = adamw_run } }, .in_place = true, .cases = adamw_cases,
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

/* ---- limit: what an update right after its gradient needs to know of it ------------------------------------------ */

static kw_status limit_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    if (kw_count(kw_shape_of(g, n->in[0])) != 5)
        return kw_fail(e, KW_EDATA, "five scalars are limited");
    return kw__like_first(g, n, shape, dtype, e);
}

/* As torch's clip_grad_norm_ over this one tensor. Something that is not finite: no number, and so no step. */
static double limit_of(double most, double squares, double loss)
{
    if (!isfinite(squares) || !isfinite(loss))
        return NAN;
    return most > 0 ? fmin(1, most / (sqrt(squares) + 1e-6)) : 1;
}

static void limit_ref(const kw_call *c)
{
    const double *s = c->in[0];
    memcpy(c->out[0], s, 5 * sizeof *s);
    ((double *)c->out[0])[CLIP] = limit_of(s[CLIP], *(const double *)c->in[1], *(const double *)c->in[2]);
}

static void limit_run(const kw_call *c)
{
    const float *s = c->in[0];
    double factor = limit_of((double)s[CLIP], *(const double *)c->in[1], (double)*(const float *)c->in[2]);
    copy(c->out[0], s, 5);
    ((float *)c->out[0])[CLIP] = (float)factor;
}

static bool limit_fits(const kw_graph *g, const kw_node *n)
{
    return kw_dtype_of(g, n->in[0]) == KW_F32 && kw_dtype_of(g, n->in[1]) == KW_F64
        && kw_dtype_of(g, n->in[2]) == KW_F32;
}

static kw_val limit_cases(kw_graph *g, int i)
{
    kw_dtype t = kw_sum_type(g->compute);
    if (i)
        return KW_NONE;
    kw_val s = kw_input(g, "s", KW_SHAPE(5), t);
    return kw_limit(g, kw_mul(g, s, s), kw_sum_squares(g, kw_input(g, "x", KW_SHAPE(99), t)),
                    kw_input(g, "loss", KW_SHAPE(1), t));
}

kw_val kw_limit(kw_graph *g, kw_val scalars, kw_val squares, kw_val loss)
{
    return KW_EMIT(g, &kw_op_limit, NULL, scalars, squares, loss);
}

const kw_op kw_op_limit = {
    .name = "limit", .math = "clip = min(1, clip / (√squares + 1e-6)); no number if one of them is not finite",
    .n_in = 3, .n_out = 1, .infer = limit_infer, .no_grad = "part of an update",
    .ref = limit_ref, .fast = { { .name = "plain", .fits = limit_fits, .run = limit_run } }, .cases = limit_cases,
};
