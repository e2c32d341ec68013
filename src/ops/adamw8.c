/*
 * adamw8.c - AdamW whose moments are kept in one byte each: block-wise dynamic quantisation (Dettmers et al. 2022,
 * arXiv:2110.02861). src/kern/simd/update8.c has the formula and the kernel; here codes are found by searching the
 * table of values as the paper makes it.
 */
#include "op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RATE, DECAY, BIAS1, BIAS2, CLIP };
enum { P, GRAD, M, V, M_SCALE, V_SCALE, SCALARS, KEY };
static const int same_as[] = { P, M, V, M_SCALE, V_SCALE };             /* by output */

typedef struct { kw_adam c; int64_t at; } adamw8;

static int64_t blocks(int64_t n) { return (n + KW_BLOCK8 - 1) / KW_BLOCK8; }

static kw_status adamw8_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    int64_t scales = blocks(kw_count(kw_shape_of(g, n->in[P])));
    for (int i = GRAD; i <= V; i++)
        KW_TRY(kw__same(g, n->in[P], n->in[i], e));
    if (kw_dtype_of(g, n->in[M]) != KW_U8 || kw_dtype_of(g, n->in[V]) != KW_U8)
        return kw_fail(e, KW_EDATA, "moments of one byte are of type U8");
    if (kw_count(kw_shape_of(g, n->in[M_SCALE])) != scales || kw_count(kw_shape_of(g, n->in[V_SCALE])) != scales)
        return kw_fail(e, KW_EDATA, "%lld blocks have as many scales", (long long)scales);
    if (kw_count(kw_shape_of(g, n->in[SCALARS])) != 5)
        return kw_fail(e, KW_EDATA, "AdamW needs five scalars");
    if (kw_dtype_of(g, n->in[P]) == KW_BF16 && n->in[KEY] < 0)
        return kw_fail(e, KW_EDATA, "AdamW needs a key to round bf16 weights by");
    for (int i = 0; i < 5; i++) {
        shape[i] = kw_shape_of(g, n->in[same_as[i]]);
        dtype[i] = kw_dtype_of(g, n->in[same_as[i]]);
    }
    return KW_OK;
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* All values in order: decades with ever more of them, as the paper's appendix and bitsandbytes' create_dynamic_map. */
static void make_values(bool two, double value[256])
{
    int n = 0;
    for (int i = 0; i < 7; i++) {
        int cells = 1 << (two ? i : i + 1);
        for (int k = 0; k < cells; k++) {
            double x = pow(10, i - 6) * (0.1 + 0.9 * (k + 0.5) / cells);
            value[n++] = x;
            if (two)
                value[n++] = -x;
        }
    }
    value[n++] = 0;
    value[n++] = 1;
    qsort(value, 256, sizeof *value, by_value);
}

static int nearest(const double value[256], bool two, double x)
{
    int best = !two && x > 0;             /* a second moment above zero stays above it */
    for (int i = best; i < 256; i++)
        if (fabs(value[i] - x) < fabs(value[best] - x))
            best = i;
    return best;
}

static double compress(const double value[256], bool two, const double *x, int64_t n, uint8_t *code)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs(x[i]));
    for (int64_t i = 0; i < n; i++)
        code[i] = (uint8_t)nearest(value, two, most > 0 ? x[i] / most : 0);
    return most;
}

static void ref_block(const kw_call *c, int64_t block, double *const value[2])
{
    const kw_adam *a = &ATTR(c->node, adamw8)->c;
    const double *s = c->in[SCALARS], b1 = (double)a->beta1, b2 = (double)a->beta2;
    int64_t from = block * KW_BLOCK8, n = KW_MIN(KW_BLOCK8, kw_count(SHAPE_IN(c, P)) - from);
    double m[KW_BLOCK8], v[KW_BLOCK8];
    for (int64_t i = 0; i < n; i++) {
        double g = ((const double *)c->in[GRAD])[from + i] * s[CLIP];
        m[i] = value[0][((const uint8_t *)c->in[M])[from + i]] * ((const double *)c->in[M_SCALE])[block];
        v[i] = value[1][((const uint8_t *)c->in[V])[from + i]] * ((const double *)c->in[V_SCALE])[block];
        m[i] = m[i] * b1 + (1 - b1) * g;
        v[i] = v[i] * b2 + (1 - b2) * g * g;
        ((double *)c->out[0])[from + i] = ((const double *)c->in[P])[from + i] * (1 - s[RATE] * s[DECAY])
            - s[RATE] / s[BIAS1] * m[i] / (sqrt(v[i]) / sqrt(s[BIAS2]) + (double)a->eps);
    }
    ((double *)c->out[3])[block] = compress(value[0], true, m, n, (uint8_t *)c->out[1] + from);
    ((double *)c->out[4])[block] = compress(value[1], false, v, n, (uint8_t *)c->out[2] + from);
}

