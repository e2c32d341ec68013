/* layout.c - reshape, concatenation and slices of channels, nearest upsampling. */
#include "op.h"

#include <string.h>

/* ---- reshape: the same memory under another shape --------------------------------------------------- */

typedef struct { kw_shape to; } reshape;

static kw_status reshape_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    char s[64], t[64];
    shape[0] = ATTR(n, reshape)->to;
    dtype[0] = kw_dtype_of(g, n->in[0]);
    if (kw_count(shape[0]) == kw_count(kw_shape_of(g, n->in[0])))
        return KW_OK;
    return kw_fail(e, KW_EDATA, "%s cannot be seen as %s", kw_dims_text(kw_shape_of(g, n->in[0]), s),
                   kw_dims_text(shape[0], t));
}

static void reshape_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = kw_reshape(g, dout[0], kw_shape_of(g, n->in[0]));
}

static void reshape_ref(const kw_call *c)
{
    if (c->out[0] != c->in[0])
        memcpy(c->out[0], c->in[0], sizeof(double) * (size_t)kw_count(SHAPE_OUT(c, 0)));
}

static void reshape_run(const kw_call *c)
{
    if (c->out[0] != c->in[0])
        memcpy(c->out[0], c->in[0], kw_value_bytes(c->g, c->node->out[0]));
}

static kw_val reshape_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_reshape(g, kw_scale(g, kw_input(g, "x", KW_SHAPE(2, 3, 4), g->compute), 2), KW_SHAPE(6, 4));
}

kw_val kw_reshape(kw_graph *g, kw_val x, kw_shape s)
{
    return kw_shape_equal(kw_shape_of(g, x), s) ? x : KW_EMIT(g, &kw_op_reshape, (&(reshape){ s }), x);
}

const kw_op kw_op_reshape = {
    .name = "reshape", .math = "y = x under another shape", .n_in = 1, .n_out = 1, .attr_size = sizeof(reshape),
    .infer = reshape_infer,
    .grad = reshape_grad, .ref = reshape_ref, .fast = { { .name = "copy", .run = reshape_run } }, .view = true,
    .cheap = true,
    .cases = reshape_cases,
};

/* Copy `count` channels of each row from column `from` of a to column `to` of b; sizes in elements. */
static void copy_columns(int64_t rows, size_t size, const char *a, int64_t a_width, int64_t from, char *b,
                         int64_t b_width, int64_t to, int64_t count)
{
    #pragma omp parallel for
    for (int64_t r = 0; r < rows; r++)
        memcpy(b + (size_t)(r * b_width + to) * size, a + (size_t)(r * a_width + from) * size, (size_t)count * size);
}

/* ---- concat of the last dimension ------------------------------------------------------------------------ */

static kw_status concat_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape a = kw_shape_of(g, n->in[0]), b = kw_shape_of(g, n->in[1]);
    char s[64], t[64];
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    shape[0].d[a.rank - 1] += kw_last(b);
    a.d[a.rank - 1] = kw_last(b);
    if (!kw_shape_equal(a, b) || kw_dtype_of(g, n->in[1]) != dtype[0])
        return kw_fail(e, KW_EDATA, "cannot concatenate %s and %s", kw_dims_text(kw_shape_of(g, n->in[0]), s),
                       kw_dims_text(b, t));
    return KW_OK;
}

static void concat_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    int64_t a = kw_last(kw_shape_of(g, n->in[0])), b = kw_last(kw_shape_of(g, n->in[1]));
    if (want[0])
        din[0] = kw_slice(g, dout[0], 0, a);
    if (want[1])
        din[1] = kw_slice(g, dout[0], a, b);
}

static void concat_bytes(const kw_call *c, size_t size)
{
    int64_t a = kw_last(SHAPE_IN(c, 0)), b = kw_last(SHAPE_IN(c, 1)), rows = kw__rows(SHAPE_IN(c, 0));
    copy_columns(rows, size, c->in[0], a, 0, c->out[0], a + b, 0, a);
    copy_columns(rows, size, c->in[1], b, 0, c->out[0], a + b, a, b);
}

static void concat_ref(const kw_call *c) { concat_bytes(c, sizeof(double)); }
static void concat_run(const kw_call *c) { concat_bytes(c, kw_dtype_size(TYPE_OUT(c, 0))); }

static kw_val concat_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_concat(g, kw_input(g, "a", KW_SHAPE(2, 3, 4, 5), g->compute),
                                   kw_input(g, "b", KW_SHAPE(2, 3, 4, 2), g->compute));
}

kw_val kw_concat(kw_graph *g, kw_val a, kw_val b) { return KW_EMIT(g, &kw_op_concat, NULL, a, b); }

