/*
 * norm.c - group norm (with SiLU fused) and layer norm.
 *
 *   xhat = (x - mean) rstd,  y = xhat gamma + beta,  dz = dy gamma
 *   dx = rstd (dz - mean(dz) - xhat mean(dz xhat)),  dgamma = sum dy xhat,  dbeta = sum dy
 *
 * Wu & He 2018 (arXiv:1803.08494), Ba et al. 2016 (arXiv:1607.06450).
 */
#include "op.h"

#include <math.h>
#include <string.h>

typedef struct { int groups; float eps; bool silu; } norm;

/* A norm sees its input as (n, pixels, groups, channels per group); layer norm: rows of one group and one pixel. */
typedef struct { int64_t n, hw; int c, groups; } geometry;

static geometry group_geometry(kw_shape x, int groups)
{
    return (geometry){ x.d[0], kw__pixels(x), (int)kw_last(x), groups };
}

static geometry layer_geometry(kw_shape x) { return (geometry){ kw__rows(x), 1, (int)kw_last(x), 1 }; }

static kw_status check_vector(const kw_graph *g, kw_val v, int64_t c, kw_err *e)
{
    if (kw_count(kw_shape_of(g, v)) == c)
        return KW_OK;
    return kw_fail(e, KW_EDATA, "a norm over %lld channels has %lld gains", (long long)c,
                   (long long)kw_count(kw_shape_of(g, v)));
}

static kw_status norm_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_shape stats, kw_err *e)
{
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    KW_TRY(check_vector(g, n->in[1], kw_last(shape[0]), e));
    KW_TRY(check_vector(g, n->in[2], kw_last(shape[0]), e));
    shape[1] = shape[2] = stats;
    dtype[1] = dtype[2] = kw_sum_type(dtype[0]);
    return KW_OK;
}

static void forward_ref(geometry m, float eps, bool silu, const double *const in[3], double *const out[3])
{
    int64_t per = m.c / m.groups;
    for (int64_t i = 0; i < m.n * m.groups; i++) {
        const double *x = in[0] + i / m.groups * m.hw * m.c + i % m.groups * per;
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < m.hw * per; k++)
            sum += x[k / per * m.c + k % per];
        double mean = sum / (double)(m.hw * per);
        for (int64_t k = 0; k < m.hw * per; k++)
            squares += (x[k / per * m.c + k % per] - mean) * (x[k / per * m.c + k % per] - mean);
        double rstd = 1 / sqrt(squares / (double)(m.hw * per) + (double)eps);
        for (int64_t k = 0; k < m.hw * per; k++) {
            int64_t at = k / per * m.c + k % per, ch = i % m.groups * per + k % per;
            double y = (x[at] - mean) * rstd * in[1][ch] + in[2][ch];
            out[0][x - in[0] + at] = silu ? y / (1 + exp(-y)) : y;
        }
        out[1][i] = mean;
        out[2][i] = rstd;
    }
}

/* in: x, dy, gamma, beta, mean, rstd; out: dx, dgamma, dbeta */
static void backward_ref(geometry m, bool silu, const double *const in[6], double *const out[3])
{
    int64_t per = m.c / m.groups, count = m.hw * per;
    memset(out[1], 0, sizeof(double) * (size_t)m.c);
    memset(out[2], 0, sizeof(double) * (size_t)m.c);
    for (int64_t i = 0; i < m.n * m.groups; i++) {
        int64_t start = i / m.groups * m.hw * m.c + i % m.groups * per;
        double u = 0, v = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t k = 0; k < count; k++) {
                int64_t at = start + k / per * m.c + k % per, ch = i % m.groups * per + k % per;
                double xhat = (in[0][at] - in[4][i]) * in[5][i], dy = in[1][at];
                if (silu) {
                    double y = xhat * in[2][ch] + in[3][ch], s = 1 / (1 + exp(-y));
                    dy *= s * (1 + y * (1 - s));
                }
                double dz = dy * in[2][ch];
                if (pass) {
                    out[0][at] = in[5][i] * (dz - u / (double)count - xhat * v / (double)count);
                    continue;
                }
                u += dz;
                v += dz * xhat;
                out[1][ch] += dy * xhat;
                out[2][ch] += dy;
            }
    }
}

/* ---- group norm --------------------------------------------------------------------------------------- */

