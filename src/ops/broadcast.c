/* broadcast.c - additions along channels or rows, and the sums that are their gradients. */
#include "op.h"

#include <string.h>

/* ---- add_channels: y[n][p][c] = x[n][p][c] + v[n][c] -------------------------------------------- */

static kw_status add_channels_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]), v = kw_shape_of(g, n->in[1]);
    if (v.rank != 2 || v.d[0] != x.d[0] || v.d[1] != kw_last(x)) {
        char s[64], t[64];
        return kw_fail(e, KW_EDATA, "cannot add %s to the channels of %s", kw_dims_text(v, s), kw_dims_text(x, t));
    }
    return kw__like_first(g, n, shape, dtype, e);
}

static void add_channels_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    (void)n;
    if (want[0])
        din[0] = dout[0];
    if (want[1])
        din[1] = kw_sum_pixels(g, dout[0]);
}

static void add_channels_ref(const kw_call *c)
{
    kw_shape s = SHAPE_IN(c, 0);
    const double *x = c->in[0], *v = c->in[1];
    double *y = c->out[0];
    int64_t ch = kw_last(s), px = kw__pixels(s);
    for (int64_t i = 0, n = kw_count(s); i < n; i++)
        y[i] = x[i] + v[i / (px * ch) * ch + i % ch];
}

static bool same_types(const kw_graph *g, const kw_node *n)
{
    return kw__activations(g, n) && kw_dtype_of(g, n->in[0]) == kw_dtype_of(g, n->in[1]);
}

static void add_channels_run(const kw_call *c)
{
    kw_shape s = SHAPE_IN(c, 0);
    kw_kern_get()->add_channels(TYPE_IN(c, 0), c->in[0], c->in[1], c->out[0], s.d[0], kw__pixels(s), (int)kw_last(s));
}

static kw_val add_channels_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_add_channels(g, kw_input(g, "x", KW_SHAPE(2, 3, 5, 11), g->compute),
                                         kw_input(g, "v", KW_SHAPE(2, 11), g->compute));
}

kw_val kw_add_channels(kw_graph *g, kw_val x, kw_val v) { return KW_EMIT(g, &kw_op_add_channels, NULL, x, v); }

const kw_op kw_op_add_channels = {
    .name = "add_channels", .math = "y[n][p][c] = x[n][p][c] + v[n][c]", .n_in = 2, .n_out = 1,
    .infer = add_channels_infer,
    .grad = add_channels_grad, .ref = add_channels_ref,
    .fast = { { .name = "simd", .fits = same_types, .run = add_channels_run } },
    .in_place = true, .cheap = true, .cases = add_channels_cases,
};

/* ---- sum_pixels: y[n][c] = sum over p of x[n][p][c] ----------------------------------------------- */

static kw_status sum_pixels_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    kw_shape x = kw_shape_of(g, n->in[0]);
    shape[0] = KW_SHAPE(x.d[0], kw_last(x));
    dtype[0] = kw_sum_type(kw_dtype_of(g, n->in[0]));
    return KW_OK;
}

static kw_val zeros_like(kw_graph *g, kw_val x) { return kw_scale(g, x, 0); }

static void sum_pixels_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = kw_add_channels(g, zeros_like(g, n->in[0]), kw_cast(g, dout[0], kw_dtype_of(g, n->in[0])));
}

static void sum_pixels_ref(const kw_call *c)
{
    kw_shape s = SHAPE_IN(c, 0);
    const double *x = c->in[0];
    double *y = c->out[0];
    int64_t ch = kw_last(s), px = kw__pixels(s);
    memset(y, 0, sizeof *y * (size_t)(s.d[0] * ch));
    for (int64_t i = 0, n = kw_count(s); i < n; i++)
        y[i / (px * ch) * ch + i % ch] += x[i];
}

static void sum_pixels_run(const kw_call *c)
{
    kw_shape s = SHAPE_IN(c, 0);
    kw_kern_get()->sum_pixels(TYPE_IN(c, 0), c->in[0], c->out[0], s.d[0], kw__pixels(s), (int)kw_last(s));
}

static kw_val sum_pixels_cases(kw_graph *g, int i)
{
    static const kw_shape s[] = { { 4, { 2, 3, 5, 11 } }, { 3, { 3, 70, 8 } }, { 2, { 2, 6 } } };
    return i < 3 ? kw_sum_pixels(g, kw_input(g, "x", s[i], g->compute)) : KW_NONE;
}

kw_val kw_sum_pixels(kw_graph *g, kw_val x) { return KW_EMIT(g, &kw_op_sum_pixels, NULL, x); }

const kw_op kw_op_sum_pixels = {
    .name = "sum_pixels", .math = "y[n][c] = sum_p x[n][p][c]", .n_in = 1, .n_out = 1, .infer = sum_pixels_infer,
    .grad = sum_pixels_grad, .ref = sum_pixels_ref,
    .fast = { { .name = "simd", .fits = kw__activations, .run = sum_pixels_run } },
    .cases = sum_pixels_cases,
};

/* ---- add_rows: y = x + v, v repeated over x's leading dimensions --------------------------------- */

