/* test_attention.c - attention and its gradients against double, for every instruction set; odd shapes. */
#include "simd_check.h"

typedef struct {
    int batch, heads, dim, tq, tk;
    bool causal, packed;                  /* packed: q, k, v are slices of one (tokens, 3 C) product */
    double sigma;                         /* of q and k */
} attention_case;

static const attention_case cases[] = {
    { 1, 1, 1, 1, 1, false, false, 1 }, { 1, 2, 3, 5, 3, false, false, 1 }, { 2, 1, 7, 17, 33, false, false, 1 },
    { 1, 1, 8, 1, 300, false, false, 1 }, { 1, 2, 13, 130, 1, false, false, 1 }, { 2, 4, 32, 64, 16, false, false, 1 },
    { 1, 4, 32, 64, 64, false, true, 1 }, { 1, 3, 32, 256, 256, false, true, 1 },
    { 1, 2, 40, 100, 77, false, false, 1 },
    { 1, 2, 40, 200, 200, true, true, 1 }, { 1, 2, 64, 77, 77, true, true, 1 }, { 3, 1, 80, 65, 129, false, false, 1 },
    { 1, 1, 160, 64, 64, false, true, 1 }, { 1, 1, 512, 50, 50, false, true, 1 }, { 1, 2, 24, 31, 31, true, false, 4 },
    { 1, 2, 40, 150, 400, false, false, 10 }, { 1, 1, 33, 97, 97, true, true, 3 },
    { 1, 1, 40, 700, 700, false, true, 1 },
    { 1, 1, 16, 10, 20, true, false, 1 }, { 1, 1, 16, 20, 10, true, false, 1 }, { 5, 2, 8, 3, 2, true, false, 1 },
    { 1, 2, 40, 129, 97, false, true, 1 }, { 1, 1, 56, 70, 201, true, false, 1 },
    { 1, 1, 120, 33, 200, false, false, 1 }, { 1, 3, 128, 40, 100, false, false, 1 },
    { 1, 1, 11, 1100, 190, false, false, 1 }, { 1, 1, 72, 250, 103, true, true, 4 },
};

typedef struct { double *o, *lse, *dq, *dk, *dv; } reference;

/* One head; pointers are at its first channel. */
static void head_reference(const kw_attention_shape *s, const double *q, const double *k, const double *v,
                           const double *d_o,
                           double *o, double *lse, double *dq, double *dk, double *dv)
{
    double *p = malloc((size_t)s->tk * sizeof *p), *dp = malloc((size_t)s->tk * sizeof *dp);
    for (int r = 0; r < s->tq; r++) {
        const int n = s->causal && r + 1 < s->tk ? r + 1 : s->tk;
        double top = -INFINITY, sum = 0, delta = 0;
        for (int j = 0; j < n; j++) {
            p[j] = dp[j] = 0;
            for (int c = 0; c < s->dim; c++)
                p[j] += (double)s->scale * q[r * s->q_stride + c] * k[j * s->k_stride + c];
            top = fmax(top, p[j]);
        }
        for (int j = 0; j < n; j++)
            sum += p[j] = exp(p[j] - top);
        *(lse + r) = top + log(sum);
        for (int j = 0; j < n; j++) {
            p[j] /= sum;
            for (int c = 0; c < s->dim; c++) {
                o[r * s->o_stride + c] += p[j] * v[j * s->v_stride + c];
                dp[j] += d_o[r * s->o_stride + c] * v[j * s->v_stride + c];
            }
            delta += p[j] * dp[j];
        }
        for (int j = 0; j < n; j++)
            for (int c = 0; c < s->dim; c++) {
                const double ds = (double)s->scale * p[j] * (dp[j] - delta);
                dq[r * s->q_stride + c] += ds * k[j * s->k_stride + c];
                dk[j * s->k_stride + c] += ds * q[r * s->q_stride + c];
                dv[j * s->v_stride + c] += p[j] * d_o[r * s->o_stride + c];
            }
    }
    free(p), free(dp);
}

