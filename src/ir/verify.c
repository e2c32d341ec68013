/* verify.c - what a graph must satisfy; run between passes, so that a fault is found where it is made. */
#include "ir.h"

#include <stdlib.h>
#include <string.h>

static kw_status broken(const kw_graph *g, size_t i, const char *why, kw_err *e)
{
    return kw_fail(e, KW_EDEVICE, "graph: node %zu (%s in %s): %s", i, g->node[i].op->name, g->node[i].scope, why);
}

/* Inputs come from earlier nodes; outputs say who makes them; shapes are what the op says. */
static kw_status check_node(kw_graph *g, size_t i, kw_err *e)
{
    kw_node *n = &g->node[i];
    for (int k = 0; k < n->n_in; k++) {
        if (n->in[k] < 0)
            continue;
        if ((size_t)n->in[k] >= g->n_values || (size_t)g->value[n->in[k]].node >= i)
            return broken(g, i, "reads a value that is not made yet", e);
    }
    kw_shape shape[KW_OUTS] = { 0 };
    kw_dtype dtype[KW_OUTS] = { 0 };
    kw_node copy = *n;
    KW_TRY(n->op->infer(g, &copy, shape, dtype, e));
    for (int k = 0; k < n->n_out; k++) {
        const kw_value *v = &g->value[n->out[k]];
        if ((size_t)v->node != i || v->slot != k)
            return broken(g, i, "an output points elsewhere", e);
        if (!kw_shape_equal(v->shape, shape[k]) || v->dtype != dtype[k])
            return broken(g, i, "an output's shape or type is not what the op infers", e);
    }
    return KW_OK;
}

/* By state: who reads its old value last, and that value's bytes; who writes it. One of each per state of the graph. */
typedef struct { int reader, writer; size_t bytes; } use;

static int most_state(const kw_graph *g)
{
    int most = -1;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->node[i].op == &kw_op_state)
            most = KW_MAX(most, kw_state_of(g, g->node[i].out[0]));
    for (size_t b = 0; b < g->n_bound; b++)
        most = KW_MAX(most, g->bound[b].state);
    return most;
}

static void note_readers(const kw_graph *g, use *of)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->node[i].n_in; k++) {
            int state = kw_state_of(g, g->node[i].in[k]);
            if (state >= 0)
                of[state] = (use){ (int)i, of[state].writer, kw_value_bytes(g, g->node[i].in[k]) };
        }
}

/* A state is written once, by a value of its shape, and nobody reads the old value afterwards. */
static kw_status check_binding(const kw_graph *g, kw_binding bound, use *u, kw_err *e)
{
    int writer = g->value[bound.value].node;
    if (u->writer >= 0)
        return broken(g, (size_t)writer, "a state is written twice", e);
    u->writer = writer;
    if (u->reader > writer)
        return broken(g, (size_t)u->reader, "reads the old value of a state that was updated before", e);
    if (u->reader >= 0 && u->bytes != kw_value_bytes(g, bound.value))
        return broken(g, (size_t)writer, "the new value of a state has another size", e);
    return KW_OK;
}

static kw_status check_bindings(const kw_graph *g, kw_err *e)
{
    int n = most_state(g) + 1;
    kw_status s = KW_OK;
    use *of = calloc((size_t)n + 1, sizeof *of);
    if (!of)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < n; i++)
        of[i].reader = of[i].writer = KW_NONE;
    note_readers(g, of);
    for (size_t b = 0; b < g->n_bound && !s; b++)
        if (g->bound[b].state >= 0)
            s = check_binding(g, g->bound[b], &of[g->bound[b].state], e);
    free(of);
    return s;
}

kw_status kw_verify(kw_graph *g, kw_err *e)
{
    if (g->err.status) {
        if (e)
            *e = g->err;
        return g->err.status;
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        KW_TRY(check_node(g, i, e));
    return check_bindings(g, e);
}