const kw_op kw_op_concat = {
    .name = "concat", .math = "y = [a b] along channels", .n_in = 2, .n_out = 1, .infer = concat_infer,
    .grad = concat_grad,
    .ref = concat_ref, .fast = { { .name = "copy", .run = concat_run } }, .cheap = true, .cases = concat_cases,
};

/* ---- slice of the last dimension, and its other half: placing a slice among zeros ---------------------------- */

typedef struct { int64_t from, count; } slice;                    /* unslice: count is the full width */

static kw_status slice_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    const slice *a = ATTR(n, slice);
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    if (a->from < 0 || a->count < 1 || a->from + a->count > kw_last(shape[0]))
        return kw_fail(e, KW_EDATA, "channels %lld..%lld of %lld", (long long)a->from, (long long)(a->from + a->count),
                       (long long)kw_last(shape[0]));
    shape[0].d[shape[0].rank - 1] = a->count;
    return KW_OK;
}

static void slice_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_unslice, (&(slice){ ATTR(n, slice)->from, kw_last(kw_shape_of(g, n->in[0])) }),
                         dout[0]);
}

static void slice_bytes(const kw_call *c, size_t size)
{
    const slice *a = ATTR(c->node, slice);
    copy_columns(kw__rows(SHAPE_IN(c, 0)), size, c->in[0], kw_last(SHAPE_IN(c, 0)), a->from, c->out[0], a->count, 0,
                 a->count);
}

static void slice_ref(const kw_call *c) { slice_bytes(c, sizeof(double)); }
static void slice_run(const kw_call *c) { slice_bytes(c, kw_dtype_size(TYPE_OUT(c, 0))); }

static kw_val slice_cases(kw_graph *g, int i)
{
    return i < 2 ? kw_slice(g, kw_input(g, "x", KW_SHAPE(2, 3, 9), g->compute), i * 4, 5) : KW_NONE;
}

kw_val kw_slice(kw_graph *g, kw_val x, int64_t from, int64_t count)
{
    return KW_EMIT(g, &kw_op_slice, (&(slice){ from, count }), x);
}

const kw_op kw_op_slice = {
    .name = "slice", .math = "y = x[..., from : from + count]", .n_in = 1, .n_out = 1, .attr_size = sizeof(slice),
    .infer = slice_infer,
    .grad = slice_grad, .ref = slice_ref, .fast = { { .name = "copy", .run = slice_run } }, .cheap = true,
    .cases = slice_cases,
};

static kw_status unslice_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    shape[0].d[shape[0].rank - 1] = ATTR(n, slice)->count;
    return KW_OK;
}

static void unslice_bytes(const kw_call *c, size_t size)
{
    const slice *a = ATTR(c->node, slice);
    int64_t width = kw_last(SHAPE_IN(c, 0));
    memset(c->out[0], 0, size * (size_t)kw_count(SHAPE_OUT(c, 0)));
    copy_columns(kw__rows(SHAPE_IN(c, 0)), size, c->in[0], width, 0, c->out[0], a->count, a->from, width);
}

static void unslice_ref(const kw_call *c) { unslice_bytes(c, sizeof(double)); }
static void unslice_run(const kw_call *c) { unslice_bytes(c, kw_dtype_size(TYPE_OUT(c, 0))); }

const kw_op kw_op_unslice = {
    .name = "unslice", .math = "y = zeros but y[..., from : from + width] = x", .n_in = 1, .n_out = 1,
    .attr_size = sizeof(slice),
    .infer = unslice_infer, .no_grad = SECOND, .ref = unslice_ref, .fast = { { .name = "copy", .run = unslice_run } },
    .cheap = true,
};

/* ---- upsample: nearest, y[i][j] = x[floor(i h / H)][floor(j w / W)] (PyTorch's interpolate) -------------------- */

typedef struct { int64_t h, w; } upsample;

static kw_status upsample_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    const upsample *a = ATTR(n, upsample);
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    if (shape[0].rank != 4 || a->h < 1 || a->w < 1)
        return kw_fail(e, KW_EDATA, "upsampling to %lld x %lld", (long long)a->h, (long long)a->w);
    shape[0].d[1] = a->h;
    shape[0].d[2] = a->w;
    return KW_OK;
}

static void upsample_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    kw_shape x = kw_shape_of(g, n->in[0]);
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_upsample_grad, (&(upsample){ x.d[1], x.d[2] }), dout[0]);
}

