/* rewrite.c - the mechanics that prune and recompute share. */
#include "rewrite.h"

#include <string.h>

kw_status kw__rewrite_begin(kw__rewrite *r, kw_graph *g, kw_err *e)
{
    *r = (kw__rewrite){ .old = *g, .g = g };
    r->map = kw_alloc_array(g->arena, g->n_values, sizeof *r->map);
    if (!r->map)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < g->n_values; i++)
        r->map[i] = KW_NONE;
    g->node = NULL;
    g->value = NULL;
    g->n_nodes = g->node_capacity = g->n_values = g->value_capacity = 0;
    return KW_OK;
}

kw_status kw__rewrite_copy(kw__rewrite *r, const kw_node *n, const kw_val *in, const kw_node **copy, kw_err *e)
{
    kw_graph *g = r->g;
    KW_TRY(kw_grow(g->arena, &g->node, &g->node_capacity, g->n_nodes, sizeof *g->node, e));
    kw_node *made = &g->node[g->n_nodes];
    *made = *n;
    memcpy(made->in, in, sizeof made->in);
    for (int k = 0; k < n->n_out; k++) {
        KW_TRY(kw_grow(g->arena, &g->value, &g->value_capacity, g->n_values, sizeof *g->value, e));
        made->out[k] = (kw_val)g->n_values;
        g->value[g->n_values] = r->old.value[n->out[k]];
        g->value[g->n_values++].node = (int32_t)g->n_nodes;
    }
    g->n_nodes++;
    *copy = made;
    return KW_OK;
}

void kw__rewrite_end(kw__rewrite *r)
{
    for (size_t i = 0; i < r->g->n_results; i++)
        r->g->result[i].value = r->map[r->g->result[i].value];
    for (size_t i = 0; i < r->g->n_bound; i++)
        r->g->bound[i].value = r->map[r->g->bound[i].value];
}
