/*
 * test_sweep.c - walks ops.def: a new op is tested by existing. Every op has a gradient or says why not; gradients
 * agree with central differences in double; fast kernels agree with the reference; twice gives the same bits.
 * A wrong factor planted in any op's gradient, forward reference or fast kernel must be caught.
 */
#include "run/run.h"
#include "../isa.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 64 };

typedef struct {
    kw_arena *arena;
    kw_program *p;
    kw_workspace *w;
    int n_inputs, n_results;
    char name[MAX][16];
    kw_val input[MAX];                    /* in the graph before pruning */
    kw_shape shape[MAX];
    kw_dtype type[MAX];
    bool data[MAX];                       /* an input that carries no gradient */
    double *value[MAX];                   /* in double; ids as well */
    void *fed[MAX];
} trial;

static kw_dtype compute;

/* ---- faults planted on purpose ---------------------------------------------------------------------------- */

static const kw_op *victim;
static enum { NO_FAULT, IN_GRAD, IN_REF, IN_FAST, IN_SECOND } fault;        /* the first or second fast kernel */

static void bad_grad(kw_graph *g, const kw_node *n, const kw_val *dout, const bool *want, kw_val *din)
{
    victim->grad(g, n, dout, want, din);
    for (int i = 0; i < n->n_in; i++)
        if (want[i] && din[i] >= 0)
            din[i] = kw_scale(g, din[i], 1.001f);
}

static void bad_ref(const kw_call *c)
{
    victim->ref(c);
    double *y = c->out[0];
    for (int64_t i = 0; i < kw_count(kw_shape_of(c->g, c->node->out[0])); i++)
        y[i] *= 1.001;
}

static void bad_fast(const kw_call *c)
{
    victim->fast[fault - IN_FAST].run(c);
    kw_val v = c->node->out[0];
    for (int64_t i = 0; i < kw_count(kw_shape_of(c->g, v)); i++) {
        if (kw_dtype_of(c->g, v) == KW_F64)
            ((double *)c->out[0])[i] *= 1.01;
        else if (kw_dtype_of(c->g, v) == KW_F32)
            ((float *)c->out[0])[i] *= 1.01f;
    }
}

/* Every node of the victim becomes a node of the faulty copy, before gradients are emitted or kernels chosen. */
static void plant(kw_graph *g)
{
    static kw_op copy;
    if (fault == NO_FAULT)
        return;
    copy = *victim;
    if (fault == IN_GRAD)
        copy.grad = bad_grad;
    if (fault == IN_REF)
        copy.ref = bad_ref;
    if (fault >= IN_FAST)
        copy.fast[fault - IN_FAST].run = bad_fast;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->node[i].op == victim)
            g->node[i].op = &copy;
}

/* ---- one trial: a case, its gradient, run in one type --------------------------------------------------------- */

static void find_inputs(trial *t, kw_graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->node[i].op != &kw_op_input)
            continue;
        kw_val v = g->node[i].out[0];
        int k = t->n_inputs++;
        t->input[k] = v;
        t->data[k] = g->value[v].name[0] == '!' || g->value[v].dtype == KW_I64 || g->value[v].dtype == KW_U8;
        t->shape[k] = g->value[v].shape;
        t->type[k] = g->value[v].dtype;
        snprintf(t->name[k], sizeof t->name[k], "in%d", k);
        g->value[v].name = t->name[k];
    }
}

