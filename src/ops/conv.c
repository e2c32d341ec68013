/* conv.c - 2-D convolution over NHWC pixels with weights as in files (out, in, kh, kw), and its two gradients. */
#include "linear.h"

#include <string.h>

typedef struct { kw_conv_pads p; kw_dtype out; int kh, kw, h, w; } conv;     /* kh.. and h, w only in the gradients */

static kw_conv_shape shape_from(kw_shape x, kw_shape w, kw_conv_pads p)
{
    return (kw_conv_shape){ .n = (int)x.d[0], .h = (int)x.d[1], .w = (int)x.d[2], .in = (int)x.d[3], .out = (int)w.d[0],
                            .kh = (int)w.d[2], .kw = (int)w.d[3], .stride = p.stride, .pad_top = p.top,
                            .pad_left = p.left, .pad_bottom = p.bottom, .pad_right = p.right };
}

static double flops_of(kw_conv_shape s)
{
    return 2.0 * s.n * kw_conv_out_h(&s) * kw_conv_out_w(&s) * s.out * s.in * s.kh * s.kw;
}

/* One multiplication of the convolution: y[at_y] += x[at_x] w[at_w]; the three passes
 * differ in what is summed where. */
typedef void term(double *const v[3], int64_t x, int64_t y, int64_t w);
static void to_y(double *const v[3], int64_t x, int64_t y, int64_t w) { v[1][y] += v[0][x] * v[2][w]; }
static void to_x(double *const v[3], int64_t x, int64_t y, int64_t w) { v[0][x] += v[1][y] * v[2][w]; }
static void to_w(double *const v[3], int64_t x, int64_t y, int64_t w) { v[2][w] += v[0][x] * v[1][y]; }

static void each_pixel_pair(const kw_conv_shape *s, int64_t px, int64_t py, int tap, term *f, double *const v[3])
{
    for (int o = 0; o < s->out; o++)
        for (int i = 0; i < s->in; i++)
            f(v, px * s->in + i, py * s->out + o, ((int64_t)o * s->in + i) * s->kh * s->kw + tap);
}

static void each_term(const kw_conv_shape *s, term *f, double *const v[3])
{
    int oh = kw_conv_out_h(s), ow = kw_conv_out_w(s);
    for (int64_t py = 0; py < (int64_t)s->n * oh * ow; py++)
        for (int tap = 0; tap < s->kh * s->kw; tap++) {
            int64_t n = py / (oh * ow);
            int y = (int)(py / ow % oh) * s->stride - s->pad_top + tap / s->kw;
            int x = (int)(py % ow) * s->stride - s->pad_left + tap % s->kw;
            if (y >= 0 && y < s->h && x >= 0 && x < s->w)
                each_pixel_pair(s, (n * s->h + y) * s->w + x, py, tap, f, v);
        }
}

/* ---- the prepared pass, shared by the three ops ----------------------------------------------------------- */

static void pack(void *held, kw_dtype from, const void *src, void *packed) { kw_conv_pack(held, from, src, packed); }
static void release(void *held) { kw_conv_free(held); }

static kw_status prepare(const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias, int weight_in, kw_need *need,
                         kw_err *e)
{
    kw_conv *c = NULL;
    KW_TRY(kw_conv_new(s, pass, t, bias, &c, e));
    need->held = c;
    need->scratch = kw_conv_scratch_size(c);
    if (pass != KW_BACKWARD_WEIGHTS) {
        need->packed_in = weight_in;
        need->packed_bytes = kw_conv_packed_size(c);
        need->layout = kw_conv_layout(c);
    }
    return KW_OK;
}

/* ---- conv2d --------------------------------------------------------------------------------------------------- */