static void keep(const kw_call *c, size_t number)
{
    const size_t n = (size_t)kw_count(SHAPE_IN(c, P));
    const size_t bytes[] = { n * number, n, n, (size_t)blocks((int64_t)n) * (number == 8 ? 8 : 4),
                             (size_t)blocks((int64_t)n) * (number == 8 ? 8 : 4) };
    for (int i = 0; i < 5; i++)
        if (c->out[i] != c->in[same_as[i]])
            memcpy(c->out[i], c->in[same_as[i]], bytes[i]);
}

/* Which way bf16 weights are rounded is not told here: to the nearest. */
static void adamw8_ref(const kw_call *c)
{
    double two[256], one[256];
    if (isnan(((const double *)c->in[SCALARS])[CLIP])) {
        keep(c, sizeof(double));
        return;
    }
    make_values(true, two);
    make_values(false, one);
    for (int64_t block = 0; block < kw_count(SHAPE_IN(c, M_SCALE)); block++)
        ref_block(c, block, (double *[]){ two, one });
}

/* ---- the kernel -------------------------------------------------------------------------------------------------- */

static bool fits(const kw_graph *g, const kw_node *n)
{
    kw_dtype t = kw_dtype_of(g, n->in[P]);
    return (t == KW_F32 || t == KW_BF16) && kw_dtype_of(g, n->in[GRAD]) == KW_F32
        && kw_dtype_of(g, n->in[M_SCALE]) == KW_F32 && kw_dtype_of(g, n->in[SCALARS]) == KW_F32;
}

static void adamw8_run(const kw_call *c)
{
    const kw_adam *a = &ATTR(c->node, adamw8)->c;
    const float *s = c->in[SCALARS];
    kw_adamw o = { .rate = s[RATE], .beta1 = a->beta1, .beta2 = a->beta2, .eps = a->eps, .decay = s[DECAY],
                   .bias1 = s[BIAS1], .bias2 = s[BIAS2], .clip = s[CLIP] };
    kw_moments8 moments = { c->out[1], c->out[2], c->out[3], c->out[4] };
    keep(c, kw_dtype_size(TYPE_IN(c, P)));
    if (!isnan(o.clip))
        kw_kern_get()->adamw8(&o, TYPE_IN(c, P), c->out[0], c->in[GRAD], &moments, kw_count(SHAPE_IN(c, P)),
                              c->in[KEY] ? *(const uint64_t *)c->in[KEY] : 0, ATTR(c->node, adamw8)->at);
}

static kw_val cases(kw_graph *g, int i)
{
    if (i > 1)
        return KW_NONE;
    kw_dtype t = kw_sum_type(g->compute);
    kw_shape s = KW_SHAPE(1001), few = KW_SHAPE(4);
    kw_val f = kw_input(g, "scalars", KW_SHAPE(5), t), scale = kw_input(g, "scale", few, t);
    kw_val ms = kw_input(g, "scale", few, t);
    kw_adamw8_in in = { .p = kw_input(g, "p", s, i ? g->compute : t), .grad = kw_input(g, "grad", s, t),
                        .m = kw_input(g, "m", s, KW_U8), .v = kw_input(g, "v", s, KW_U8), .m_scale = kw_mul(g, ms, ms),
                        .v_scale = kw_mul(g, scale, scale), .scalars = kw_mul(g, f, f),
                        .key = i ? kw_input(g, "key", KW_SHAPE(1), KW_I64) : KW_NONE };
    return kw_adamw8_step(g, &in, (kw_adam){ 0.9f, 0.99f, 1e-2f });
}

kw_val kw_adamw8_step(kw_graph *g, const kw_adamw8_in *in, kw_adam c)
{
    return KW_EMIT(g, &kw_op_adamw8, (&(adamw8){ c, in->at }), in->p, in->grad, in->m, in->v, in->m_scale, in->v_scale,
                   in->scalars, in->key);
}

const kw_op kw_op_adamw8 = {
    .name = "adamw8", .math = "adamw over m and v of one byte each, 256 of them with one scale", .n_in = 8,
    .n_optional = 1, .n_out = 5, .attr_size = sizeof(adamw8), .infer = adamw8_infer,
    .no_grad = "nothing is learned through an update", .ref = adamw8_ref,
    .fast = { { .name = "simd", .fits = fits, .run = adamw8_run } }, .in_place = true, .cases = cases,
};
