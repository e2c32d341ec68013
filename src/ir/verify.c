/* verify.c - what a graph must satisfy; run between passes, so that a fault is found where it is made. */
#include "ir.h"

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

/* A state is written once, by a value of its shape, and nobody reads the old value afterwards. */
static kw_status check_binding(kw_graph *g, size_t b, kw_err *e)
{
    kw_binding bound = g->bound[b];
    size_t writer = (size_t)g->value[bound.value].node;
    for (size_t k = 0; k < b; k++)
        if (g->bound[k].state == bound.state)
            return broken(g, writer, "a state is written twice", e);
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->node[i].n_in; k++) {
            kw_val v = g->node[i].in[k];
            if (kw_state_of(g, v) != bound.state || bound.state < 0)
                continue;
            if (i > writer)
                return broken(g, i, "reads the old value of a state that was updated before", e);
            if (kw_value_bytes(g, v) != kw_value_bytes(g, bound.value))
                return broken(g, writer, "the new value of a state has another size", e);
        }
    return KW_OK;
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
    for (size_t b = 0; b < g->n_bound; b++)
        KW_TRY(check_binding(g, b, e));
    return KW_OK;
}