static kw_status add_rows_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]), v = kw_shape_of(g, n->in[1]);
    bool fits = v.rank <= x.rank;
    for (int i = 0; fits && i < v.rank; i++)
        fits = v.d[v.rank - 1 - i] == x.d[x.rank - 1 - i];
    if (!fits) {
        char s[64], t[64];
        return kw_fail(e, KW_EDATA, "cannot add %s to every row of %s", kw_dims_text(v, s), kw_dims_text(x, t));
    }
    return kw__like_first(g, n, shape, dtype, e);
}

static void add_rows_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = dout[0];
    if (want[1])
        din[1] = kw_sum_leading(g, dout[0], kw_shape_of(g, n->in[1]).rank);
}

static void add_rows_ref(const kw_call *c)
{
    const double *x = c->in[0], *v = c->in[1];
    double *y = c->out[0];
    int64_t m = kw_count(SHAPE_IN(c, 1));
    for (int64_t i = 0, n = kw_count(SHAPE_IN(c, 0)); i < n; i++)
        y[i] = x[i] + v[i % m];
}

/* v may be f32 beside bf16 activations: it is a parameter. */
static void add_rows_run(const kw_call *c)
{
    int64_t m = kw_count(SHAPE_IN(c, 1)), rows = kw_count(SHAPE_IN(c, 0)) / m;
    kw_dtype t = TYPE_IN(c, 0);
    size_t bytes = (size_t)m * kw_dtype_size(t);
    const void *v = c->in[1];
    if (TYPE_IN(c, 1) != t) {
        kw_kern_get()->convert(t, c->scratch, TYPE_IN(c, 1), v, m);
        v = c->scratch;
    }
    for (int64_t i = 0; i < rows; i++)
        kw_kern_get()->lincomb(t, 1, (const char *)c->in[0] + bytes * (size_t)i, 1, v,
                               (char *)c->out[0] + bytes * (size_t)i, m);
}

static kw_status add_rows_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    (void)e;
    need->scratch = (size_t)kw_count(kw_shape_of(g, n->in[1])) * 4;
    return KW_OK;
}

static kw_val add_rows_cases(kw_graph *g, int i)
{
    kw_val x = kw_input(g, "x", KW_SHAPE(3, 4, 10), g->compute);
    if (i == 0)
        return kw_add_rows(g, x, kw_input(g, "v", KW_SHAPE(4, 10), kw_sum_type(g->compute)));
    return i == 1 ? kw_add_rows(g, x, kw_input(g, "v", KW_SHAPE(10), kw_sum_type(g->compute))) : KW_NONE;
}

kw_val kw_add_rows(kw_graph *g, kw_val x, kw_val v) { return KW_EMIT(g, &kw_op_add_rows, NULL, x, v); }

const kw_op kw_op_add_rows = {
    .name = "add_rows", .math = "y[i][j] = x[i][j] + v[j]", .n_in = 2, .n_out = 1, .infer = add_rows_infer,
    .grad = add_rows_grad,
    .ref = add_rows_ref, .fast = { { .name = "simd", .fits = kw__activations, .prepare = add_rows_prepare,
                                     .run = add_rows_run } },
    .in_place = true, .cheap = true, .cases = add_rows_cases,
};

/* ---- sum_leading: y[j] = sum over i of x[i][j]: gradients of biases and position tables ----------- */

typedef struct { int rank; } sum_leading;

static kw_status sum_leading_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    kw_shape x = kw_shape_of(g, n->in[0]);
    int rank = ATTR(n, sum_leading)->rank;
    shape[0].rank = rank;
    for (int i = 0; i < rank; i++)
        shape[0].d[i] = x.d[x.rank - rank + i];
    dtype[0] = kw_sum_type(kw_dtype_of(g, n->in[0]));
    return KW_OK;
}

static void sum_leading_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = kw_add_rows(g, zeros_like(g, n->in[0]), dout[0]);
}

static void sum_leading_ref(const kw_call *c)
{
    const double *x = c->in[0];
    double *y = c->out[0];
    int64_t m = kw_count(SHAPE_OUT(c, 0));
    memset(y, 0, sizeof *y * (size_t)m);
    for (int64_t i = 0, n = kw_count(SHAPE_IN(c, 0)); i < n; i++)
        y[i % m] += x[i];
}

static void sum_leading_run(const kw_call *c)
{
    int64_t m = kw_count(SHAPE_OUT(c, 0)), rows = kw_count(SHAPE_IN(c, 0)) / m;
    kw_kern_get()->sum_pixels(TYPE_IN(c, 0), c->in[0], c->out[0], 1, rows, (int)m);
}

static kw_val sum_leading_cases(kw_graph *g, int i)
{
    kw_val x = kw_input(g, "x", KW_SHAPE(6, 4, 10), g->compute);
    return i < 2 ? kw_sum_leading(g, x, i + 1) : KW_NONE;
}

kw_val kw_sum_leading(kw_graph *g, kw_val x, int rank)
{
    return KW_EMIT(g, &kw_op_sum_leading, (&(sum_leading){ rank }), x);
}

const kw_op kw_op_sum_leading = {
    .name = "sum_leading", .math = "y[j] = sum_i x[i][j]", .n_in = 1, .n_out = 1, .attr_size = sizeof(sum_leading),
    .infer = sum_leading_infer, .grad = sum_leading_grad, .ref = sum_leading_ref,
    .fast = { { .name = "simd", .fits = kw__activations, .run = sum_leading_run } }, .cases = sum_leading_cases,
};
