/* linear.c - y = x wᵀ + bias over the last dimension, and its two gradients. Also the product of two activations. */
#include "linear.h"

#include <string.h>

typedef struct { kw_dtype out; } linear;

static size size_of(const kw_graph *g, kw_val x, kw_val w) { return kw__linear_size(g, x, w); }

static void linear_cost(const kw_graph *g, const kw_node *n, double *flops)
{
    size z = size_of(g, n->in[0], n->in[1]);
    *flops = 2 * (double)z.m * (double)z.n * (double)z.k;
}

/* ---- how weights are read -------------------------------------------------------------------------------- */

typedef struct { int64_t rows, n; kw_dtype to; } held;

void kw__linear_pack(void *h, kw_dtype from, const void *src, void *packed)
{
    const held *p = h;
    if (from == KW_I8)
        kw_int8_rows(p->to, src, p->rows, p->n, packed);
    else
        kw_kern_get()->convert(p->to, packed, from, src, p->rows * p->n);
}

void kw__linear_release(void *h) { kw_block_free(h); }

kw_dtype kw__linear_type(const kw_graph *g, kw_val x, kw_val w, kw_val y)
{
    bool narrow = kw_dtype_of(g, x) == KW_BF16 && kw_dtype_of(g, y) == KW_BF16 && kw_gemm_has_bf16();
    return narrow ? KW_BF16 : kw_dtype_of(g, w);
}

kw_status kw__linear_need(const kw_graph *g, const kw_node *n, int w, kw_dtype type, kw_need *need, kw_err *e)
{
    if (type == kw_dtype_of(g, n->in[w]))
        return KW_OK;
    held *h = kw_block_new(sizeof *h);
    if (!h)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_shape s = kw_shape_of(g, n->in[w]);
    *h = (held){ s.d[0], kw_count(s) / s.d[0], type };
    need->held = h;
    need->packed_in = w;
    need->packed_bytes = (size_t)kw_count(s) * kw_dtype_size(type);
    need->layout = "rows bf16";
    return KW_OK;
}

static bool is_weight(kw_dtype t) { return t == KW_F32 || t == KW_BF16 || t == KW_F16 || t == KW_I8; }

bool kw__linear_fits(const kw_graph *g, kw_val x, kw_val w, kw_val y)
{
    return kw_dtype_of(g, x) != KW_F64 && is_weight(kw_dtype_of(g, w)) && kw_dtype_of(g, y) != KW_F64;
}

static bool fits(const kw_graph *g, const kw_node *n) { return kw__linear_fits(g, n->in[0], n->in[1], n->out[0]); }

/* ---- linear --------------------------------------------------------------------------------------------- */

static kw_status linear_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]), w = kw_shape_of(g, n->in[1]);
    if (w.rank < 2 || kw_count(w) / w.d[0] != kw_last(x)) {
        char s[64], t[64];
        return kw_fail(e, KW_EDATA, "a linear weight of shape %s does not take %s", kw_dims_text(w, s),
                       kw_dims_text(x, t));
    }
    if (n->in[2] >= 0 && kw_count(kw_shape_of(g, n->in[2])) != w.d[0])
        return kw_fail(e, KW_EDATA, "a bias of %lld for %lld outputs", (long long)kw_count(kw_shape_of(g, n->in[2])),
                       (long long)w.d[0]);
    shape[0] = x;
    shape[0].d[x.rank - 1] = w.d[0];
    dtype[0] = ATTR(n, linear)->out;
    return KW_OK;
}

kw_val kw__linear_dx(kw_graph *g, kw_val dy, kw_val w, kw_dtype t)
{
    return KW_EMIT(g, &kw_op_linear_dx, (&(linear){ t }), dy, w);
}

kw_val kw__linear_dw(kw_graph *g, kw_val x, kw_val dy) { return KW_EMIT(g, &kw_op_linear_dw, NULL, x, dy); }

static void linear_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = kw__linear_dx(g, dout[0], n->in[1], kw_dtype_of(g, n->in[0]));
    if (want[1])
        din[1] = kw_reshape(g, kw__linear_dw(g, n->in[0], dout[0]), kw_shape_of(g, n->in[1]));
    if (want[2])
        din[2] = kw_sum_leading(g, dout[0], 1);
}

