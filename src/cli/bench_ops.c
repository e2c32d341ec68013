/* bench_ops.c - nodes taken out of graphs: of a model's pass, or of a small graph around one op. */
#include "bench_ops.h"

#include <stdlib.h>
#include <string.h>

/* ---- out of a model ---------------------------------------------------------------------------------------------- */

static bool same_value(const kw_graph *g, kw_val a, kw_val b)
{
    if (a < 0 || b < 0)
        return a == b;
    return kw_dtype_of(g, a) == kw_dtype_of(g, b) && kw_shape_equal(kw_shape_of(g, a), kw_shape_of(g, b));
}

static bool same(const kw_graph *g, const kw_node *a, const kw_node *b)
{
    if (a->op != b->op || memcmp(a->attr, b->attr, a->op->attr_size))
        return false;
    for (int i = 0; i < a->n_in; i++)
        if (!same_value(g, a->in[i], b->in[i]))
            return false;
    return true;
}

static void describe(kw_bench_op *o)
{
    const kw_node *n = o->node;
    kw_bench_place(o->g, n, o->place);
    o->flops = kw_node_flops(o->g, n);
    for (int i = 0; i < n->n_in; i++)
        o->bytes += n->in[i] < 0 ? 0 : (double)kw_value_bytes(o->g, n->in[i]);
    for (int i = 0; i < n->n_out; i++)
        o->bytes += (double)kw_value_bytes(o->g, n->out[i]);
}

static int most_work(const void *x, const void *y)
{
    const kw_bench_op *a = x, *b = y;
    if (a->node->op != b->node->op)
        return strcmp(a->node->op->name, b->node->op->name);
    double p = (double)a->count * (a->flops > 0 ? a->flops : a->bytes),
           q = (double)b->count * (b->flops > 0 ? b->flops : b->bytes);
    return (p < q) - (p > q);
}

static kw_status collect(kw_arena *a, const kw_graph *g, const char *const *ops, size_t n_ops, kw_bench_op **out,
                         size_t *n, kw_err *e)
{
    size_t capacity = 0;
    *n = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kw_node *node = &g->node[i];
        size_t k = 0, at = 0;
        while (k < n_ops && strcmp(ops[k], node->op->name))
            k++;
        if (k == n_ops)
            continue;
        while (at < *n && !same(g, (*out)[at].node, node))
            at++;
        if (at == *n) {
            KW_TRY(kw_grow(a, out, &capacity, *n, sizeof **out, e));
            (*out)[(*n)++] = (kw_bench_op){ .g = g, .node = node };
            describe(&(*out)[at]);
        }
        (*out)[at].count++;
    }
    if (*n)
        qsort(*out, *n, sizeof **out, most_work);
    return *n ? KW_OK : kw_fail(e, KW_EUSAGE, N_("this pass has no %s"), ops[0]);
}

kw_status kw_bench_ops_of_model(kw_cli *c, const kw_bench_model *m, const char *const *ops, size_t n_ops,
                                kw_bench_op **out, size_t *n, kw_err *e)
{
    kw_store *store = kw_store_new(c->arena);
    kw_sd *sd;
    kw_graph *g;
    if (!store)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_sd_over(c->arena, m->source, NULL, store, KW_F32, NULL, NULL, &sd, e));
    if (kw_bench_trains(m)) {
        kw_micro b = kw_bench_shape(m);
        KW_TRY(kw_step_graph(c->arena, sd, &m->tc, &b, &g, e));
    } else {
        KW_TRY(kw_bench_graph(c->arena, m, sd, &g, e));
        KW_TRY(kw_prune(g, e));
    }
    return collect(c->arena, g, ops, n_ops, out, n, e);
}

/* ---- at a shape in words ----------------------------------------------------------------------------------------- */

enum { MOST_NUMBERS = 8 };
typedef struct { int64_t v[MOST_NUMBERS]; int n; } numbers;

/*
 * One row for each forward op: how its name begins (gradients are taken from the same graph), what the numbers are, how
 * many must be given, and the graph. w: a leaf that stands for a weight.
 */
typedef struct { kw_graph *g; kw_dtype weights; int states; const numbers *n; } maker;

static kw_val weight(maker *m, kw_shape s, kw_dtype t) { return kw_state(m->g, m->states++, s, t); }
static kw_val x_of(maker *m, kw_shape s) { return kw_input(m->g, "x", s, m->g->compute); }

