/* elementwise.c - sums, products and scales of values of one shape. */
#include "op.h"

/* ---- lincomb: y = a x + b z ------------------------------------------------------------------- */

typedef struct { float a, b; } lincomb;

static kw_status lincomb_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    if (n->in[1] >= 0)
        KW_TRY(kw__same(g, n->in[0], n->in[1], e));
    return kw__like_first(g, n, shape, dtype, e);
}

static void lincomb_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    const lincomb c = *ATTR(n, lincomb);
    if (want[0])
        din[0] = c.a == 1 ? dout[0] : kw_scale(g, dout[0], c.a);
    if (want[1])
        din[1] = c.b == 1 ? dout[0] : kw_scale(g, dout[0], c.b);
}

static void lincomb_ref(const kw_call *c)
{
    const lincomb k = *ATTR(c->node, lincomb);
    const double *x = c->in[0], *z = c->in[1];
    double *y = c->out[0];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++)
        y[i] = (double)k.a * x[i] + (z ? (double)k.b * z[i] : 0);
}

static bool lincomb_fits(const kw_graph *g, const kw_node *n)
{
    return kw__activations(g, n) && (n->in[1] < 0 || kw_dtype_of(g, n->in[0]) == kw_dtype_of(g, n->in[1]));
}

static void lincomb_run(const kw_call *c)
{
    const lincomb k = *ATTR(c->node, lincomb);
    kw_kern_get()->lincomb(TYPE_IN(c, 0), k.a, c->in[0], k.b, c->in[1], c->out[0], kw_count(SHAPE_OUT(c, 0)));
}

static kw_val lincomb_cases(kw_graph *g, int i)
{
    kw_shape s = KW_SHAPE(2, 3, 37);
    kw_val x = kw_input(g, "x", s, g->compute);
    switch (i) {
    case 0: return kw_axby(g, 1, x, 1, kw_input(g, "z", s, g->compute));
    case 1: return kw_axby(g, -0.5f, x, 2, kw_input(g, "z", s, g->compute));
    case 2: return kw_scale(g, x, 3);
    case 3: return kw_add(g, x, x);
    default: return KW_NONE;
    }
}

kw_val kw_axby(kw_graph *g, float a, kw_val x, float b, kw_val z)
{
    return KW_EMIT(g, &kw_op_lincomb, (&(lincomb){ a, b }), x, z);
}

bool kw_is_axby(const kw_node *n, float *a, float *b)
{
    if (n->op != &kw_op_lincomb || n->in[1] < 0)
        return false;
    *a = ATTR(n, lincomb)->a;
    *b = ATTR(n, lincomb)->b;
    return true;
}

const kw_op kw_op_lincomb = {
    .name = "lincomb", .math = "y = a x + b z", .n_in = 2, .n_optional = 1, .n_out = 1, .attr_size = sizeof(lincomb),
    .infer = lincomb_infer, .grad = lincomb_grad, .ref = lincomb_ref,
    .fast = { { .name = "simd", .fits = lincomb_fits, .run = lincomb_run } },
    .in_place = true, .cheap = true, .cases = lincomb_cases,
};

/* ---- mul: y = x z ------------------------------------------------------------------------------ */

static void mul_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = kw_mul(g, dout[0], n->in[1]);
    if (want[1])
        din[1] = kw_mul(g, dout[0], n->in[0]);
}

static void mul_ref(const kw_call *c)
{
    const double *x = c->in[0], *z = c->in[1];
    double *y = c->out[0];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++)
        y[i] = x[i] * z[i];
}

static void mul_run(const kw_call *c)
{
    kw_kern_get()->mul(TYPE_IN(c, 0), c->in[0], c->in[1], c->out[0], kw_count(SHAPE_OUT(c, 0)));
}

static kw_val mul_cases(kw_graph *g, int i)
{
    kw_val x = kw_input(g, "x", KW_SHAPE(5, 29), g->compute);
    if (i == 0)
        return kw_mul(g, x, kw_input(g, "z", KW_SHAPE(5, 29), g->compute));
    return i == 1 ? kw_mul(g, x, x) : KW_NONE;
}

kw_val kw_mul(kw_graph *g, kw_val x, kw_val z) { return KW_EMIT(g, &kw_op_mul, NULL, x, z); }

const kw_op kw_op_mul = {
    .name = "mul", .math = "y = x z", .n_in = 2, .n_out = 1, .infer = lincomb_infer, .grad = mul_grad, .ref = mul_ref,
    .fast = { { .name = "simd", .fits = lincomb_fits, .run = mul_run } }, .in_place = true, .cheap = true,
    .cases = mul_cases,
};