static reference attention_reference(const kw_attention_shape *s, const tensor *q, const tensor *k, const tensor *v,
                                     const tensor *d_o)
{
    const int count = s->batch * s->heads;
    reference r = { calloc((size_t)d_o->n, 8), calloc((size_t)(count * s->tq), 8), calloc((size_t)q->n, 8),
                    calloc((size_t)k->n, 8), calloc((size_t)v->n, 8) };
    for (int i = 0; i < count; i++) {
        const ptrdiff_t n = i / s->heads, c = (ptrdiff_t)(i % s->heads) * s->dim;
        const ptrdiff_t aq = n * s->tq * s->q_stride + c, ao = n * s->tq * s->o_stride + c;
        const ptrdiff_t ak = n * s->tk * s->k_stride + c, av = n * s->tk * s->v_stride + c;
        head_reference(s, q->exact + aq, k->exact + ak, v->exact + av, d_o->exact + ao, r.o + ao, r.lse + i * s->tq,
                       r.dq + aq,
                       r.dk + ak, r.dv + av);
    }
    return r;
}

static void zero(tensor *x) { memset(x->p, 0, (size_t)x->n * element(x->t)); }

static double worst_lse(const float *lse, const double *r, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)lse[i] - r[i]) / fmax(1, fabs(r[i])));
    return worst;
}

/* Tokens lie `stride` apart, with numbers of others between them that must stay as they are (zero). */
static void run_case(kw_dtype t, attention_case k)
{
    const int width = k.heads * k.dim, more = k.packed ? 2 * width : k.dim % 3;
    const kw_attention_shape s = { k.batch, k.heads, k.dim, k.tq, k.tk, width + more, width + more, width + more,
                                  width + k.dim % 2,
                                   (float)(1 / sqrt(k.dim)), k.causal };
    const int64_t nq = k.batch * k.tq * s.q_stride, nk = k.batch * k.tk * s.k_stride, no = k.batch * k.tq * s.o_stride;
    tensor q = make_random(t, nq, 0, k.sigma), kk = make_random(t, nk, 0, k.sigma), v = make_random(t, nk, 0, 1);
    tensor d_o = make_random(t, no, 0, 1), o = make(t, no), dq = make(t, nq), dk = make(t, nk), dv = make(t, nk);
    const int rows = k.batch * k.heads * k.tq;
    float *lse = malloc((size_t)rows * sizeof *lse);
    const size_t e = element(t), need = KW_MAX(kern->attention_scratch(t, &s, 3),
                                               kern->attention_grad_scratch(t, &s, 3));
    char *scratch = aligned_alloc(64, (need + 127) / 64 * 64);
    memset(scratch, 0xff, (need + 127) / 64 * 64);
    zero(&o), zero(&dq), zero(&dk), zero(&dv);
    reference r = attention_reference(&s, &q, &kk, &v, &d_o);

    SAME_BITS(lse, (size_t)rows * 4, kern->attention(t, &s, q.p, kk.p, v.p, o.p, lse, scratch));
    SAME_BITS(o.p, (size_t)no * e, (zero(&o), kern->attention(t, &s, q.p, kk.p, v.p, o.p, lse, scratch)));
#define GRADIENTS (zero(&dq), zero(&dk), zero(&dv), \
                   kern->attention_grad(t, &s, q.p, kk.p, v.p, o.p, lse, d_o.p, dq.p, dk.p, dv.p, scratch))
    SAME_BITS(dq.p, (size_t)nq * e, GRADIENTS);
    SAME_BITS(dk.p, (size_t)nk * e, GRADIENTS);
    SAME_BITS(dv.p, (size_t)nk * e, GRADIENTS);

    /* bf16: delta = rowsum(d_o o) is taken from the rounded o, which shows at large logits or few numbers */
    const bool hard = k.sigma > 1;
    const double f32 = hard ? 6e-5 : 2e-6, grad = t == KW_F32 ? f32 : hard ? 3e-2 : no < 1000 ? 1e-2 : 4e-3;
    /* products of pairs of bf16: probabilities are rounded too, and their exponential is right to 7.5e-5 */
    const bool pairs = t == KW_BF16 && !strcmp(kern->isa, "avx512_bf16");
    const double lse_limit = pairs ? 1e-4 : hard ? 1e-5 : 2e-6;    /* hard: large products that cancel */
    const double o_limit = t == KW_F32 ? f32 : (pairs ? 1.5 : 1) * bf16_limit(no);
    check(hard ? "attention lse, large logits" : "attention lse", t, worst_lse(lse, r.lse, rows), lse_limit);
    check(hard ? "attention o, large logits" : "attention o", t, error_of(&o, r.o), o_limit);
    if (k.tk > 1) {                       /* with one key dq and dk are what rounding leaves of zero */
        check(hard ? "attention dq, large logits" : "attention dq", t, error_of(&dq, r.dq), grad);
        check(hard ? "attention dk, large logits" : "attention dk", t, error_of(&dk, r.dk), grad);
    }
    check("attention dv", t, error_of(&dv, r.dv), t == KW_F32 ? f32 : no < 1000 ? 1e-2 : 4e-3);
    assert_int_equal(scratch[need] & 0xff, 0xff);       /* nothing beyond what was asked for */
    drop(&q), drop(&kk), drop(&v), drop(&d_o), drop(&o), drop(&dq), drop(&dk), drop(&dv);
    free(r.o), free(r.lse), free(r.dq), free(r.dk), free(r.dv), free(lse), free(scratch);
}

