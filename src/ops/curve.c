/*
 * curve.c - torch.nn's less usual activations, one number to one number, without gradients.
 *
 * They stand in hypernetworks alone, beside two products: the fast kernel is the formula in double, over blocks.
 */
#include "op.h"

#include <math.h>
#include <string.h>
#include <strings.h>

typedef struct { kw_curve_kind f; } curve;

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
static double sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static double softplus(double x) { return x > 20 ? x : log1p(exp(x)); }

static double bent(kw_curve_kind f, double x)
{
    switch (f) {
    case KW_CURVE_RELU: return x > 0 ? x : 0;
    case KW_CURVE_RELU6: return clamp(x, 0, 6);
    case KW_CURVE_LEAKY_RELU: return x > 0 ? x : 0.01 * x;
    case KW_CURVE_ELU:
    case KW_CURVE_CELU: return x > 0 ? x : expm1(x);
    case KW_CURVE_SELU: return 1.05070098735548049342 * (x > 0 ? x : 1.67326324235437728482 * expm1(x));
    case KW_CURVE_HARDSWISH: return x * clamp(x + 3, 0, 6) / 6;
    case KW_CURVE_HARDSIGMOID: return clamp(x + 3, 0, 6) / 6;
    case KW_CURVE_HARDTANH: return clamp(x, -1, 1);
    case KW_CURVE_HARDSHRINK: return fabs(x) > 0.5 ? x : 0;
    default: return x > 0.5 ? x - 0.5 : x < -0.5 ? x + 0.5 : 0;         /* softshrink */
    }
}

static double smooth(kw_curve_kind f, double x)
{
    switch (f) {
    case KW_CURVE_TANH: return tanh(x);
    case KW_CURVE_SIGMOID: return sigmoid(x);
    case KW_CURVE_SILU: return x * sigmoid(x);
    case KW_CURVE_GELU: return 0.5 * x * erfc(-x * M_SQRT1_2);
    case KW_CURVE_MISH: return x * tanh(softplus(x));
    case KW_CURVE_SOFTPLUS: return softplus(x);
    case KW_CURVE_SOFTSIGN: return x / (1 + fabs(x));
    case KW_CURVE_TANHSHRINK: return x - tanh(x);
    default: return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x));        /* log sigmoid */
    }
}

static bool is_smooth(kw_curve_kind f)
{
    return f >= KW_CURVE_TANH && f <= KW_CURVE_LOGSIGMOID;
}

static double at(kw_curve_kind f, double x) { return is_smooth(f) ? smooth(f, x) : bent(f, x); }

static void curve_ref(const kw_call *c)
{
    const double *x = c->in[0];
    double *y = c->out[0];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)); i < n; i++)
        y[i] = at(ATTR(c->node, curve)->f, x[i]);
}

static void curve_run(const kw_call *c)
{
    enum { BLOCK = 256 };
    kw_dtype type = TYPE_IN(c, 0);
    size_t size = kw_dtype_size(type);
    const char *x = c->in[0];
    char *y = c->out[0];
    float z[BLOCK];
    for (int64_t i = 0, n = kw_count(SHAPE_OUT(c, 0)), m; i < n; i += m) {
        m = KW_MIN(n - i, BLOCK);
        kw_convert(KW_F32, z, type, x + (size_t)i * size, (size_t)m);
        for (int64_t k = 0; k < m; k++)
            z[k] = (float)at(ATTR(c->node, curve)->f, z[k]);
        kw_convert(type, y + (size_t)i * size, KW_F32, z, (size_t)m);
    }
}

static kw_val curve_cases(kw_graph *g, int i)
{
    return i < KW_N_CURVES ? kw_curve(g, (kw_curve_kind)i, kw_input(g, "x", KW_SHAPE(3, 41), g->compute)) : KW_NONE;
}

kw_val kw_curve(kw_graph *g, kw_curve_kind f, kw_val x) { return KW_EMIT(g, &kw_op_curve, (&(curve){ f }), x); }

bool kw_curve_find(const char *name, kw_curve_kind *f)
{
    static const char *const names[] = {
#define X(id, text) text,
        KW_CURVE_MAP(X)
#undef X
    };
    name = strcasecmp(name, "swish") ? name : "hardswish";
    for (int i = 0; i < KW_N_CURVES; i++)
        if (!strcasecmp(name, names[i])) {
            *f = (kw_curve_kind)i;
            return true;
        }
    return false;
}

const kw_op kw_op_curve = {
    .name = "curve", .math = "y = f(x), f one of torch.nn's activations", .n_in = 1, .n_out = 1,
    .attr_size = sizeof(curve), .infer = kw__like_first, .no_grad = "hypernetworks are not trained", .ref = curve_ref,
    .fast = { { .name = "blocks", .fits = kw__activations, .run = curve_run } }, .in_place = true,
    .cases = curve_cases,
};
