/* loss.c - what training minimises. Every loss is one number of the sum type; sums run in double in a fixed order. */
#include "op.h"

#include <math.h>
#include <string.h>

static double load(kw_dtype t, const void *p, int64_t i)
{
    switch (t) {
    case KW_F64: return ((const double *)p)[i];
    case KW_BF16: return (double)kw_bf16_to_f32(((const uint16_t *)p)[i]);
    default: return (double)((const float *)p)[i];
    }
}

static void store(kw_dtype t, void *p, int64_t i, double x)
{
    switch (t) {
    case KW_F64: ((double *)p)[i] = x; break;
    case KW_BF16: ((uint16_t *)p)[i] = kw_f32_to_bf16((float)x); break;
    default: ((float *)p)[i] = (float)x;
    }
}

/* The losses are small: one body serves the reference (everything double) and the fast path (types as they are). */
typedef struct { const kw_call *c; bool reference; } access;
static double in(access a, int k, int64_t i) { return load(a.reference ? KW_F64 : TYPE_IN(a.c, k), a.c->in[k], i); }
static void out(access a, int64_t i, double x) { store(a.reference ? KW_F64 : TYPE_OUT(a.c, 0), a.c->out[0], i, x); }

#define BOTH(body) \
    static void body##_ref(const kw_call *c) { body((access){ c, true }); } \
    static void body##_run(const kw_call *c) { body((access){ c, false }); }
#define FAST(body) .ref = body##_ref, .fast = { { .name = "loop", .fits = kw__activations, .run = body##_run } }

static kw_status scalar_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)n, (void)e;
    shape[0] = KW_SHAPE(1);
    dtype[0] = kw_sum_type(g->compute);
    return KW_OK;
}

/* ---- mse: mean of weight[n] (y - target)² --------------------------------------------------------------------- */

static kw_status mse_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__same(g, n->in[0], n->in[1], e));
    if (n->in[2] >= 0 && kw_count(kw_shape_of(g, n->in[2])) != kw_shape_of(g, n->in[0]).d[0])
        return kw_fail(e, KW_EDATA, "one weight for each sample is needed");
    return scalar_infer(g, n, shape, dtype, e);
}

static void mse_emit_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (!want[0] && !want[1])
        return;
    kw_val d = KW_EMIT(g, &kw_op_mse_grad, NULL, n->in[0], n->in[1], dout[0], n->in[2]);
    if (want[0])
        din[0] = d;
    if (want[1])
        din[1] = kw_scale(g, d, -1);
}

static void mse(access a)
{
    int64_t n = kw_count(SHAPE_IN(a.c, 0)), m = n / SHAPE_IN(a.c, 0).d[0];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = in(a, 0, i) - in(a, 1, i);
        sum += d * d * (a.c->in[2] ? in(a, 2, i / m) : 1);
    }
    out(a, 0, sum / (double)n);
}
BOTH(mse)

static kw_val mse_cases(kw_graph *g, int i)
{
    kw_shape s = KW_SHAPE(3, 2, 5);
    if (i > 1)
        return KW_NONE;
    kw_val y = kw_input(g, "y", s, g->compute), t = kw_input(g, "t", s, kw_sum_type(g->compute));
    return kw_mse(g, y, t, i ? KW_NONE : kw_scale(g, kw_input(g, "!weight", KW_SHAPE(3), kw_sum_type(g->compute)),
                                                  0.5f));
}

kw_val kw_mse(kw_graph *g, kw_val y, kw_val target, kw_val weight)
{
    return KW_EMIT(g, &kw_op_mse, NULL, y, target, weight);
}

/* The weights are the host's (min-SNR); nobody asks for their gradient. */
const kw_op kw_op_mse = {
    .name = "mse", .math = "mean of weight[n] (y - target)²", .n_in = 3, .n_optional = 1, .n_out = 1,
    .infer = mse_infer, .grad = mse_emit_grad,
    FAST(mse), .cases = mse_cases,
};

static void mse_grad(access a)
{
    int64_t n = kw_count(SHAPE_IN(a.c, 0)), m = n / SHAPE_IN(a.c, 0).d[0];
    double scale = in(a, 2, 0) * 2 / (double)n;
    for (int64_t i = 0; i < n; i++)
        out(a, i, scale * (in(a, 0, i) - in(a, 1, i)) * (a.c->in[3] ? in(a, 3, i / m) : 1));
}
BOTH(mse_grad)