static void attention_all(void)
{
    for (size_t k = 0; k < KW_LEN(types); k++)
        for (size_t i = 0; i < KW_LEN(cases); i++)
            run_case(types[k], cases[i]);
}
static void attention_is_right(void **state) { (void)state; for_each_isa(attention_all); report(); }

/* A NaN in a query spoils its row; in a key, every row that sees it; in a value, that channel (others by 0 NaN). */
static void nan_all(void)
{
    enum { T = 70, D = 16 };
    static float q[T * D], k[T * D], v[T * D], o[T * D], lse[T];
    const kw_attention_shape s = { 1, 1, D, T, T, D, D, D, D, 0.25f, true };
    char *scratch = aligned_alloc(64, (kern->attention_scratch(KW_F32, &s, 3) + 63) / 64 * 64);
    for (int which = 0; which < 3; which++) {
        for (int i = 0; i < T * D; i++)
            q[i] = (float)random_normal(), k[i] = (float)random_normal(), v[i] = (float)random_normal();
        (which == 0 ? q : which == 1 ? k : v)[41 * D + 3] = NAN;
        kern->attention(KW_F32, &s, q, k, v, o, lse, scratch);
        for (int i = 0; i < T * D; i++) {
            const int r = i / D, c = i % D;
            const bool want = which == 0 ? r == 41 : which == 1 ? r >= 41 : r >= 41 && c == 3;
            if (isnan(o[i]) != want && !(which == 2 && c == 3 && r < 41))
                fail_msg("%s: NaN in %c, row %d channel %d: %g", kern->isa, "qkv"[which], r, c, (double)o[i]);
        }
    }
    free(scratch);
}
static void nan_survives(void **state) { (void)state; for_each_isa(nan_all); }

/* Scores far below zero, far above, and rising along the keys: the running reference must follow. */
static void range_all(void)
{
    enum { T = 500, D = 4 };
    static float q[D], k[T * D], v[T * D], o[D], lse[1];
    const kw_attention_shape s = { 1, 1, D, 1, T, D, D, D, D, 1, false };
    char *scratch = aligned_alloc(64, (kern->attention_scratch(KW_F32, &s, 3) + 63) / 64 * 64);
    static const double first[] = { -2000, 2000, -300, 0, 800 }, step[] = { 0, 0, 1, 0.01, -2 };
    for (int which = 0; which < 5; which++) {
        double sum = 0, value = 0, top = -INFINITY;
        for (int j = 0; j < T; j++) {
            for (int c = 0; c < D; c++)
                k[j * D + c] = 0, v[j * D + c] = (float)random_normal(), q[c] = c == 0;
            k[j * D] = (float)(first[which] + step[which] * j);
            top = fmax(top, (double)k[j * D]);
        }
        for (int j = 0; j < T; j++) {
            sum += exp((double)k[j * D] - top);
            value += exp((double)k[j * D] - top) * (double)v[j * D + 1];
        }
        kern->attention(KW_F32, &s, q, k, v, o, lse, scratch);
        check("range o", KW_F32, fabs((double)o[1] - value / sum) / fmax(0.1, fabs(value / sum)), 2e-5);
        check("range lse", KW_F32, fabs((double)lse[0] - top - log(sum)) / fmax(1, fabs(top)), 1e-6);
    }
    free(scratch);
}
static void range_is_kept(void **state) { (void)state; for_each_isa(range_all); report(); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_right), cmocka_unit_test(nan_survives), cmocka_unit_test(range_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