static kw_val conv2d(maker *m)
{
    const int64_t *v = m->n->v;
    int k = m->n->n > 5 ? (int)v[5] : 3, stride = m->n->n > 6 ? (int)v[6] : 1;
    return kw_conv2d(m->g, x_of(m, KW_SHAPE(v[0], v[1], v[2], v[3])), weight(m, KW_SHAPE(v[4], v[3], k, k), m->weights),
                     weight(m, KW_SHAPE(v[4]), KW_F32), (kw_conv_pads){ stride, k / 2, k / 2, k / 2, k / 2 });
}

static kw_val linear(maker *m)
{
    const int64_t *v = m->n->v;
    return kw_linear(m->g, x_of(m, KW_SHAPE(v[0], v[1])), weight(m, KW_SHAPE(v[2], v[1]), m->weights),
                     weight(m, KW_SHAPE(v[2]), KW_F32));
}

static kw_val attention(maker *m)
{
    const int64_t *v = m->n->v;
    kw_shape q = KW_SHAPE(v[0], v[1], v[3] * v[4]), k = KW_SHAPE(v[0], v[2], v[3] * v[4]);
    return kw_attention(m->g, x_of(m, q), kw_input(m->g, "k", k, m->g->compute), kw_input(m->g, "v", k, m->g->compute),
                        (int)v[3], false);
}

static kw_val group_norm(maker *m)
{
    const int64_t *v = m->n->v;
    int groups = m->n->n > 4 ? (int)v[4] : 32;
    if (v[3] % groups)
        return KW_NONE;
    return kw_group_norm(m->g, x_of(m, KW_SHAPE(v[0], v[1], v[2], v[3])), weight(m, KW_SHAPE(v[3]), KW_F32),
                         weight(m, KW_SHAPE(v[3]), KW_F32), groups, 1e-5f, true);
}

static kw_val layer_norm(maker *m)
{
    const int64_t *v = m->n->v;
    return kw_layer_norm(m->g, x_of(m, KW_SHAPE(v[0], v[1])), weight(m, KW_SHAPE(v[1]), KW_F32),
                         weight(m, KW_SHAPE(v[1]), KW_F32), 1e-5f);
}

static kw_val geglu(maker *m) { return kw_geglu(m->g, x_of(m, KW_SHAPE(m->n->v[0], 2 * m->n->v[1]))); }
static kw_val unary(maker *m) { return kw_silu(m->g, x_of(m, KW_SHAPE(m->n->v[0], m->n->v[1]))); }
static kw_val lincomb(maker *m)
{
    kw_shape s = KW_SHAPE(m->n->v[0], m->n->v[1]);
    return kw_add(m->g, x_of(m, s), kw_input(m->g, "z", s, m->g->compute));
}

static kw_val adamw(maker *m)
{
    kw_shape s = KW_SHAPE(m->n->v[0]);
    kw_val p = kw_input(m->g, "p", s, KW_F32), d = kw_input(m->g, "d", s, KW_F32),
           mean = kw_input(m->g, "m", s, KW_F32);
    return kw_adamw_step(m->g, p, d, mean, kw_input(m->g, "v", s, KW_F32), kw_input(m->g, "s", KW_SHAPE(5), KW_F32),
                         (kw_adam){ 0.9f, 0.999f, 1e-8f });
}

static const struct { const char *head, *numbers; int least, most; kw_val (*make)(maker *); } rows[] = {
    { "conv2d", N_("pictures x height x width x channels in x channels out [x kernel [x stride]]"), 5, 7, conv2d },
    { "linear", N_("rows x numbers in x numbers out"), 3, 3, linear },
    { "attention", N_("batch x queries x keys x heads x width of a head"), 5, 5, attention },
    { "group_norm", N_("pictures x height x width x channels [x groups]"), 4, 5, group_norm },
    { "layer_norm", N_("rows x channels"), 2, 2, layer_norm },
    { "geglu", N_("rows x channels"), 2, 2, geglu },
    { "unary", N_("rows x channels"), 2, 2, unary },
    { "lincomb", N_("rows x channels"), 2, 2, lincomb },
    { "adamw", N_("numbers"), 1, 1, adamw },
};

static bool read_numbers(const char *text, numbers *n)
{
    *n = (numbers){ .n = 0 };
    for (const char *s = text; n->n < MOST_NUMBERS; s++) {
        char *end;
        long long v = strtoll(s, &end, 10);
        if (end == s || v < 1 || v > 1 << 30)
            return false;
        n->v[n->n++] = v;
        s = end;
        if (!*s)
            return true;
        if (*s != 'x' && *s != 'X')
            return false;
    }
    return false;
}