const kw_op kw_op_mse_grad = {
    .name = "mse_grad", .math = "dy = 2 weight[n] (y - target) dloss / count", .n_in = 4, .n_optional = 1, .n_out = 1,
    .infer = kw__like_first, .no_grad = SECOND, FAST(mse_grad),
};

/* ---- l1: mean |y - target| -------------------------------------------------------------------------------------- */

static void l1_emit_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (!want[0] && !want[1])
        return;
    kw_val d = KW_EMIT(g, &kw_op_l1_grad, NULL, n->in[0], n->in[1], dout[0]);
    if (want[0])
        din[0] = d;
    if (want[1])
        din[1] = kw_scale(g, d, -1);
}

static kw_status l1_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__same(g, n->in[0], n->in[1], e));
    return scalar_infer(g, n, shape, dtype, e);
}

static void l1(access a)
{
    int64_t n = kw_count(SHAPE_IN(a.c, 0));
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += fabs(in(a, 0, i) - in(a, 1, i));
    out(a, 0, sum / (double)n);
}
BOTH(l1)

static kw_val l1_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_l1(g, kw_input(g, "y", KW_SHAPE(3, 7), g->compute),
                               kw_input(g, "t", KW_SHAPE(3, 7), kw_sum_type(g->compute)));
}

kw_val kw_l1(kw_graph *g, kw_val y, kw_val target) { return KW_EMIT(g, &kw_op_l1, NULL, y, target); }

const kw_op kw_op_l1 = {
    .name = "l1", .math = "mean |y - target|", .n_in = 2, .n_out = 1, .infer = l1_infer, .grad = l1_emit_grad, FAST(l1),
    .cases = l1_cases,
};

static void l1_grad(access a)
{
    int64_t n = kw_count(SHAPE_IN(a.c, 0));
    double scale = in(a, 2, 0) / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = in(a, 0, i) - in(a, 1, i);
        out(a, i, d > 0 ? scale : d < 0 ? -scale : 0);
    }
}
BOTH(l1_grad)

const kw_op kw_op_l1_grad = {
    .name = "l1_grad", .math = "dy = sign(y - target) dloss / count", .n_in = 3, .n_out = 1, .infer = kw__like_first,
    .no_grad = SECOND, FAST(l1_grad),
};

/* ---- the posterior of an autoencoder: moments = [mean, log variance], clamped to -30..20 (Kingma & Welling 2013) - */

static double clamped(double x, bool *inside)
{
    *inside = x >= -30 && x <= 20;
    return x < -30 ? -30 : x > 20 ? 20 : x;
}

/*  Where the mean and the log variance of element i of the sample lie.  */
static void halves(int64_t i, int64_t c, int64_t *mean, int64_t *logvar)
{
    *mean = i / c * 2 * c + i % c;
    *logvar = *mean + c;
}

static kw_status gaussian_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    shape[0].d[shape[0].rank - 1] /= 2;
    if (kw_last(kw_shape_of(g, n->in[0])) % 2 || !kw_shape_equal(shape[0], kw_shape_of(g, n->in[1])))
        return kw_fail(e, KW_EDATA, "the noise does not fit the moments");
    return KW_OK;
}

static void gaussian_emit_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_gaussian_grad, NULL, n->in[0], n->in[1], dout[0]);
}

static void gaussian(access a)
{
    int64_t c = kw_last(SHAPE_OUT(a.c, 0)), m, v;
    bool inside;
    for (int64_t i = 0; i < kw_count(SHAPE_OUT(a.c, 0)); i++) {
        halves(i, c, &m, &v);
        out(a, i, in(a, 0, m) + exp(0.5 * clamped(in(a, 0, v), &inside)) * in(a, 1, i));
    }
}
BOTH(gaussian)

static kw_val gaussian_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_gaussian(g, kw_input(g, "moments", KW_SHAPE(2, 3, 8), g->compute),
                                     kw_input(g, "!noise", KW_SHAPE(2, 3, 4), g->compute));
}

kw_val kw_gaussian(kw_graph *g, kw_val moments, kw_val noise)
{
    return KW_EMIT(g, &kw_op_gaussian, NULL, moments, noise);
}

/* The noise is data: no gradient. */
const kw_op kw_op_gaussian = {
    .name = "gaussian", .math = "z = mean + exp(logvar / 2) noise", .n_in = 2, .n_out = 1, .infer = gaussian_infer,
    .grad = gaussian_emit_grad,
    FAST(gaussian), .cases = gaussian_cases,
};

