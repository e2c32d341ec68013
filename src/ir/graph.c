/* graph.c - append-only building of a graph: every node knows its shapes at once. */
#include "ir.h"

#include <stdio.h>
#include <string.h>


typedef struct { kw_shape shape; kw_dtype dtype; int state; } leaf;

static kw_status leaf_infer(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)g, (void)e;
    const leaf *l = (const leaf *)(const void *)n->attr;
    shape[0] = l->shape;
    dtype[0] = l->dtype;
    return KW_OK;
}

const kw_op kw_op_input = { .name = "input", .math = "fed by the host", .n_out = 1, .attr_size = sizeof(leaf),
                            .infer = leaf_infer, .no_grad = "a leaf" };
const kw_op kw_op_state = { .name = "state", .math = "lives between runs", .n_out = 1, .attr_size = sizeof(leaf),
                            .infer = leaf_infer, .no_grad = "a leaf" };

kw_graph *kw_graph_new(kw_arena *a, kw_dtype compute)
{
    kw_graph *g = kw_alloc(a, sizeof *g);
    if (g)
        *g = (kw_graph){ .arena = a, .compute = compute, .scope = "" };
    return g;
}

static kw_status add_value(kw_graph *g, kw_shape shape, kw_dtype t, int node, int slot, kw_val *out)
{
    KW_TRY(kw_grow(g->arena, &g->value, &g->value_capacity, g->n_values, sizeof *g->value, &g->err));
    g->value[g->n_values] = (kw_value){ .shape = shape, .dtype = t, .node = node, .slot = slot };
    *out = (kw_val)g->n_values++;
    return KW_OK;
}

static kw_status append(kw_graph *g, kw_node *n)
{
    kw_shape shape[KW_OUTS] = { 0 };
    kw_dtype dtype[KW_OUTS] = { 0 };
    KW_TRY(n->op->infer(g, n, shape, dtype, &g->err));
    KW_TRY(kw_grow(g->arena, &g->node, &g->node_capacity, g->n_nodes, sizeof *g->node, &g->err));
    n->n_out = n->op->n_out;
    for (int i = 0; i < n->n_out; i++)
        KW_TRY(add_value(g, shape[i], dtype[i], (int)g->n_nodes, i, &n->out[i]));
    g->node[g->n_nodes++] = *n;
    return KW_OK;
}

kw_val kw_emit(kw_graph *g, const kw_op *op, const kw_val *in, int n_in, const void *attr)
{
    if (g->err.status)
        return KW_NONE;
    kw_node n = { .op = op, .n_in = op->n_in, .scope = g->scope, .backward = g->backward };
    KW_ASSERT(n_in <= op->n_in && op->attr_size <= KW_ATTR);
    for (int i = 0; i < op->n_in; i++) {
        n.in[i] = i < n_in ? in[i] : KW_NONE;
        if (n.in[i] < 0 && i < op->n_in - op->n_optional)
            KW_BUG("%s (%s): input %d is missing", op->name, g->scope, i);
    }
    if (attr)
        memcpy(n.attr, attr, op->attr_size);
    if (append(g, &n)) {
        char where[160];
        snprintf(where, sizeof where, " [%s in %s]", op->name, g->scope);
        strncat(g->err.what, where, sizeof g->err.what - strlen(g->err.what) - 1);
        return KW_NONE;
    }
    return n.out[0];
}

kw_val kw_out(const kw_graph *g, kw_val first, int slot)
{
    return first < 0 ? KW_NONE : g->node[g->value[first].node].out[slot];
}

static kw_val add_leaf(kw_graph *g, const kw_op *op, kw_shape shape, kw_dtype t, int state)
{
    leaf l = { shape, t, state };
    return kw_emit(g, op, NULL, 0, &l);
}

kw_val kw_input(kw_graph *g, const char *name, kw_shape shape, kw_dtype t)
{
    kw_val v = add_leaf(g, &kw_op_input, shape, t, KW_NONE);
    if (v >= 0)
        g->value[v].name = name;
    return v;
}

/* One leaf per state and graph: a parameter used twice gets one gradient. */
kw_val kw_state(kw_graph *g, int state, kw_shape shape, kw_dtype t)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->node[i].op == &kw_op_state && kw_state_of(g, g->node[i].out[0]) == state)
            return g->node[i].out[0];
    return add_leaf(g, &kw_op_state, shape, t, state);
}

int kw_state_of(const kw_graph *g, kw_val v)
{
    if (v < 0 || kw_node_of(g, v)->op != &kw_op_state)
        return KW_NONE;
    return ((const leaf *)(const void *)kw_node_of(g, v)->attr)->state;
}

void kw_result(kw_graph *g, const char *name, kw_val v)
{
    if (g->err.status || kw_grow(g->arena, &g->result, &g->result_capacity, g->n_results, sizeof *g->result, &g->err))
        return;
    g->result[g->n_results++] = (kw_named){ v, name };
}

void kw_bind(kw_graph *g, kw_val v, int state)
{
    if (g->err.status || kw_grow(g->arena, &g->bound, &g->bound_capacity, g->n_bound, sizeof *g->bound, &g->err))
        return;
    g->bound[g->n_bound++] = (kw_binding){ v, state };
}

int64_t kw_count(kw_shape s)
{
    int64_t n = 1;
    for (int i = 0; i < s.rank; i++)
        n *= s.d[i];
    return n;
}

int64_t kw_last(kw_shape s) { return s.rank ? s.d[s.rank - 1] : 1; }

bool kw_shape_equal(kw_shape a, kw_shape b)
{
    return a.rank == b.rank && !memcmp(a.d, b.d, sizeof a.d[0] * (size_t)a.rank);
}

size_t kw_value_bytes(const kw_graph *g, kw_val v)
{
    return (size_t)kw_count(g->value[v].shape) * kw_dtype_size(g->value[v].dtype);
}

const char *kw_dims_text(kw_shape s, char text[64])
{
    int n = snprintf(text, 64, "(");
    for (int i = 0; i < s.rank; i++)
        n += snprintf(text + n, 64 - (size_t)n, i ? ", %lld" : "%lld", (long long)s.d[i]);
    snprintf(text + n, 64 - (size_t)n, ")");
    return text;
}