/* Results: y, other float outputs, then the gradients of the inputs. dy is the last input. */
static bool build(trial *t, const kw_op *op, int i)
{
    *t = (trial){ .arena = kw_arena_new() };
    kw_graph *g = kw_graph_new(t->arena, compute);
    kw_val y = op->cases(g, i), d[MAX];
    if (y < 0) {
        assert_int_equal(g->err.status, KW_OK);
        kw_arena_free(t->arena);
        return false;
    }
    const kw_node n = *kw_node_of(g, y);
    assert_ptr_equal(n.op, op);
    if (op->grad)
        (void)kw_input(g, "dy", kw_shape_of(g, y), kw_dtype_of(g, y));
    kw_val dy = (kw_val)g->n_values - 1;
    find_inputs(t, g);
    plant(g);
    static const char *out_name[] = { "out0", "out1", "out2", "out3", "out4" };
    for (int k = 0; k < n.n_out; k++)
        kw_result(g, out_name[k], n.out[k]);
    if (op->grad) {
        kw_err e = { 0 };
        kw_val wrt[MAX];
        for (int k = 0; k < t->n_inputs; k++)
            wrt[k] = t->data[k] || t->input[k] == dy ? KW_NONE : t->input[k];
        if (kw_backward(g, &y, &dy, 1, wrt, t->n_inputs, d, &e))
            fail_msg("%s: %s", op->name, e.what);
        for (int k = 0; k < t->n_inputs; k++)
            if (wrt[k] >= 0 && d[k] >= 0)
                kw_result(g, t->name[k], d[k]);
    }
    if (fault >= IN_REF)
        plant(g);
    kw_err e = { 0 };
    if (kw_program_new(t->arena, g, kw_store_new(t->arena), NULL, &t->p, &e))
        fail_msg("%s: %s", op->name, e.what);
    t->w = kw_workspace_new(t->arena);
    t->n_results = (int)g->n_results;
    return true;
}

/* The same numbers for every type: rounded to bf16, so that inputs are exact everywhere. */
static void feed(trial *t, bool fresh)
{
    srand(7);
    for (int k = 0; k < t->n_inputs; k++) {
        int64_t n = kw_count(t->shape[k]);
        if (fresh) {
            t->value[k] = kw_alloc(t->arena, (size_t)n * sizeof(double));
            t->fed[k] = kw_alloc(t->arena, (size_t)n * sizeof(double));
            for (int64_t i = 0; i < n; i++)
                t->value[k][i] = t->type[k] == KW_I64 ? rand() % 4 : t->type[k] == KW_U8 ? rand() % 256 : (double)kw_bf16_to_f32(kw_f32_to_bf16((float)rand() / (float)RAND_MAX * 2 - 1));
        }
        if (t->type[k] == KW_I64)
            for (int64_t i = 0; i < n; i++)
                ((int64_t *)t->fed[k])[i] = (int64_t)t->value[k][i];
        else if (t->type[k] == KW_U8)
            for (int64_t i = 0; i < n; i++)
                ((uint8_t *)t->fed[k])[i] = (uint8_t)t->value[k][i];
        else
            kw_convert(t->type[k], t->fed[k], KW_F64, t->value[k], (size_t)n);
        kw_program_set(t->p, t->name[k], t->fed[k]);
    }
    kw_err e = { 0 };
    if (kw_program_run(t->p, t->w, &e))
        fail_msg("%s", e.what);
}

static double *result(const trial *t, kw_arena *a, const char *name, int64_t *n)
{
    const void *p = kw_program_result(t->p, name);
    *n = kw_count(kw_program_result_shape(t->p, name));
    double *d = p ? kw_alloc(a, (size_t)*n * sizeof *d) : NULL;
    if (d)
        kw_convert(KW_F64, d, kw_program_result_type(t->p, name), p, (size_t)*n);
    return d;
}

/* sum y dy, the number whose differences are taken */
static double objective(trial *t)
{
    int64_t n;
    kw_arena *a = kw_arena_new();
    double sum = 0, *y = result(t, a, "out0", &n);
    for (int64_t i = 0; i < n; i++)
        sum += y[i] * t->value[t->n_inputs - 1][i];
    kw_arena_free(a);
    return sum;
}

/* Central differences at up to 40 elements of input k against the emitted gradient. */
static double difference_error(trial *t, int k)
{
    const double h = 1e-5;
    int64_t n;
    double worst = 0, largest = 1e-3;
    feed(t, false);
    double *got = result(t, t->arena, t->name[k], &n);
    int64_t count = kw_count(t->shape[k]), step = count > 40 ? count / 37 : 1;
    double want[64];
    int m = 0;
    for (int64_t i = 0; i < count && m < 64; i += step, m++) {
        double keep = t->value[k][i], f[2];
        for (int s = 0; s < 2; s++) {
            t->value[k][i] = keep + (s ? h : -h);
            feed(t, false);
            f[s] = objective(t);
        }
        t->value[k][i] = keep;
        want[m] = (f[1] - f[0]) / (2 * h);
        largest = fmax(largest, fabs(want[m]));
    }
    for (int j = 0; j < m; j++)
        worst = fmax(worst, fabs((got ? got[j * step] : 0) - want[j]) / largest);
    return worst;
}