static void linear_ref(const kw_call *c)
{
    size z = size_of(c->g, c->node->in[0], c->node->in[1]);
    const double *x = c->in[0], *w = c->in[1], *b = c->in[2];
    double *y = c->out[0];
    for (int64_t i = 0; i < z.m * z.n; i++) {
        double sum = b ? b[i % z.n] : 0;
        for (int64_t k = 0; k < z.k; k++)
            sum += x[i / z.n * z.k + k] * w[i % z.n * z.k + k];
        y[i] = sum;
    }
}

kw_gemm_shape kw__linear_forward(const kw_graph *g, kw_val x, kw_val w, kw_val y)
{
    size z = size_of(g, x, w);
    return (kw_gemm_shape){ .m = z.m, .n = z.n, .k = z.k, .tb = true, .lda = z.k, .ldb = z.k, .ldc = z.n,
                            .a = kw_dtype_of(g, x), .b = kw__linear_type(g, x, w, y), .c = kw_dtype_of(g, y),
                            .alpha = 1, .whole = true };
}

static kw_gemm_shape forward_shape(const kw_graph *g, const kw_node *n)
{
    return kw__linear_forward(g, n->in[0], n->in[1], n->out[0]);
}

static kw_status linear_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_gemm_shape s = forward_shape(g, n);
    need->scratch = kw_gemm_scratch_size(&s);
    return kw__linear_need(g, n, 1, s.b, need, e);
}

static void linear_run(const kw_call *c)
{
    kw_gemm_shape s = forward_shape(c->g, c->node);
    kw_gemm(&s, c->in[0], c->packed ? c->packed : c->in[1], c->in[2], c->out[0], c->scratch);
}

static bool linear_fits(const kw_graph *g, const kw_node *n)
{
    return fits(g, n) && (n->in[2] < 0 || kw_dtype_of(g, n->in[2]) == KW_F32);
}

static kw_val linear_cases(kw_graph *g, int i)
{
    kw_dtype t = kw_sum_type(g->compute);
    kw_val x = kw_input(g, "x", i ? KW_SHAPE(2, 5, 12) : KW_SHAPE(3, 7), g->compute);
    switch (i) {
    case 0: return kw_linear(g, x, kw_input(g, "w", KW_SHAPE(4, 7), t), kw_input(g, "b", KW_SHAPE(4), t));
    case 1: return kw_linear(g, x, kw_input(g, "w", KW_SHAPE(20, 12), t), KW_NONE);
    case 2: return kw_linear(g, x, kw_input(g, "w", KW_SHAPE(9, 12), g->compute), KW_NONE);
    case 3: return kw_linear_as(g, x, kw_input(g, "w", KW_SHAPE(2, 12), t), KW_NONE, t);
    default: return KW_NONE;
    }
}

kw_val kw_linear_as(kw_graph *g, kw_val x, kw_val w, kw_val bias, kw_dtype out)
{
    return KW_EMIT(g, &kw_op_linear, (&(linear){ out }), x, w, bias);
}

/* The output takes the graph's compute type, so that an f32 adapter branch returns to bf16 by itself. */
kw_val kw_linear(kw_graph *g, kw_val x, kw_val w, kw_val bias) { return kw_linear_as(g, x, w, bias, g->compute); }

const kw_op kw_op_linear = {
    .name = "linear", .math = "y = x wᵀ + bias", .n_in = 3, .n_optional = 1, .n_out = 1, .attr_size = sizeof(linear),
    .infer = linear_infer, .grad = linear_grad, .cost = linear_cost, .ref = linear_ref,
    .fast = { { .name = "gemm", .fits = linear_fits, .prepare = linear_prepare, .pack = kw__linear_pack, .run = linear_run,
                .release = kw__linear_release } },
    .cases = linear_cases,
};

/* ---- linear_dx: dx = dy w --------------------------------------------------------------------------------- */

static kw_status dx_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    kw_shape w = kw_shape_of(g, n->in[1]);
    shape[0] = kw_shape_of(g, n->in[0]);
    shape[0].d[shape[0].rank - 1] = kw_count(w) / w.d[0];
    dtype[0] = ATTR(n, linear)->out;
    return KW_OK;
}

static void dx_ref(const kw_call *c)
{
    size z = size_of(c->g, c->node->in[0], c->node->in[1]);
    const double *dy = c->in[0], *w = c->in[1];
    double *dx = c->out[0];
    memset(dx, 0, sizeof *dx * (size_t)(z.m * z.k));
    for (int64_t i = 0; i < z.m; i++)
        for (int64_t o = 0; o < z.n; o++)
            for (int64_t k = 0; k < z.k; k++)
                dx[i * z.k + k] += dy[i * z.n + o] * w[o * z.k + k];
}

