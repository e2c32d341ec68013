/*
 * rows.c - pictures that are worked through in stripes of rows: stripes joined, and group norm in two halves, because
 * its statistics are those of the whole picture.
 *
 *   moments:  (count, mean, sum (x - mean)^2) of each group, joined to those of the stripes before
 *   apply:    y = (x - mean) rstd gamma + beta,  rstd = 1 / sqrt(m2 / count + eps)
 *
 * Joining: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
 */
#include "op.h"

#include <math.h>
#include <string.h>

static const char stripes_only[] = "stripes are for runs without gradients";

/* ---- rows of several stripes ------------------------------------------------------------------------------------- */

typedef struct { int64_t from, count; } rows;

static kw_status rows_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    const rows *a = ATTR(n, rows);
    int64_t all = 0;
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    for (int i = 0; i < n->n_in && n->in[i] >= 0; i++) {
        kw_shape s = kw_shape_of(g, n->in[i]), t = shape[0];
        char one[64], two[64];
        if (s.rank != 4 || kw_dtype_of(g, n->in[i]) != dtype[0] || s.d[0] != t.d[0] || s.d[2] != t.d[2]
            || s.d[3] != t.d[3])
            return kw_fail(e, KW_EDATA, "%s and %s are not stripes of one picture", kw_dims_text(t, one),
                           kw_dims_text(s, two));
        all += s.d[1];
    }
    if (a->from < 0 || a->count < 1 || a->from + a->count > all)
        return kw_fail(e, KW_EDATA, "rows %lld..%lld of %lld", (long long)a->from, (long long)(a->from + a->count),
                       (long long)all);
    shape[0].d[1] = a->count;
    return KW_OK;
}

static void copy_rows(const kw_call *c, size_t size)
{
    const rows *a = ATTR(c->node, rows);
    kw_shape to = SHAPE_OUT(c, 0);
    size_t row = size * (size_t)(to.d[2] * to.d[3]);
    int64_t first = -a->from;             /* where the stripe begins in the output */
    for (int i = 0; i < c->node->n_in && c->in[i]; i++) {
        int64_t h = SHAPE_IN(c, i).d[1], from = KW_MAX(0, first), end = KW_MIN(to.d[1], first + h);
        int64_t count = KW_MAX(0, end - from);
        #pragma omp parallel for
        for (int64_t k = 0; k < to.d[0] * count; k++) {
            int64_t n = k / count, y = from + k % count;
            memcpy((char *)c->out[0] + (size_t)(n * to.d[1] + y) * row,
                   (const char *)c->in[i] + (size_t)(n * h + y - first) * row, row);
        }
        first += h;
    }
}

static void rows_ref(const kw_call *c) { copy_rows(c, sizeof(double)); }
static void rows_run(const kw_call *c) { copy_rows(c, kw_dtype_size(TYPE_OUT(c, 0))); }

static kw_val rows_cases(kw_graph *g, int i)
{
    static const struct { int n; int64_t h[3], from, count; } k[] = {
        { 1, { 5 }, 1, 3 }, { 3, { 2, 4, 3 }, 1, 6 }, { 2, { 4, 4 }, 5, 2 }, { 3, { 1, 1, 1 }, 0, 3 },
    };
    static const char *const name[] = { "a", "b", "c" };
    kw_val part[3];
    if (i >= (int)KW_LEN(k))
        return KW_NONE;
    for (int j = 0; j < k[i].n; j++)
        part[j] = kw_input(g, name[j], KW_SHAPE(2, k[i].h[j], 3, 5), g->compute);
    return kw_rows(g, part, k[i].n, k[i].from, k[i].count);
}

kw_val kw_rows(kw_graph *g, const kw_val *part, int n, int64_t from, int64_t count)
{
    return kw_emit(g, &kw_op_concat_rows, part, n, &(rows){ from, count });
}

const kw_op kw_op_concat_rows = {
    .name = "concat_rows", .math = "y = rows [from, from + count) of the inputs, one below the other",
    .n_in = KW_INS, .n_optional = KW_INS - 1, .n_out = 1, .attr_size = sizeof(rows), .infer = rows_infer,
    .no_grad = stripes_only, .ref = rows_ref, .fast = { { .name = "copy", .run = rows_run } }, .cases = rows_cases,
};

/* ---- moments ----------------------------------------------------------------------------------------------------- */

typedef struct { int groups; } groups;

