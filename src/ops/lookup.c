/* lookup.c - embedding rows, one token of each sample, and the sinusoids of a timestep. */
#include "op.h"

#include <math.h>
#include <string.h>

/* An id outside the table reads as row 0; the host refuses such ids before a run. */
static int64_t row_of(const int64_t *ids, int64_t i, int64_t rows) { return ids[i] >= 0 && ids[i] < rows ? ids[i] : 0; }

/* ---- gather: y[i] = table[ids[i]] ---------------------------------------------------------------------- */

static kw_status gather_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape ids = kw_shape_of(g, n->in[0]), table = kw_shape_of(g, n->in[1]);
    if (kw_dtype_of(g, n->in[0]) != KW_I64 || table.rank != 2 || ids.rank >= KW_RANK)
        return kw_fail(e, KW_EDATA, "a look-up needs integer ids and a table");
    shape[0] = ids;
    shape[0].d[shape[0].rank++] = table.d[1];
    dtype[0] = g->compute;
    return KW_OK;
}

static void gather_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[1])
        din[1] = KW_EMIT(g, &kw_op_gather_grad, (&(int64_t){ kw_shape_of(g, n->in[1]).d[0] }), n->in[0], dout[0]);
}

static void gather_ref(const kw_call *c)
{
    kw_shape table = SHAPE_IN(c, 1);
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++)
        memcpy((double *)c->out[0] + i * table.d[1],
               (const double *)c->in[1] + row_of(c->in[0], i, table.d[0]) * table.d[1],
               sizeof(double) * (size_t)table.d[1]);
}

static bool gather_fits(const kw_graph *g, const kw_node *n)
{
    return kw_dtype_of(g, n->out[0]) != KW_F64 && kw_dtype_of(g, n->in[1]) != KW_F64;
}

static void gather_run(const kw_call *c)
{
    kw_shape table = SHAPE_IN(c, 1);
    size_t to = (size_t)table.d[1] * kw_dtype_size(TYPE_OUT(c, 0)),
           from = (size_t)table.d[1] * kw_dtype_size(TYPE_IN(c, 1));
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++)
        kw_convert(TYPE_OUT(c, 0), (char *)c->out[0] + (size_t)i * to, TYPE_IN(c, 1),
                   (const char *)c->in[1] + (size_t)row_of(c->in[0], i, table.d[0]) * from, (size_t)table.d[1]);
}

static kw_val gather_cases(kw_graph *g, int i)
{
    kw_val table = kw_input(g, "table", KW_SHAPE(7, 5), kw_sum_type(g->compute));
    return i ? KW_NONE : kw_gather(g, kw_input(g, "ids", KW_SHAPE(2, 6), KW_I64), table);
}

kw_val kw_gather(kw_graph *g, kw_val ids, kw_val table) { return KW_EMIT(g, &kw_op_gather, NULL, ids, table); }

const kw_op kw_op_gather = {
    .name = "gather", .math = "y[i] = table[ids[i]]", .n_in = 2, .n_out = 1, .infer = gather_infer, .grad = gather_grad,
    .ref = gather_ref,
    .fast = { { .name = "copy", .fits = gather_fits, .run = gather_run } }, .cheap = true, .cases = gather_cases,
};

static kw_status gather_grad_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    shape[0] = KW_SHAPE(*ATTR(n, int64_t), kw_last(kw_shape_of(g, n->in[1])));
    dtype[0] = kw_sum_type(g->compute);
    return KW_OK;
}

static void gather_grad_ref(const kw_call *c)
{
    kw_shape table = SHAPE_OUT(c, 0);
    double *d = c->out[0];
    const double *dy = c->in[1];
    memset(d, 0, sizeof *d * (size_t)kw_count(table));
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++)
        for (int64_t k = 0; k < table.d[1]; k++)
            d[row_of(c->in[0], i, table.d[0]) * table.d[1] + k] += dy[i * table.d[1] + k];
}