kw_gemm_shape kw__linear_back(const kw_graph *g, kw_val dy, kw_val w, kw_val dx)
{
    size z = size_of(g, dy, w);
    return (kw_gemm_shape){ .m = z.m, .n = z.k, .k = z.n, .lda = z.n, .ldb = z.k, .ldc = z.k,
                            .a = kw_dtype_of(g, dy), .b = kw__linear_type(g, dy, w, dx), .c = kw_dtype_of(g, dx),
                            .alpha = 1 };
}

static kw_gemm_shape dx_shape(const kw_graph *g, const kw_node *n)
{
    return kw__linear_back(g, n->in[0], n->in[1], n->out[0]);
}

static kw_status dx_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_gemm_shape s = dx_shape(g, n);
    need->scratch = kw_gemm_scratch_size(&s);
    return kw__linear_need(g, n, 1, s.b, need, e);
}

static void dx_run(const kw_call *c)
{
    kw_gemm_shape s = dx_shape(c->g, c->node);
    kw_gemm(&s, c->in[0], c->packed ? c->packed : c->in[1], NULL, c->out[0], c->scratch);
}

const kw_op kw_op_linear_dx = {
    .name = "linear_dx", .math = "dx = dy w", .n_in = 2, .n_out = 1, .attr_size = sizeof(linear), .infer = dx_infer,
    .no_grad = SECOND,
    .cost = linear_cost, .ref = dx_ref,
    .fast = { { .name = "gemm", .fits = fits, .prepare = dx_prepare, .pack = kw__linear_pack, .run = dx_run,
                .release = kw__linear_release } },
};

/* ---- linear_dw: dw = dyᵀ x, sum type ------------------------------------------------------------------------ */

static kw_status dw_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    shape[0] = KW_SHAPE(kw_last(kw_shape_of(g, n->in[1])), kw_last(kw_shape_of(g, n->in[0])));
    dtype[0] = kw_sum_type(g->compute);
    return KW_OK;
}

static void dw_cost(const kw_graph *g, const kw_node *n, double *flops)
{
    *flops = 2 * (double)kw_count(kw_shape_of(g, n->in[0])) * (double)kw_last(kw_shape_of(g, n->in[1]));
}

static void dw_ref(const kw_call *c)
{
    int64_t m = kw__rows(SHAPE_IN(c, 0)), k = kw_last(SHAPE_IN(c, 0)), o = kw_last(SHAPE_IN(c, 1));
    const double *x = c->in[0], *dy = c->in[1];
    double *dw = c->out[0];
    memset(dw, 0, sizeof *dw * (size_t)(o * k));
    for (int64_t i = 0; i < m; i++)
        for (int64_t a = 0; a < o; a++)
            for (int64_t b = 0; b < k; b++)
                dw[a * k + b] += dy[i * o + a] * x[i * k + b];
}

static kw_gemm_shape dw_shape(const kw_graph *g, const kw_node *n)
{
    int64_t m = kw__rows(kw_shape_of(g, n->in[0])), k = kw_last(kw_shape_of(g, n->in[0])),
            o = kw_last(kw_shape_of(g, n->in[1]));
    return (kw_gemm_shape){ .m = o, .n = k, .k = m, .ta = true, .lda = o, .ldb = k, .ldc = k,
                            .a = kw_dtype_of(g, n->in[1]), .b = kw_dtype_of(g, n->in[0]), .c = KW_F32, .alpha = 1 };
}

static kw_status dw_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    (void)e;
    kw_gemm_shape s = dw_shape(g, n);
    need->scratch = kw_gemm_scratch_size(&s);
    return KW_OK;
}

static void dw_run(const kw_call *c)
{
    kw_gemm_shape s = dw_shape(c->g, c->node);
    kw_gemm(&s, c->in[1], c->in[0], NULL, c->out[0], c->scratch);
}

const kw_op kw_op_linear_dw = {
    .name = "linear_dw", .math = "dw = dyᵀ x", .n_in = 2, .n_out = 1, .infer = dw_infer, .no_grad = SECOND,
    .cost = dw_cost, .ref = dw_ref,
    .fast = { { .name = "gemm", .fits = kw__activations, .prepare = dw_prepare, .run = dw_run } },
};