static kw_status moments_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]);
    int count = ATTR(n, groups)->groups;
    if (x.rank != 4 || count < 1 || kw_last(x) % count)
        return kw_fail(e, KW_EDATA, "%lld channels do not divide into %d groups", (long long)kw_last(x), count);
    shape[0] = KW_SHAPE(x.d[0], count, 3);
    dtype[0] = KW_F64;
    if (n->in[1] >= 0 && !kw_shape_equal(kw_shape_of(g, n->in[1]), shape[0]))
        return kw_fail(e, KW_EDATA, "moments of other groups or pictures");
    return KW_OK;
}

static void begin_moments(const kw_call *c)
{
    size_t bytes = kw_value_bytes(c->g, c->node->out[0]);
    if (!c->in[1])
        memset(c->out[0], 0, bytes);
    else if (c->in[1] != c->out[0])
        memcpy(c->out[0], c->in[1], bytes);
}

static void moments_ref(const kw_call *c)
{
    kw_shape x = SHAPE_IN(c, 0);
    int64_t count = ATTR(c->node, groups)->groups, per = x.d[3] / count, pixels = x.d[1] * x.d[2];
    begin_moments(c);
    for (int64_t i = 0; i < x.d[0] * count; i++) {
        const double *v = (const double *)c->in[0] + i / count * pixels * x.d[3] + i % count * per;
        double *m = (double *)c->out[0] + 3 * i;
        for (int64_t k = 0; k < pixels * per; k++) {            /* Welford's way, one by one */
            double d = v[k / per * x.d[3] + k % per] - m[1];
            m[0] += 1;
            m[1] += d / m[0];
            m[2] += d * (v[k / per * x.d[3] + k % per] - m[1]);
        }
    }
}

static bool moments_fits(const kw_graph *g, const kw_node *n)
{
    return kw_dtype_of(g, n->in[0]) == KW_F32 || kw_dtype_of(g, n->in[0]) == KW_BF16;
}

static kw_status moments_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]);
    (void)e;
    need->scratch = (size_t)(x.d[0] * x.d[1] * ATTR(n, groups)->groups) * 3 * sizeof(double);
    return KW_OK;
}

static void moments_run(const kw_call *c)
{
    kw_shape x = SHAPE_IN(c, 0);
    begin_moments(c);
    kw_kern_get()->group_moments(TYPE_IN(c, 0), c->in[0], c->out[0], (int)x.d[0], x.d[1], x.d[2], (int)x.d[3],
                                 ATTR(c->node, groups)->groups, c->scratch);
}

static kw_val moments_cases(kw_graph *g, int i)
{
    static const struct { int64_t h, w, c; int groups; bool more; } k[] = {
        { 3, 4, 8, 4, false }, { 5, 300, 6, 2, true }, { 2, 7, 30, 3, true }, { 1, 1, 4, 2, false },
    };
    if (i >= (int)KW_LEN(k))
        return KW_NONE;
    kw_val before = KW_NONE;
    if (k[i].more)
        before = kw_group_moments(g, kw_input(g, "a", KW_SHAPE(2, 2, k[i].w, k[i].c), g->compute), KW_NONE,
                                  k[i].groups);
    return kw_group_moments(g, kw_input(g, "x", KW_SHAPE(2, k[i].h, k[i].w, k[i].c), g->compute), before, k[i].groups);
}

kw_val kw_group_moments(kw_graph *g, kw_val x, kw_val before, int count)
{
    return KW_EMIT(g, &kw_op_group_norm_moments, (&(groups){ count }), x, before);
}

const kw_op kw_op_group_norm_moments = {
    .name = "group_norm_moments", .math = "count, mean, sum of squares about it of each group, joined to those before",
    .n_in = 2, .n_optional = 1, .n_out = 1, .attr_size = sizeof(groups), .infer = moments_infer,
    .no_grad = stripes_only, .ref = moments_ref,
    .fast = { { .name = "simd", .fits = moments_fits, .prepare = moments_prepare, .run = moments_run } },
    .cases = moments_cases,
};

/* ---- apply ------------------------------------------------------------------------------------------------------- */

typedef struct { int groups; float eps; bool silu; } apply;