static void gather_grad_run(const kw_call *c)
{
    kw_shape table = SHAPE_OUT(c, 0);
    bool narrow = TYPE_IN(c, 1) == KW_BF16;
    float *d = c->out[0];
    memset(d, 0, sizeof *d * (size_t)kw_count(table));
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++) {
        float *row = d + row_of(c->in[0], i, table.d[0]) * table.d[1];
        for (int64_t k = 0; k < table.d[1]; k++)
            row[k] += narrow ? kw_bf16_to_f32(((const uint16_t *)c->in[1])[i * table.d[1] + k])
                             : ((const float *)c->in[1])[i * table.d[1] + k];
    }
}

const kw_op kw_op_gather_grad = {
    .name = "gather_grad", .math = "dtable[ids[i]] += dy[i]", .n_in = 2, .n_out = 1, .attr_size = sizeof(int64_t),
    .infer = gather_grad_infer,
    .no_grad = SECOND, .ref = gather_grad_ref, .fast = { { .name = "sum", .fits = kw__activations,
                                                           .run = gather_grad_run } },
};

/* ---- pick: y[n] = x[n][index[n]]: the end-of-text token ------------------------------------------------------ */

static kw_status pick_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    kw_shape x = kw_shape_of(g, n->in[0]);
    if (x.rank != 3 || kw_count(kw_shape_of(g, n->in[1])) != x.d[0] || kw_dtype_of(g, n->in[1]) != KW_I64)
        return kw_fail(e, KW_EDATA, "picking needs one integer index for each sample");
    shape[0] = KW_SHAPE(x.d[0], x.d[2]);
    dtype[0] = kw_dtype_of(g, n->in[0]);
    return KW_OK;
}

static void pick_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    if (want[0])
        din[0] = KW_EMIT(g, &kw_op_pick_grad, (&(int64_t){ kw_shape_of(g, n->in[0]).d[1] }), dout[0], n->in[1]);
}

static void pick_bytes(const kw_call *c, size_t size)
{
    kw_shape x = SHAPE_IN(c, 0);
    size_t row = size * (size_t)x.d[2];
    for (int64_t i = 0; i < x.d[0]; i++)
        memcpy((char *)c->out[0] + row * (size_t)i,
               (const char *)c->in[0] + row * (size_t)(i * x.d[1] + row_of(c->in[1], i, x.d[1])), row);
}

static void pick_ref(const kw_call *c) { pick_bytes(c, sizeof(double)); }
static void pick_run(const kw_call *c) { pick_bytes(c, kw_dtype_size(TYPE_OUT(c, 0))); }

static kw_val pick_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_pick(g, kw_input(g, "x", KW_SHAPE(3, 5, 4), g->compute),
                                 kw_input(g, "ids", KW_SHAPE(3), KW_I64));
}

kw_val kw_pick(kw_graph *g, kw_val x, kw_val index) { return KW_EMIT(g, &kw_op_pick, NULL, x, index); }

const kw_op kw_op_pick = {
    .name = "pick", .math = "y[n] = x[n][index[n]]", .n_in = 2, .n_out = 1, .infer = pick_infer, .grad = pick_grad,
    .ref = pick_ref,
    .fast = { { .name = "copy", .run = pick_run } }, .cheap = true, .cases = pick_cases,
};

static kw_status pick_grad_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    kw_shape dy = kw_shape_of(g, n->in[0]);
    shape[0] = KW_SHAPE(dy.d[0], *ATTR(n, int64_t), dy.d[1]);
    dtype[0] = kw_dtype_of(g, n->in[0]);
    return KW_OK;
}

static void pick_grad_bytes(const kw_call *c, size_t size)
{
    kw_shape x = SHAPE_OUT(c, 0);
    size_t row = size * (size_t)x.d[2];
    memset(c->out[0], 0, row * (size_t)(x.d[0] * x.d[1]));
    for (int64_t i = 0; i < x.d[0]; i++)
        memcpy((char *)c->out[0] + row * (size_t)(i * x.d[1] + row_of(c->in[1], i, x.d[1])),
               (const char *)c->in[0] + row * (size_t)i, row);
}