static kw_status group_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]);
    const norm *a = ATTR(n, norm);
    if (a->groups < 1 || kw_last(x) % a->groups)
        return kw_fail(e, KW_EDATA, "%lld channels do not divide into %d groups", (long long)kw_last(x), a->groups);
    return norm_infer(g, n, shape, dtype, KW_SHAPE(x.d[0], a->groups), e);
}

static void group_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    kw_val d = KW_EMIT(g, &kw_op_group_norm_grad, n->attr, n->in[0], dout[0], n->in[1], n->in[2], n->out[1], n->out[2]);
    for (int i = 0; i < 3; i++)
        if (want[i])
            din[i] = kw_out(g, d, i);
}

static void group_ref(const kw_call *c)
{
    const norm *a = ATTR(c->node, norm);
    forward_ref(group_geometry(SHAPE_IN(c, 0), a->groups), a->eps, a->silu, (const double *const *)c->in,
                (double *const *)c->out);
}

/* Parameters, from input `first` on, and statistics are f32 beside f32 or bf16 activations. */
static bool parameters_fit(const kw_graph *g, const kw_node *n, int first)
{
    return kw__activations(g, n) && kw_dtype_of(g, n->in[first]) == KW_F32
           && kw_dtype_of(g, n->in[first + 1]) == KW_F32;
}

static bool fits(const kw_graph *g, const kw_node *n) { return parameters_fit(g, n, 1); }
static bool grad_fits(const kw_graph *g, const kw_node *n) { return parameters_fit(g, n, 2); }

static void group_run(const kw_call *c)
{
    const norm *a = ATTR(c->node, norm);
    geometry m = group_geometry(SHAPE_IN(c, 0), a->groups);
    kw_kern_get()->group_norm(TYPE_IN(c, 0), c->in[0], c->in[1], c->in[2], c->out[0], c->out[1], c->out[2], (int)m.n,
                              m.hw, m.c, m.groups, a->eps, a->silu);
}

static kw_val vector(kw_graph *g, const char *name, int64_t c)
{
    return kw_input(g, name, KW_SHAPE(c), kw_sum_type(g->compute));
}

static kw_val group_cases(kw_graph *g, int i)
{
    static const struct { kw_shape s; int groups; bool silu; } k[] = {
        { { 4, { 2, 3, 4, 8 } }, 4, false }, { { 4, { 2, 3, 4, 8 } }, 2, true }, { { 4, { 1, 5, 5, 30 } }, 3, true },
        { { 3, { 2, 16, 20 } }, 5, false }, { { 4, { 1, 1, 1, 6 } }, 2, true },
    };
    if (i >= (int)KW_LEN(k))
        return KW_NONE;
    int64_t c = kw_last(k[i].s);
    return kw_group_norm(g, kw_input(g, "x", k[i].s, g->compute), vector(g, "gamma", c), vector(g, "beta", c),
                         k[i].groups, 1e-3f, k[i].silu);
}

kw_val kw_group_norm(kw_graph *g, kw_val x, kw_val gamma, kw_val beta, int groups, float eps, bool silu)
{
    return KW_EMIT(g, &kw_op_group_norm, (&(norm){ groups, eps, silu }), x, gamma, beta);
}

const kw_op kw_op_group_norm = {
    .name = "group_norm", .math = "y = (x - mean) rstd gamma + beta over groups of channels, then SiLU if asked",
    .n_in = 3, .n_out = 3, .attr_size = sizeof(norm), .infer = group_infer, .grad = group_grad, .ref = group_ref,
    .fast = { { .name = "simd", .fits = fits, .run = group_run } }, .cheap = true, .cases = group_cases,
};

static kw_status grads_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__same(g, n->in[0], n->in[1], e));
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    shape[1] = shape[2] = KW_SHAPE(kw_last(shape[0]));
    dtype[1] = dtype[2] = kw_sum_type(dtype[0]);
    return KW_OK;
}

static void group_grad_ref(const kw_call *c)
{
    const norm *a = ATTR(c->node, norm);
    backward_ref(group_geometry(SHAPE_IN(c, 0), a->groups), a->silu, (const double *const *)c->in,
                 (double *const *)c->out);
}

static kw_status group_grad_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    (void)e;
    geometry m = group_geometry(kw_shape_of(g, n->in[0]), ATTR(n, norm)->groups);
    need->scratch = kw_kern_get()->group_norm_grad_scratch((int)m.n, m.hw, m.c);
    return KW_OK;
}