static double gradient_error(const kw_op *op, int i)
{
    trial t;
    double worst = 0;
    compute = KW_F64;
    if (!build(&t, op, i))
        return -1;
    feed(&t, true);
    for (int k = 0; op->grad && k + 1 < t.n_inputs; k++)
        if (!t.data[k])
            worst = fmax(worst, difference_error(&t, k));
    kw_arena_free(t.arena);
    return worst;
}

static double relative(const double *a, const double *b, int64_t n)
{
    double d = 0, s = 1e-30;
    for (int64_t i = 0; i < n; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        s += b[i] * b[i];
    }
    return sqrt(d / s);
}

/* All results in type t against the double reference; same bits in a second run. */
static double type_error(const kw_op *op, int i, kw_dtype type)
{
    trial fast, ref;
    double worst = 0;
    compute = KW_F64;
    build(&ref, op, i);
    compute = type;
    build(&fast, op, i);
    feed(&ref, true);
    feed(&fast, true);
    for (int k = -KW_OUTS; k < fast.n_inputs; k++) {
        char name[16];
        int64_t n, m;
        snprintf(name, sizeof name, k < 0 ? "out%d" : "in%d", k < 0 ? k + KW_OUTS : k);
        double *y = result(&fast, fast.arena, name, &n), *want = result(&ref, fast.arena, name, &m);
        if (!y || !want)
            continue;
        worst = fmax(worst, relative(y, want, n));
        feed(&fast, false);
        double *again = result(&fast, fast.arena, name, &n);
        if (memcmp(y, again, (size_t)n * sizeof *y))
            worst = INFINITY;
    }
    kw_arena_free(fast.arena);
    kw_arena_free(ref.arena);
    return worst;
}

/*
 * Limits: differences in double are good to 1e-9 or better here (measured worst 3e-9); f32 kernels to a few 1e-7 of a whole
 * result (measured worst in the printed table); bf16 results carry one rounding, 2e-3 relative L2, or a few through
 * an attention gradient whose o was rounded.
 */
static bool passes(const kw_op *op, bool print, int most)
{
    double gradient = 0, f32 = 0, bf16 = 0, w;
    int cases = 0;
    for (; cases < most && (w = gradient_error(op, cases)) >= 0; cases++) {
        gradient = fmax(gradient, w);
        f32 = fmax(f32, type_error(op, cases, KW_F32));
        bf16 = fmax(bf16, type_error(op, cases, KW_BF16));
    }
    bool ok = cases > 0 && gradient <= 1e-6 && f32 <= 5e-6 && bf16 <= 2e-2;
    if (print)
        printf("%-20s %d cases  gradient %.1e / 1e-6  f32 %.1e / 5e-6  bf16 %.1e / 2e-2  %s%s\n", op->name, cases, gradient, f32, bf16,
               ok ? "ok" : "FAIL", op->grad ? "" : "  (no gradient)");
    return ok;
}

static void every_op_agrees(void **state)
{
    (void)state;
    int bad = 0;
    for (int i = 0; kw_op_at(i); i++) {
        const kw_op *op = kw_op_at(i);
        assert_true(op->grad || op->no_grad);
        assert_non_null(op->ref);
        if (op->cases)
            bad += !passes(op, true, 100);
        else                                           /* a gradient: covered by the cases of its forward op */
            assert_true(kw_ends_with(op->name, "_grad") || kw_ends_with(op->name, "_dx") || kw_ends_with(op->name, "_dw") || !strcmp(op->name, "unslice"));
    }
    assert_int_equal(bad, 0);
}

static void a_wrong_factor_is_caught(void **state)
{
    (void)state;
    for (int i = 0; kw_op_at(i); i++) {
        victim = kw_op_at(i);
        if (!victim->cases)
            continue;
        for (fault = victim->grad ? IN_GRAD : IN_REF; fault <= IN_SECOND; fault++) {
            if (fault >= IN_FAST && (!victim->fast[fault - IN_FAST].run || victim->view))
                continue;
            if (passes(victim, false, victim->fast[1].run ? 100 : 1))
                fail_msg("%s: a planted fault (%d) was not seen", victim->name, fault);
        }
    }
    fault = NO_FAULT;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_op_agrees), cmocka_unit_test(a_wrong_factor_is_caught) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