/* ---- mix: y[n] = a[n] x[n] + b[n] z[n]: noising, targets, conversions between predictions ------- */

static kw_status mix_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape s = kw_shape_of(g, n->in[0]);
    KW_TRY(kw__same(g, n->in[0], n->in[1], e));
    for (int k = 2; k < 4; k++)
        if (kw_count(kw_shape_of(g, n->in[k])) != s.d[0])
            return kw_fail(e, KW_EDATA, "one coefficient for each of %lld samples is needed", (long long)s.d[0]);
    return kw__like_first(g, n, shape, dtype, e);
}

/* The coefficients come from the host's schedule and are never trained. */
static void mix_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    kw_val dy = dout[0];
    if (want[0])
        din[0] = kw_blend(g, dy, dy, n->in[2], kw_scale(g, n->in[2], 0));
    if (want[1])
        din[1] = kw_blend(g, dy, dy, n->in[3], kw_scale(g, n->in[3], 0));
    for (int k = 0; k < 2; k++)
        if (want[2 + k])
            din[2 + k] = kw_reshape(
                g, kw_sum_pixels(g, kw_reshape(g, kw_mul(g, dy, n->in[k]),
                                               KW_SHAPE(kw_shape_of(g, dy).d[0],
                                                        kw_count(kw_shape_of(g, dy)) / kw_shape_of(g, dy).d[0], 1))),
                kw_shape_of(g, n->in[2 + k]));
}

static void mix_ref(const kw_call *c)
{
    const double *x = c->in[0], *z = c->in[1], *a = c->in[2], *b = c->in[3];
    double *y = c->out[0];
    int64_t n = SHAPE_IN(c, 0).d[0], m = kw_count(SHAPE_IN(c, 0)) / n;
    for (int64_t i = 0; i < n * m; i++)
        y[i] = a[i / m] * x[i] + b[i / m] * z[i];
}

static void mix_run(const kw_call *c)
{
    const char *x = c->in[0], *z = c->in[1];
    const float *a = c->in[2], *b = c->in[3];
    int64_t n = SHAPE_IN(c, 0).d[0], m = kw_count(SHAPE_IN(c, 0)) / n;
    size_t bytes = (size_t)m * kw_dtype_size(TYPE_IN(c, 0));
    for (int64_t i = 0; i < n; i++)
        kw_kern_get()->lincomb(TYPE_IN(c, 0), a[i], x + bytes * (size_t)i, b[i], z + bytes * (size_t)i,
                               (char *)c->out[0] + bytes * (size_t)i, m);
}

static bool mix_fits(const kw_graph *g, const kw_node *n)
{
    return lincomb_fits(g, n) && kw_dtype_of(g, n->in[2]) == KW_F32 && kw_dtype_of(g, n->in[3]) == KW_F32;
}

static kw_val mix_cases(kw_graph *g, int i)
{
    if (i > 0)
        return KW_NONE;
    kw_dtype t = kw_sum_type(g->compute);
    kw_shape s = KW_SHAPE(3, 2, 2, 5);
    return kw_blend(g, kw_input(g, "x", s, g->compute), kw_input(g, "z", s, g->compute),
                    kw_input(g, "a", KW_SHAPE(3), t), kw_input(g, "b", KW_SHAPE(3), t));
}

kw_val kw_blend(kw_graph *g, kw_val x, kw_val z, kw_val a, kw_val b)
{
    return KW_EMIT(g, &kw_op_mix, NULL, x, z, a, b);
}

const kw_op kw_op_mix = {
    .name = "mix", .math = "y[n] = a[n] x[n] + b[n] z[n]", .n_in = 4, .n_out = 1, .infer = mix_infer, .grad = mix_grad,
    .ref = mix_ref, .fast = { { .name = "simd", .fits = mix_fits, .run = mix_run } }, .in_place = true, .cheap = true,
    .cases = mix_cases,
};

/* ---- scale_by: y = s x with s a number known only at run time; dot is its other half ------------ */

static void scale_by_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = kw_scale_by(g, dout[0], n->in[1]);
    if (want[1])
        din[1] = kw_dot(g, dout[0], n->in[0]);
}

static void scale_by_ref(const kw_call *c)
{
    const double *x = c->in[0], *s = c->in[1];
    double *y = c->out[0];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++)
        y[i] = s[0] * x[i];
}

static bool scale_by_fits(const kw_graph *g, const kw_node *n)
{
    return kw__activations(g, n) && kw_dtype_of(g, n->in[1]) == KW_F32;
}