static kw_status conv_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]), w = kw_shape_of(g, n->in[1]);
    char s[64], t[64];
    if (x.rank != 4 || w.rank != 4 || w.d[1] != x.d[3])
        return kw_fail(e, KW_EDATA, "a convolution weight of shape %s does not take pixels %s", kw_dims_text(w, s),
                       kw_dims_text(x, t));
    if (n->in[2] >= 0 && kw_count(kw_shape_of(g, n->in[2])) != w.d[0])
        return kw_fail(e, KW_EDATA, "a bias of %lld for %lld channels", (long long)kw_count(kw_shape_of(g, n->in[2])),
                       (long long)w.d[0]);
    kw_conv_shape c = shape_from(x, w, ATTR(n, conv)->p);
    if (kw_conv_out_h(&c) < 1 || kw_conv_out_w(&c) < 1)
        return kw_fail(e, KW_EDATA, "a picture of %s is too small for a kernel of %s", kw_dims_text(x, s),
                       kw_dims_text(w, t));
    shape[0] = KW_SHAPE(x.d[0], kw_conv_out_h(&c), kw_conv_out_w(&c), w.d[0]);
    dtype[0] = ATTR(n, conv)->out;
    return KW_OK;
}

static void conv_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    kw_shape x = kw_shape_of(g, n->in[0]), w = kw_shape_of(g, n->in[1]);
    conv a = *ATTR(n, conv);
    a.kh = (int)w.d[2], a.kw = (int)w.d[3], a.h = (int)x.d[1], a.w = (int)x.d[2];
    a.out = kw_dtype_of(g, n->in[0]);
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_conv2d_dx, &a, dout[0], n->in[1]);
    if (want[1])
        din[1] = KW_EMIT(g, &kw_op_conv2d_dw, &a, n->in[0], dout[0]);
    if (want[2])
        din[2] = kw_sum_leading(g, dout[0], 1);
}

static kw_conv_shape forward_shape(const kw_graph *g, const kw_node *n)
{
    return shape_from(kw_shape_of(g, n->in[0]), kw_shape_of(g, n->in[1]), ATTR(n, conv)->p);
}

static void conv_cost(const kw_graph *g, const kw_node *n, double *flops) { *flops = flops_of(forward_shape(g, n)); }

static void conv_ref(const kw_call *c)
{
    kw_conv_shape s = forward_shape(c->g, c->node);
    double *y = c->out[0];
    const double *bias = c->in[2];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++)
        y[i] = bias ? bias[i % s.out] : 0;
    each_term(&s, to_y, (double *[]){ (double *)(uintptr_t)c->in[0], y, (double *)(uintptr_t)c->in[1] });
}

static bool is_weight(kw_dtype t) { return t == KW_F32 || t == KW_BF16 || t == KW_F16 || t == KW_I8; }

/* The library's passes have one type for x and y; another pair of types goes through the reference. */
static bool conv_fits(const kw_graph *g, const kw_node *n)
{
    kw_dtype t = kw_dtype_of(g, n->in[0]);
    return (t == KW_F32 || t == KW_BF16) && kw_dtype_of(g, n->out[0]) == t && is_weight(kw_dtype_of(g, n->in[1]))
        && (n->in[2] < 0 || kw_dtype_of(g, n->in[2]) == KW_F32);
}

static kw_status conv_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_conv_shape s = forward_shape(g, n);
    return prepare(&s, KW_FORWARD, kw_dtype_of(g, n->in[0]), n->in[2] >= 0, 1, need, e);
}

static void conv_run(const kw_call *c)
{
    kw_conv_forward(c->held, c->in[0], c->packed, c->in[2], c->out[0], c->scratch);
}

/* A kernel of one tap is a product of rows: its weight is read where it lies, in both directions, without a copy. */
static bool is_product(const kw_graph *g, kw_val w, const conv *a)
{
    kw_shape s = kw_shape_of(g, w);
    return s.d[2] * s.d[3] == 1 && a->p.stride == 1 && !(a->p.top | a->p.left | a->p.bottom | a->p.right);
}

static bool product_fits(const kw_graph *g, const kw_node *n)
{
    return conv_fits(g, n) && is_product(g, n->in[1], ATTR(n, conv));
}

static kw_status product_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_gemm_shape s = kw__linear_forward(g, n->in[0], n->in[1], n->out[0]);
    need->scratch = kw_gemm_scratch_size(&s);
    return kw__linear_need(g, n, 1, s.b, need, e);
}

static void product_run(const kw_call *c)
{
    const kw_node *n = c->node;
    kw_gemm_shape s = kw__linear_forward(c->g, n->in[0], n->in[1], n->out[0]);
    kw_gemm(&s, c->in[0], c->packed ? c->packed : c->in[1], c->in[2], c->out[0], c->scratch);
}