/* Pixel of the small picture that pixel i of the large one shows. */
static int64_t source(int64_t i, kw_shape small, kw_shape large)
{
    int64_t x = i % large.d[2], y = i / large.d[2] % large.d[1], n = i / (large.d[1] * large.d[2]);
    return (n * small.d[1] + y * small.d[1] / large.d[1]) * small.d[2] + x * small.d[2] / large.d[2];
}

static void upsample_bytes(const kw_call *c, size_t size)
{
    kw_shape small = SHAPE_IN(c, 0), large = SHAPE_OUT(c, 0);
    size_t row = size * (size_t)small.d[3];
    #pragma omp parallel for
    for (int64_t i = 0; i < kw__rows(large); i++)
        memcpy((char *)c->out[0] + (size_t)i * row, (const char *)c->in[0] + (size_t)source(i, small, large) * row,
               row);
}

static void upsample_ref(const kw_call *c) { upsample_bytes(c, sizeof(double)); }
static void upsample_run(const kw_call *c) { upsample_bytes(c, kw_dtype_size(TYPE_OUT(c, 0))); }

static kw_val upsample_cases(kw_graph *g, int i)
{
    static const int64_t to[][2] = { { 6, 4 }, { 5, 3 }, { 3, 2 } };
    return i < 3 ? kw_upsample(g, kw_input(g, "x", KW_SHAPE(2, 3, 2, 5), g->compute), to[i][0], to[i][1]) : KW_NONE;
}

kw_val kw_upsample(kw_graph *g, kw_val x, int64_t h, int64_t w)
{
    return KW_EMIT(g, &kw_op_upsample, (&(upsample){ h, w }), x);
}

const kw_op kw_op_upsample = {
    .name = "upsample", .math = "y[i][j] = x[i h / H][j w / W]", .n_in = 1, .n_out = 1, .attr_size = sizeof(upsample),
    .infer = upsample_infer,
    .grad = upsample_grad, .ref = upsample_ref, .fast = { { .name = "copy", .run = upsample_run } }, .cheap = true,
    .cases = upsample_cases,
};

static void upsample_grad_ref(const kw_call *c)
{
    kw_shape large = SHAPE_IN(c, 0), small = SHAPE_OUT(c, 0);
    const double *dy = c->in[0];
    double *dx = c->out[0];
    memset(dx, 0, sizeof *dx * (size_t)kw_count(small));
    for (int64_t i = 0; i < kw__rows(large); i++)
        for (int64_t k = 0; k < large.d[3]; k++)
            dx[source(i, small, large) * large.d[3] + k] += dy[i * large.d[3] + k];
}

static float load(kw_dtype t, const void *p, int64_t i)
{
    return t == KW_F32 ? ((const float *)p)[i] : kw_bf16_to_f32(((const uint16_t *)p)[i]);
}

/* One small row of pixels sums the large rows that show it; f32 sums in a row of scratch per picture row. */
static void upsample_grad_run(const kw_call *c)
{
    kw_shape large = SHAPE_IN(c, 0), small = SHAPE_OUT(c, 0);
    kw_dtype t = TYPE_IN(c, 0);
    int64_t ch = small.d[3], width = small.d[2] * ch;
    #pragma omp parallel for
    for (int64_t r = 0; r < small.d[0] * small.d[1]; r++) {
        float *sum = (float *)c->scratch + r * width;
        int64_t n = r / small.d[1], y = r % small.d[1];
        memset(sum, 0, sizeof *sum * (size_t)width);
        for (int64_t ly = 0; ly < large.d[1]; ly++) {
            if (ly * small.d[1] / large.d[1] != y)
                continue;
            for (int64_t lx = 0; lx < large.d[2]; lx++) {
                int64_t from = ((n * large.d[1] + ly) * large.d[2] + lx) * ch, to = lx * small.d[2] / large.d[2] * ch;
                for (int64_t k = 0; k < ch; k++)
                    sum[to + k] += load(t, c->in[0], from + k);
            }
        }
        kw_convert(t, (char *)c->out[0] + (size_t)(r * width) * kw_dtype_size(t), KW_F32, sum, (size_t)width);
    }
}

static kw_status upsample_grad_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    (void)e;
    need->scratch = (size_t)kw_count(kw_shape_of(g, n->out[0])) * sizeof(float);
    return KW_OK;
}

const kw_op kw_op_upsample_grad = {
    .name = "upsample_grad", .math = "dx[i][j] = sum of dy over the pixels that show it", .n_in = 1, .n_out = 1,
    .attr_size = sizeof(upsample),
    .infer = upsample_infer, .no_grad = SECOND, .ref = upsample_grad_ref,
    .fast = { { .name = "sum", .fits = kw__activations, .prepare = upsample_grad_prepare, .run = upsample_grad_run } },
    .cheap = true,
};
