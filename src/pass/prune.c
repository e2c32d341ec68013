/* prune.c - what nobody reads is not computed. */
#include "rewrite.h"

/* Walk back from results and bound states. */
static void mark(const kw_graph *g, bool *live)
{
    for (size_t i = 0; i < g->n_results; i++)
        live[g->value[g->result[i].value].node] = true;
    for (size_t i = 0; i < g->n_bound; i++)
        live[g->value[g->bound[i].value].node] = true;
    for (size_t i = g->n_nodes; i-- > 0;)
        for (int k = 0; live[i] && k < g->node[i].n_in; k++)
            if (g->node[i].in[k] >= 0)
                live[g->value[g->node[i].in[k]].node] = true;
}

kw_status kw_prune(kw_graph *g, kw_err *e)
{
    kw__rewrite r;
    bool *live = kw_alloc_array(g->arena, g->n_nodes, sizeof *live);
    if (!live)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    mark(g, live);
    KW_TRY(kw__rewrite_begin(&r, g, e));
    for (size_t i = 0; i < r.old.n_nodes; i++) {
        const kw_node *n = &r.old.node[i], *copy;
        kw_val in[KW_INS] = { 0 };
        if (!live[i])
            continue;
        for (int k = 0; k < n->n_in; k++)
            in[k] = n->in[k] < 0 ? KW_NONE : r.map[n->in[k]];
        KW_TRY(kw__rewrite_copy(&r, n, in, &copy, e));
        for (int k = 0; k < n->n_out; k++)
            r.map[n->out[k]] = copy->out[k];
    }
    kw__rewrite_end(&r);
    return KW_OK;
}