static kw_val conv_cases(kw_graph *g, int i)
{
    static const struct { kw_shape x, w; kw_conv_pads p; bool bias; } k[] = {
        { { 4, { 2, 4, 5, 3 } }, { 4, { 4, 3, 3, 3 } }, { 1, 1, 1, 1, 1 }, true },
        { { 4, { 1, 5, 6, 4 } }, { 4, { 3, 4, 3, 3 } }, { 2, 1, 1, 1, 1 }, true },
        /* the autoencoder's downsampling */
        { { 4, { 1, 6, 5, 2 } }, { 4, { 5, 2, 3, 3 } }, { 2, 0, 0, 1, 1 }, false },
        { { 4, { 2, 3, 3, 8 } }, { 4, { 6, 8, 1, 1 } }, { 1, 0, 0, 0, 0 }, true },
        { { 4, { 1, 8, 8, 16 } }, { 4, { 16, 16, 3, 3 } }, { 1, 1, 1, 1, 1 }, true },
    };
    if (i >= (int)KW_LEN(k))
        return KW_NONE;
    kw_dtype t = kw_sum_type(g->compute);
    kw_val bias = k[i].bias ? kw_input(g, "b", KW_SHAPE(k[i].w.d[0]), t) : KW_NONE;
    return kw_conv2d(g, kw_input(g, "x", k[i].x, g->compute), kw_input(g, "w", k[i].w, t), bias, k[i].p);
}

kw_val kw_conv2d_as(kw_graph *g, kw_val x, kw_val w, kw_val bias, kw_conv_pads p, kw_dtype out)
{
    return KW_EMIT(g, &kw_op_conv2d, (&(conv){ .p = p, .out = out }), x, w, bias);
}

kw_val kw_conv2d(kw_graph *g, kw_val x, kw_val w, kw_val bias, kw_conv_pads p)
{
    return kw_conv2d_as(g, x, w, bias, p, g->compute);
}

const kw_op kw_op_conv2d = {
    .name = "conv2d", .math = "y[p][o] = bias[o] + sum over taps and i of x[p + tap][i] w[o][i][tap]", .n_in = 3,
    .n_optional = 1,
    .n_out = 1, .attr_size = sizeof(conv), .infer = conv_infer, .grad = conv_grad, .cost = conv_cost, .ref = conv_ref,
    .fast = { { .name = "gemm", .fits = product_fits, .prepare = product_prepare, .pack = kw__linear_pack,
                .run = product_run, .release = kw__linear_release },
              { .name = "conv", .fits = conv_fits, .prepare = conv_prepare, .pack = pack, .run = conv_run,
                .release = release } },
    .cases = conv_cases,
};

/* ---- conv2d_dx: dy, w -> dx -------------------------------------------------------------------------------------- */

static kw_conv_shape dx_shape(const kw_graph *g, const kw_node *n)
{
    const conv *a = ATTR(n, conv);
    kw_shape dy = kw_shape_of(g, n->in[0]), w = kw_shape_of(g, n->in[1]);
    return shape_from(KW_SHAPE(dy.d[0], a->h, a->w, w.d[1]), w, a->p);
}

static kw_status dx_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    kw_conv_shape s = dx_shape(g, n);
    shape[0] = KW_SHAPE(s.n, s.h, s.w, s.in);
    dtype[0] = ATTR(n, conv)->out;
    return KW_OK;
}

static void dx_cost(const kw_graph *g, const kw_node *n, double *flops) { *flops = flops_of(dx_shape(g, n)); }

static void dx_ref(const kw_call *c)
{
    kw_conv_shape s = dx_shape(c->g, c->node);
    memset(c->out[0], 0, sizeof(double) * (size_t)kw_count(SHAPE_OUT(c, 0)));
    each_term(&s, to_x, (double *[]){ c->out[0], (double *)(uintptr_t)c->in[0], (double *)(uintptr_t)c->in[1] });
}

static kw_status dx_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_conv_shape s = dx_shape(g, n);
    return prepare(&s, KW_BACKWARD_DATA, kw_dtype_of(g, n->in[0]), false, 1, need, e);
}