static void gaussian_grad(access a)
{
    int64_t c = kw_last(SHAPE_IN(a.c, 1)), m, v;
    bool inside;
    for (int64_t i = 0; i < kw_count(SHAPE_IN(a.c, 1)); i++) {
        halves(i, c, &m, &v);
        double sd = exp(0.5 * clamped(in(a, 0, v), &inside)), dz = in(a, 2, i);
        out(a, m, dz);
        out(a, v, inside ? 0.5 * sd * in(a, 1, i) * dz : 0);
    }
}
BOTH(gaussian_grad)

const kw_op kw_op_gaussian_grad = {
    .name = "gaussian_grad", .math = "dmean = dz, dlogvar = exp(logvar / 2) noise dz / 2", .n_in = 3, .n_out = 1,
    .infer = kw__like_first,
    .no_grad = SECOND, FAST(gaussian_grad),
};

/* ---- kl: mean over the batch of ½ sum (mean² + var - 1 - logvar) ----------------------------------------------- */

static void kl_emit_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_kl_grad, NULL, n->in[0], dout[0]);
}

static void kl(access a)
{
    kw_shape s = SHAPE_IN(a.c, 0);
    int64_t c = kw_last(s) / 2, m, v;
    bool inside;
    double sum = 0;
    for (int64_t i = 0; i < kw_count(s) / 2; i++) {
        halves(i, c, &m, &v);
        double mean = in(a, 0, m), logvar = clamped(in(a, 0, v), &inside);
        sum += 0.5 * (mean * mean + exp(logvar) - 1 - logvar);
    }
    out(a, 0, sum / (double)s.d[0]);
}
BOTH(kl)

static kw_val kl_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_kl(g, kw_input(g, "moments", KW_SHAPE(2, 3, 3, 8), g->compute));
}

kw_val kw_kl(kw_graph *g, kw_val moments) { return KW_EMIT(g, &kw_op_kl, NULL, moments); }

const kw_op kw_op_kl = {
    .name = "kl", .math = "½ sum (mean² + var - 1 - logvar) / batch", .n_in = 1, .n_out = 1, .infer = scalar_infer,
    .grad = kl_emit_grad,
    FAST(kl), .cases = kl_cases,
};

static void kl_grad(access a)
{
    kw_shape s = SHAPE_IN(a.c, 0);
    int64_t c = kw_last(s) / 2, m, v;
    double scale = in(a, 1, 0) / (double)s.d[0];
    bool inside;
    for (int64_t i = 0; i < kw_count(s) / 2; i++) {
        halves(i, c, &m, &v);
        double logvar = clamped(in(a, 0, v), &inside);
        out(a, m, scale * in(a, 0, m));
        out(a, v, inside ? scale * 0.5 * (exp(logvar) - 1) : 0);
    }
}
BOTH(kl_grad)

const kw_op kw_op_kl_grad = {
    .name = "kl_grad", .math = "dmean = mean, dlogvar = ½ (var - 1), times dloss / batch", .n_in = 2, .n_out = 1,
    .infer = kw__like_first,
    .no_grad = SECOND, FAST(kl_grad),
};

/* ---- normalize: rows to unit length ------------------------------------------------------------------------------ */

static void normalize_emit_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_normalize_grad, NULL, n->in[0], dout[0]);
}

static double row_length(access a, int64_t r, int64_t c)
{
    double sum = 0;
    for (int64_t k = 0; k < c; k++)
        sum += in(a, 0, r * c + k) * in(a, 0, r * c + k);
    return sqrt(sum) + 1e-12;
}

static void normalize(access a)
{
    int64_t c = kw_last(SHAPE_IN(a.c, 0));
    for (int64_t r = 0; r < kw__rows(SHAPE_IN(a.c, 0)); r++) {
        double length = row_length(a, r, c);
        for (int64_t k = 0; k < c; k++)
            out(a, r * c + k, in(a, 0, r * c + k) / length);
    }
}
BOTH(normalize)

static kw_val normalize_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_normalize(g, kw_input(g, "x", KW_SHAPE(4, 6), g->compute));
}

kw_val kw_normalize(kw_graph *g, kw_val x) { return KW_EMIT(g, &kw_op_normalize, NULL, x); }