static void scale_by_run(const kw_call *c)
{
    kw_kern_get()->lincomb(TYPE_IN(c, 0), *(const float *)c->in[1], c->in[0], 0, NULL, c->out[0],
                           kw_count(SHAPE_OUT(c, 0)));
}

static kw_val scale_by_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_scale_by(g, kw_input(g, "x", KW_SHAPE(2, 19), g->compute),
                                     kw_input(g, "s", KW_SHAPE(1), kw_sum_type(g->compute)));
}

kw_val kw_scale_by(kw_graph *g, kw_val x, kw_val s) { return KW_EMIT(g, &kw_op_scale_by, NULL, x, s); }

const kw_op kw_op_scale_by = {
    .name = "scale_by", .math = "y = s[0] x", .n_in = 2, .n_out = 1, .infer = kw__like_first, .grad = scale_by_grad,
    .ref = scale_by_ref, .fast = { { .name = "simd", .fits = scale_by_fits, .run = scale_by_run } },
    .in_place = true, .cheap = true, .cases = scale_by_cases,
};

static kw_status dot_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__same(g, n->in[0], n->in[1], e));
    shape[0] = KW_SHAPE(1);
    dtype[0] = kw_sum_type(kw_dtype_of(g, n->in[0]));
    return KW_OK;
}

static void dot_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    for (int k = 0; k < 2; k++)
        if (want[k])
            din[k] = kw_scale_by(g, n->in[1 - k], dout[0]);
}

static void dot_ref(const kw_call *c)
{
    const double *x = c->in[0], *z = c->in[1];
    double sum = 0;
    for (int64_t i = 0, n = kw_count(SHAPE_IN(c, 0)); i < n; i++)
        sum += x[i] * z[i];
    *(double *)c->out[0] = sum;
}

static kw_val dot_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_dot(g, kw_input(g, "x", KW_SHAPE(3, 7), g->compute),
                                kw_input(g, "z", KW_SHAPE(3, 7), g->compute));
}

kw_val kw_dot(kw_graph *g, kw_val x, kw_val z) { return KW_EMIT(g, &kw_op_dot, NULL, x, z); }

const kw_op kw_op_dot = {
    .name = "dot", .math = "y = sum x z", .n_in = 2, .n_out = 1, .infer = dot_infer, .grad = dot_grad, .ref = dot_ref,
    .cases = dot_cases,
};

/* ---- cast ---------------------------------------------------------------------------------------- */

typedef struct { kw_dtype to; } cast;

static kw_status cast_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    shape[0] = kw_shape_of(g, n->in[0]);
    dtype[0] = ATTR(n, cast)->to;
    return KW_OK;
}

static void cast_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = kw_cast(g, dout[0], kw_dtype_of(g, n->in[0]));
}

static void cast_ref(const kw_call *c)
{
    const double *x = c->in[0];
    double *y = c->out[0];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++)
        y[i] = x[i];
}

static bool cast_fits(const kw_graph *g, const kw_node *n)
{
    kw_dtype from = kw_dtype_of(g, n->in[0]), to = kw_dtype_of(g, n->out[0]);
    return (from == KW_F32 || from == KW_BF16 || from == KW_F16) && (to == KW_F32 || to == KW_BF16 || to == KW_F16);
}

static void cast_run(const kw_call *c)
{
    kw_kern_get()->convert(TYPE_OUT(c, 0), c->out[0], TYPE_IN(c, 0), c->in[0], kw_count(SHAPE_OUT(c, 0)));
}

static kw_val cast_cases(kw_graph *g, int i)
{
    kw_dtype t = g->compute == KW_F64 ? KW_F64 : KW_BF16;
    kw_val x = kw_input(g, "x", KW_SHAPE(4, 9), t);
    return i ? KW_NONE : KW_EMIT(g, &kw_op_cast, (&(cast){ kw_sum_type(t) }), x);
}

kw_val kw_cast(kw_graph *g, kw_val x, kw_dtype t)
{
    return kw_dtype_of(g, x) == t ? x : KW_EMIT(g, &kw_op_cast, (&(cast){ t }), x);
}

const kw_op kw_op_cast = {
    .name = "cast", .math = "y = x in another type", .n_in = 1, .n_out = 1, .attr_size = sizeof(cast),
    .infer = cast_infer,
    .grad = cast_grad, .ref = cast_ref, .fast = { { .name = "simd", .fits = cast_fits, .run = cast_run } },
    .cheap = true, .cases = cast_cases,
};