static void pick_grad_ref(const kw_call *c) { pick_grad_bytes(c, sizeof(double)); }
static void pick_grad_run(const kw_call *c) { pick_grad_bytes(c, kw_dtype_size(TYPE_OUT(c, 0))); }

const kw_op kw_op_pick_grad = {
    .name = "pick_grad", .math = "dx = zeros but dx[n][index[n]] = dy[n]", .n_in = 2, .n_out = 1,
    .attr_size = sizeof(int64_t),
    .infer = pick_grad_infer, .no_grad = SECOND, .ref = pick_grad_ref,
    .fast = { { .name = "copy", .run = pick_grad_run } }, .cheap = true,
};

/* ---- timestep: sin and cos of t 10000^(-i / (half - shift)); Ho et al. 2020, as diffusers' get_timestep_embedding  */

typedef struct { int dim; bool flip; float shift; } timestep;      /* flip: cosines first */

static kw_status timestep_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    if (ATTR(n, timestep)->dim < 2)
        return kw_fail(e, KW_EDATA, "a timestep embedding of %d numbers", ATTR(n, timestep)->dim);
    shape[0] = KW_SHAPE(kw_count(kw_shape_of(g, n->in[0])), ATTR(n, timestep)->dim);
    dtype[0] = g->compute;
    return KW_OK;
}

static void fill(const timestep *a, double t, double *row)
{
    int half = a->dim / 2;
    for (int i = 0; i < half; i++) {
        double angle = t * exp(-log(10000.0) * i / (half - (double)a->shift));
        row[a->flip ? half + i : i] = sin(angle);
        row[a->flip ? i : half + i] = cos(angle);
    }
    if (a->dim % 2)
        row[a->dim - 1] = 0;
}

static void timestep_ref(const kw_call *c)
{
    const timestep *a = ATTR(c->node, timestep);
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++)
        fill(a, ((const double *)c->in[0])[i], (double *)c->out[0] + i * a->dim);
}

/* In f32 the angle is rounded as PyTorch rounds it: t * freq, both f32. */
static void timestep_run(const kw_call *c)
{
    const timestep *a = ATTR(c->node, timestep);
    int half = a->dim / 2;
    size_t size = kw_dtype_size(TYPE_OUT(c, 0));
    for (int64_t i = 0; i < kw_count(SHAPE_IN(c, 0)); i++)
        for (int k = 0; k < a->dim; k++) {
            int j = k % half;
            float freq = expf(-logf(10000.0f) * (float)j / ((float)half - a->shift)),
                  angle = ((const float *)c->in[0])[i] * freq;
            float y = k >= 2 * half ? 0 : (k < half) == a->flip ? cosf(angle) : sinf(angle);
            kw_convert(TYPE_OUT(c, 0), (char *)c->out[0] + size * (size_t)(i * a->dim + k), KW_F32, &y, 1);
        }
}

static kw_val timestep_cases(kw_graph *g, int i)
{
    return i ? KW_NONE : kw_timestep(g, kw_input(g, "t", KW_SHAPE(3), kw_sum_type(g->compute)), 8, true, 0);
}

kw_val kw_timestep(kw_graph *g, kw_val t, int dim, bool flip, float shift)
{
    return KW_EMIT(g, &kw_op_timestep, (&(timestep){ dim, flip, shift }), t);
}

const kw_op kw_op_timestep = {
    .name = "timestep", .math = "y = [cos(t f_i), sin(t f_i)], f_i = 10000^(-i / half)", .n_in = 1, .n_out = 1,
    .attr_size = sizeof(timestep),
    .infer = timestep_infer, .no_grad = "a timestep is data", .ref = timestep_ref,
    .fast = { { .name = "libm", .fits = kw__activations, .run = timestep_run } },
    .cases = timestep_cases,
};