const kw_op kw_op_normalize = {
    .name = "normalize", .math = "y = x / |x| for each row", .n_in = 1, .n_out = 1, .infer = kw__like_first,
    .grad = normalize_emit_grad,
    FAST(normalize), .cases = normalize_cases,
};

/*  dx = (dy - y (y·dy)) / |x|  */
static void normalize_grad(access a)
{
    int64_t c = kw_last(SHAPE_IN(a.c, 0));
    for (int64_t r = 0; r < kw__rows(SHAPE_IN(a.c, 0)); r++) {
        double length = row_length(a, r, c), dot = 0;
        for (int64_t k = 0; k < c; k++)
            dot += in(a, 0, r * c + k) / length * in(a, 1, r * c + k);
        for (int64_t k = 0; k < c; k++)
            out(a, r * c + k, (in(a, 1, r * c + k) - in(a, 0, r * c + k) / length * dot) / length);
    }
}
BOTH(normalize_grad)

const kw_op kw_op_normalize_grad = {
    .name = "normalize_grad", .math = "dx = (dy - y (y·dy)) / |x|", .n_in = 2, .n_out = 1, .infer = kw__like_first,
    .no_grad = SECOND, FAST(normalize_grad),
};

/* ---- cross entropy: mean of -log softmax(logits)[id]; CLIP's contrastive loss is two of them (arXiv:2103.00020) */

static kw_status cross_entropy_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]);
    if (x.rank != 2 || kw_count(kw_shape_of(g, n->in[1])) != x.d[0] || kw_dtype_of(g, n->in[1]) != KW_I64)
        return kw_fail(e, KW_EDATA, "cross entropy needs a row of logits and one id for each sample");
    return scalar_infer(g, n, shape, dtype, e);
}

static void cross_entropy_emit_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_cross_entropy_grad, NULL, n->in[0], n->in[1], dout[0]);
}

static double log_sum_exp(access a, int64_t r, int64_t c)
{
    double top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < c; k++)
        top = fmax(top, in(a, 0, r * c + k));
    for (int64_t k = 0; k < c; k++)
        sum += exp(in(a, 0, r * c + k) - top);
    return top + log(sum);
}

static int64_t id_of(access a, int64_t r, int64_t c)
{
    int64_t id = ((const int64_t *)a.c->in[1])[r];
    return id >= 0 && id < c ? id : 0;
}

static void cross_entropy(access a)
{
    kw_shape s = SHAPE_IN(a.c, 0);
    double sum = 0;
    for (int64_t r = 0; r < s.d[0]; r++)
        sum += log_sum_exp(a, r, s.d[1]) - in(a, 0, r * s.d[1] + id_of(a, r, s.d[1]));
    out(a, 0, sum / (double)s.d[0]);
}
BOTH(cross_entropy)

static kw_val cross_entropy_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_cross_entropy(g, kw_input(g, "x", KW_SHAPE(4, 6), g->compute),
                                          kw_input(g, "ids", KW_SHAPE(4), KW_I64));
}

kw_val kw_cross_entropy(kw_graph *g, kw_val logits, kw_val ids)
{
    return KW_EMIT(g, &kw_op_cross_entropy, NULL, logits, ids);
}

const kw_op kw_op_cross_entropy = {
    .name = "cross_entropy", .math = "mean of -log softmax(x)[id]", .n_in = 2, .n_out = 1, .infer = cross_entropy_infer,
    .grad = cross_entropy_emit_grad, FAST(cross_entropy), .cases = cross_entropy_cases,
};

static void cross_entropy_grad(access a)
{
    kw_shape s = SHAPE_IN(a.c, 0);
    double scale = in(a, 2, 0) / (double)s.d[0];
    for (int64_t r = 0; r < s.d[0]; r++) {
        double lse = log_sum_exp(a, r, s.d[1]);
        for (int64_t k = 0; k < s.d[1]; k++)
            out(a, r * s.d[1] + k, scale * (exp(in(a, 0, r * s.d[1] + k) - lse) - (k == id_of(a, r, s.d[1]))));
    }
}
BOTH(cross_entropy_grad)

const kw_op kw_op_cross_entropy_grad = {
    .name = "cross_entropy_grad", .math = "dx = (softmax(x) - onehot(id)) dloss / batch", .n_in = 3, .n_out = 1,
    .infer = kw__like_first,
    .no_grad = SECOND, FAST(cross_entropy_grad),
};