static void group_grad_run(const kw_call *c)
{
    const norm *a = ATTR(c->node, norm);
    geometry m = group_geometry(SHAPE_IN(c, 0), a->groups);
    kw_kern_get()->group_norm_grad(TYPE_IN(c, 0), c->in[0], c->in[1], c->in[2], c->in[3], c->in[4], c->in[5], c->out[0],
                                   c->out[1], c->out[2], (int)m.n, m.hw, m.c, m.groups, a->silu, c->scratch);
}

const kw_op kw_op_group_norm_grad = {
    .name = "group_norm_grad", .math = "dx, dgamma, dbeta of group norm (and SiLU)", .n_in = 6, .n_out = 3,
    .attr_size = sizeof(norm),
    .infer = grads_infer, .no_grad = SECOND, .ref = group_grad_ref,
    .fast = { { .name = "simd", .fits = grad_fits, .prepare = group_grad_prepare, .run = group_grad_run } },
};

/* ---- layer norm ----------------------------------------------------------------------------------------- */

static kw_status layer_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    return norm_infer(g, n, shape, dtype, KW_SHAPE(kw__rows(kw_shape_of(g, n->in[0]))), e);
}

static void layer_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    kw_val d = KW_EMIT(g, &kw_op_layer_norm_grad, n->attr, n->in[0], dout[0], n->in[1], n->in[2], n->out[1], n->out[2]);
    for (int i = 0; i < 3; i++)
        if (want[i])
            din[i] = kw_out(g, d, i);
}

static void layer_ref(const kw_call *c)
{
    forward_ref(layer_geometry(SHAPE_IN(c, 0)), ATTR(c->node, norm)->eps, false, (const double *const *)c->in,
                (double *const *)c->out);
}

static void layer_run(const kw_call *c)
{
    geometry m = layer_geometry(SHAPE_IN(c, 0));
    kw_kern_get()->layer_norm(TYPE_IN(c, 0), c->in[0], c->in[1], c->in[2], c->out[0], c->out[1], c->out[2], m.n, m.c,
                              ATTR(c->node, norm)->eps);
}

static kw_val layer_cases(kw_graph *g, int i)
{
    static const kw_shape k[] = { { 3, { 2, 3, 8 } }, { 2, { 5, 33 } }, { 3, { 1, 77, 20 } } };
    if (i >= (int)KW_LEN(k))
        return KW_NONE;
    return kw_layer_norm(g, kw_input(g, "x", k[i], g->compute), vector(g, "gamma", kw_last(k[i])),
                         vector(g, "beta", kw_last(k[i])), 1e-3f);
}

kw_val kw_layer_norm(kw_graph *g, kw_val x, kw_val gamma, kw_val beta, float eps)
{
    return KW_EMIT(g, &kw_op_layer_norm, (&(norm){ 1, eps, false }), x, gamma, beta);
}

const kw_op kw_op_layer_norm = {
    .name = "layer_norm", .math = "y = (x - mean) rstd gamma + beta over each row", .n_in = 3, .n_out = 3,
    .attr_size = sizeof(norm),
    .infer = layer_infer, .grad = layer_grad, .ref = layer_ref,
    .fast = { { .name = "simd", .fits = fits, .run = layer_run } },
    .cheap = true, .cases = layer_cases,
};

static void layer_grad_ref(const kw_call *c)
{
    backward_ref(layer_geometry(SHAPE_IN(c, 0)), false, (const double *const *)c->in, (double *const *)c->out);
}

static kw_status layer_grad_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    (void)e;
    geometry m = layer_geometry(kw_shape_of(g, n->in[0]));
    need->scratch = kw_kern_get()->layer_norm_grad_scratch(m.n, m.c);
    return KW_OK;
}

static void layer_grad_run(const kw_call *c)
{
    geometry m = layer_geometry(SHAPE_IN(c, 0));
    kw_kern_get()->layer_norm_grad(TYPE_IN(c, 0), c->in[0], c->in[1], c->in[2], c->in[4], c->in[5], c->out[0],
                                   c->out[1], c->out[2], m.n, m.c, c->scratch);
}

const kw_op kw_op_layer_norm_grad = {
    .name = "layer_norm_grad", .math = "dx, dgamma, dbeta of layer norm", .n_in = 6, .n_out = 3,
    .attr_size = sizeof(norm),
    .infer = grads_infer, .no_grad = SECOND, .ref = layer_grad_ref,
    .fast = { { .name = "simd", .fits = grad_fits, .prepare = layer_grad_prepare, .run = layer_grad_run } },
};