static kw_status apply_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    KW_TRY(kw__like_first(g, n, shape, dtype, e));
    kw_shape m = kw_shape_of(g, n->in[1]);
    int64_t c = kw_last(shape[0]);
    int count = ATTR(n, apply)->groups;
    if (kw_dtype_of(g, n->in[1]) != KW_F64 || !kw_shape_equal(m, KW_SHAPE(shape[0].d[0], count, 3)) || c % count
        || kw_count(kw_shape_of(g, n->in[2])) != c || kw_count(kw_shape_of(g, n->in[3])) != c)
        return kw_fail(e, KW_EDATA, "%lld channels, moments and gains do not belong together", (long long)c);
    return KW_OK;
}

static void apply_ref(const kw_call *c)
{
    const apply *a = ATTR(c->node, apply);
    kw_shape s = SHAPE_IN(c, 0);
    const double *x = c->in[0], *gamma = c->in[2], *beta = c->in[3];
    double *y = c->out[0];
    for (int64_t i = 0; i < kw_count(s); i++) {
        int64_t ch = i % s.d[3], n = i / (kw_count(s) / s.d[0]);
        const double *m = (const double *)c->in[1] + 3 * (n * a->groups + ch / (s.d[3] / a->groups));
        double z = (x[i] - m[1]) / sqrt(m[2] / m[0] + (double)a->eps) * gamma[ch] + beta[ch];
        y[i] = a->silu ? z / (1 + exp(-z)) : z;
    }
}

static bool apply_fits(const kw_graph *g, const kw_node *n)
{
    return moments_fits(g, n) && kw_dtype_of(g, n->in[2]) == KW_F32 && kw_dtype_of(g, n->in[3]) == KW_F32;
}

static kw_status apply_prepare(const kw_graph *g, const kw_node *n, kw_need *need, kw_err *e)
{
    (void)e;
    need->scratch = (size_t)(kw_shape_of(g, n->in[0]).d[0] * ATTR(n, apply)->groups) * 2 * sizeof(float);
    return KW_OK;
}

static void apply_run(const kw_call *c)
{
    const apply *a = ATTR(c->node, apply);
    kw_shape s = SHAPE_IN(c, 0);
    int64_t count = s.d[0] * a->groups;
    float *mean = c->scratch, *rstd = mean + count;
    for (int64_t i = 0; i < count; i++) {
        const double *m = (const double *)c->in[1] + 3 * i;
        mean[i] = (float)m[1];
        rstd[i] = (float)(1 / sqrt(m[2] / m[0] + (double)a->eps));
    }
    kw_kern_get()->group_apply(TYPE_IN(c, 0), c->in[0], c->in[2], c->in[3], mean, rstd, c->out[0], (int)s.d[0],
                               s.d[1] * s.d[2], (int)s.d[3], a->groups, a->silu);
}

static kw_val apply_cases(kw_graph *g, int i)
{
    static const struct { int64_t h, w, c; int groups; bool silu; } k[] = {
        { 3, 4, 8, 4, false }, { 5, 60, 6, 2, true }, { 2, 7, 30, 3, true },
    };
    if (i >= (int)KW_LEN(k))
        return KW_NONE;
    kw_val a = kw_input(g, "a", KW_SHAPE(2, 2, k[i].w, k[i].c), g->compute),
           x = kw_input(g, "x", KW_SHAPE(2, k[i].h, k[i].w, k[i].c), g->compute);
    kw_val m = kw_group_moments(g, x, kw_group_moments(g, a, KW_NONE, k[i].groups), k[i].groups);
    return kw_group_apply(g, x, m, kw_input(g, "gamma", KW_SHAPE(k[i].c), kw_sum_type(g->compute)),
                          kw_input(g, "beta", KW_SHAPE(k[i].c), kw_sum_type(g->compute)), k[i].groups, 1e-3f,
                          k[i].silu);
}

kw_val kw_group_apply(kw_graph *g, kw_val x, kw_val moments, kw_val gamma, kw_val beta, int count, float eps, bool silu)
{
    return KW_EMIT(g, &kw_op_group_norm_apply, (&(apply){ count, eps, silu }), x, moments, gamma, beta);
}

const kw_op kw_op_group_norm_apply = {
    .name = "group_norm_apply", .math = "y = (x - mean) rstd gamma + beta by given moments, then SiLU if asked",
    .n_in = 4, .n_out = 1, .attr_size = sizeof(apply), .infer = apply_infer, .no_grad = stripes_only, .ref = apply_ref,
    .fast = { { .name = "simd", .fits = apply_fits, .prepare = apply_prepare, .run = apply_run } }, .in_place = true,
    .cases = apply_cases,
};