/* Gradients towards every leaf, so that the wanted gradient op is somewhere in the graph. */
static kw_status add_gradients(kw_graph *g, kw_val y, kw_err *e)
{
    enum { MOST = 16 };
    kw_val wrt[MOST], d[MOST], dy = kw_input(g, "dy", kw_shape_of(g, y), kw_dtype_of(g, y));
    int n = 0;
    for (size_t i = 0; i < g->n_nodes && n < MOST; i++)
        if (g->node[i].op == &kw_op_state || (g->node[i].op == &kw_op_input && g->node[i].out[0] != dy))
            wrt[n++] = g->node[i].out[0];
    return kw_backward(g, &y, &dy, 1, wrt, n, d, e);
}

static const kw_node *find_node(const kw_graph *g, const char *op)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!strcmp(g->node[i].op->name, op))
            return &g->node[i];
    return NULL;
}

kw_status kw_bench_op_of_shape(kw_arena *a, kw_dtype compute, kw_dtype weights, const char *op, const char *shape,
                               kw_bench_op *out, kw_err *e)
{
    size_t row = 0;
    numbers n;
    while (row < KW_LEN(rows) && !kw_starts_with(op, rows[row].head))
        row++;
    if (row == KW_LEN(rows))
        return kw_fail(e, KW_EUSAGE, N_("%s cannot be given a shape; without one, those of a model are measured"), op);
    if (!read_numbers(shape, &n) || n.n < rows[row].least || n.n > rows[row].most) {
        kw_status s = kw_fail(e, KW_EUSAGE, N_("'%s' is no shape for %s"), shape, op);
        return kw_advise(e, s, "%s", kw_translate(rows[row].numbers));
    }
    maker m = { .g = kw_graph_new(a, compute), .weights = weights, .n = &n };
    if (!m.g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_val y = rows[row].make(&m);
    if (y >= 0 && !m.g->err.status && kw_node_of(m.g, y)->op->grad)
        KW_TRY(add_gradients(m.g, y, e));
    if (y < 0 || m.g->err.status)
        return kw_fail(e, KW_EUSAGE, N_("'%s' is no shape for %s"), shape, op);
    *out = (kw_bench_op){ .g = m.g, .node = find_node(m.g, op), .count = 1 };
    if (!out->node)
        return kw_fail(e, KW_EUSAGE, N_("%s cannot be given a shape; without one, those of a model are measured"), op);
    describe(out);
    return KW_OK;
}

/* ---- the node alone ---------------------------------------------------------------------------------------------- */

static const int moved[] = { 0, 2, 3 };    /* inputs of AdamW that become its outputs 0, 1, 2, in their own memory */

static bool is_moved(const kw_node *n, int i)
{
    bool any = false;
    for (size_t k = 0; k < KW_LEN(moved); k++)
        any |= n->op == &kw_op_adamw && moved[k] == i;
    return any;
}

static kw_status leaf(kw_graph *g, kw_store *s, const kw_bench_op *o, int i, kw_val *out, kw_err *e)
{
    static const char *const names[KW_INS] = { "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7" };
    kw_val v = o->node->in[i];
    kw_shape shape = kw_shape_of(o->g, v);
    kw_dtype t = kw_dtype_of(o->g, v);
    int id;
    if (kw_state_of(o->g, v) < 0 && !is_moved(o->node, i)) {
        *out = kw_input(g, names[i], shape, t);
        return KW_OK;
    }
    KW_TRY(kw_store_add(s, "w", shape, t, NULL, &id, e));
    kw_bench_numbers(t, kw_store_write(s, id), (size_t)kw_count(shape));
    *out = kw_state(g, id, shape, t);
    return KW_OK;
}

kw_status kw_bench_op_program(kw_arena *a, const kw_bench_op *o, kw_program **out, kw_err *e)
{
    kw_graph *g = kw_graph_new(a, o->g->compute);
    kw_store *s = kw_store_new(a);
    kw_val in[KW_INS];
    if (!g || !s)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < o->node->n_in; i++) {
        in[i] = KW_NONE;
        if (o->node->in[i] >= 0)
            KW_TRY(leaf(g, s, o, i, &in[i], e));
    }
    kw_val y = kw_emit(g, o->node->op, in, o->node->n_in, o->node->attr);
    for (int i = 0; y >= 0 && i < o->node->n_out; i++)
        if (o->node->op == &kw_op_adamw)
            kw_bind(g, kw_out(g, y, i), kw_state_of(g, in[moved[i]]));
        else
            kw_result(g, "y", kw_out(g, y, i));
    if (g->err.status && e)
        *e = g->err;
    KW_TRY(g->err.status);
    KW_TRY(kw_program_new(a, g, s, NULL, out, e));
    return kw_bench_feed(a, *out, e);
}