static void dx_run(const kw_call *c) { kw_conv_backward_data(c->held, c->in[0], c->packed, c->out[0], c->scratch); }

static bool dx_fits(const kw_graph *g, const kw_node *n)
{
    kw_dtype t = kw_dtype_of(g, n->in[0]);
    return (t == KW_F32 || t == KW_BF16) && kw_dtype_of(g, n->out[0]) == t && is_weight(kw_dtype_of(g, n->in[1]));
}

static bool dx_product_fits(const kw_graph *g, const kw_node *n)
{
    return dx_fits(g, n) && is_product(g, n->in[1], ATTR(n, conv));
}

static kw_status dx_product_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_gemm_shape s = kw__linear_back(g, n->in[0], n->in[1], n->out[0]);
    need->scratch = kw_gemm_scratch_size(&s);
    return kw__linear_need(g, n, 1, s.b, need, e);
}

static void dx_product_run(const kw_call *c)
{
    const kw_node *n = c->node;
    kw_gemm_shape s = kw__linear_back(c->g, n->in[0], n->in[1], n->out[0]);
    kw_gemm(&s, c->in[0], c->packed ? c->packed : c->in[1], NULL, c->out[0], c->scratch);
}

const kw_op kw_op_conv2d_dx = {
    .name = "conv2d_dx", .math = "dx: the convolution with its weight transposed", .n_in = 2, .n_out = 1,
    .attr_size = sizeof(conv),
    .infer = dx_infer, .no_grad = SECOND, .cost = dx_cost, .ref = dx_ref,
    .fast = { { .name = "gemm", .fits = dx_product_fits, .prepare = dx_product_prepare, .pack = kw__linear_pack,
                .run = dx_product_run, .release = kw__linear_release },
              { .name = "conv", .fits = dx_fits, .prepare = dx_prepare, .pack = pack, .run = dx_run,
                .release = release } },
};

/* ---- conv2d_dw: x, dy -> dw, sum type ---------------------------------------------------------------------------- */

static kw_conv_shape dw_shape(const kw_graph *g, const kw_node *n)
{
    const conv *a = ATTR(n, conv);
    kw_shape x = kw_shape_of(g, n->in[0]), dy = kw_shape_of(g, n->in[1]);
    return shape_from(x, KW_SHAPE(dy.d[3], x.d[3], a->kh, a->kw), a->p);
}

static kw_status dw_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    kw_conv_shape s = dw_shape(g, n);
    shape[0] = KW_SHAPE(s.out, s.in, s.kh, s.kw);
    dtype[0] = kw_sum_type(g->compute);
    return KW_OK;
}

static void dw_cost(const kw_graph *g, const kw_node *n, double *flops) { *flops = flops_of(dw_shape(g, n)); }

static void dw_ref(const kw_call *c)
{
    kw_conv_shape s = dw_shape(c->g, c->node);
    memset(c->out[0], 0, sizeof(double) * (size_t)kw_count(SHAPE_OUT(c, 0)));
    each_term(&s, to_w, (double *[]){ (double *)(uintptr_t)c->in[0], (double *)(uintptr_t)c->in[1], c->out[0] });
}

static kw_status dw_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_conv_shape s = dw_shape(g, n);
    return prepare(&s, KW_BACKWARD_WEIGHTS, kw_dtype_of(g, n->in[0]), false, KW_NONE, need, e);
}

static void dw_run(const kw_call *c)
{
    kw_conv_backward_weights(c->held, c->in[0], c->in[1], c->out[0], NULL, c->scratch);
}

static bool dw_fits(const kw_graph *g, const kw_node *n)
{
    return kw__activations(g, n) && kw_dtype_of(g, n->in[0]) == kw_dtype_of(g, n->in[1]);
}

const kw_op kw_op_conv2d_dw = {
    .name = "conv2d_dw", .math = "dw[o][i][tap] = sum over p of x[p + tap][i] dy[p][o]", .n_in = 2, .n_out = 1,
    .attr_size = sizeof(conv),
    .infer = dw_infer, .no_grad = SECOND, .cost = dw_cost, .ref = dw_ref,
    .fast = { { .name = "conv", .fits = dw_fits, .prepare = dw_prepare, .run = dw_run, .release = release } },
};
