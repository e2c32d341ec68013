/*
 * recompute.c - memory for time: forward values that the backward pass reads are dropped after their last
 * forward use and made again just before their first backward use (Chen et al. 2016, arXiv:1604.06174). Between dropping
 * what only costs bandwidth and dropping all but block boundaries, what saves most work for its bytes is kept first.
 */
#include "rewrite.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    kw__rewrite r;
    kw_memory_level level;
    double worth;                         /* at the floor: FLOPs a byte from which on outputs are kept all the same */
    kw_val *again;                        /* old value -> its second making, or KW_NONE */
} recompute;

static bool is_leaf(const kw_node *n) { return n->op == &kw_op_input || n->op == &kw_op_state; }

/* FLOPs saved for each byte of memory by keeping what this node makes. */
static double worth_of(const kw_graph *g, const kw_node *n)
{
    double bytes = 0;
    for (int k = 0; k < n->n_out; k++)
        bytes += (double)kw_value_bytes(g, n->out[k]);
    return bytes > 0 ? kw_node_flops(g, n) / bytes : 0;
}

static bool dropped(const recompute *c, const kw_node *n)
{
    if (n->backward || is_leaf(n) || n->keep)
        return false;
    return n->op->cheap || (c->level == KW_FLOOR && worth_of(&c->r.old, n) < c->worth);
}

/* The value as the backward pass sees it: itself if kept, else a copy made on demand from copies of its inputs. */
static kw_status remake(recompute *c, kw_val v, kw_val *out, kw_err *e)
{
    const kw_node *n = &c->r.old.node[c->r.old.value[v].node], *copy;
    kw_val in[KW_INS] = { 0 };
    if (!dropped(c, n)) {
        *out = c->r.map[v];
        return KW_OK;
    }
    if (c->again[v] < 0) {
        for (int k = 0; k < n->n_in; k++) {
            in[k] = KW_NONE;
            if (n->in[k] >= 0)
                KW_TRY(remake(c, n->in[k], &in[k], e));
        }
        KW_TRY(kw__rewrite_copy(&c->r, n, in, &copy, e));
        c->r.g->node[c->r.g->n_nodes - 1].backward = true;
        c->r.g->node[c->r.g->n_nodes - 1].again = true;
        for (int k = 0; k < n->n_out; k++)
            c->again[n->out[k]] = copy->out[k];
    }
    *out = c->again[v];
    return KW_OK;
}

static kw_status copy_node(recompute *c, const kw_node *n, kw_err *e)
{
    const kw_node *copy;
    kw_val in[KW_INS] = { 0 };
    for (int k = 0; k < n->n_in; k++) {
        in[k] = n->in[k] < 0 ? KW_NONE : c->r.map[n->in[k]];
        if (n->in[k] >= 0 && n->backward)
            KW_TRY(remake(c, n->in[k], &in[k], e));
    }
    KW_TRY(kw__rewrite_copy(&c->r, n, in, &copy, e));
    for (int k = 0; k < n->n_out; k++)
        c->r.map[n->out[k]] = copy->out[k];
    return KW_OK;
}

static int rising(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

kw_status kw_recompute_worths(kw_arena *a, const kw_graph *g, double **worth, size_t *n, kw_err *e)
{
    size_t count = 0;
    double *w = *worth = kw_alloc_array(a, g->n_nodes + 1, sizeof *w);
    if (!w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kw_node *node = &g->node[i];
        if (!node->backward && !is_leaf(node) && !node->keep && !node->op->cheap && !node->op->view)
            w[count++] = worth_of(g, node);
    }
    qsort(w, count, sizeof *w, rising);
    *n = 0;
    for (size_t i = 0; i < count; i++)
        if (!*n || w[i] > w[*n - 1])
            w[(*n)++] = w[i];
    w[(*n)++] = INFINITY;
    return KW_OK;
}

kw_status kw_recompute(kw_graph *g, kw_memory_level level, double worth, kw_err *e)
{
    recompute c = { .level = level, .worth = worth };
    if (level == KW_KEEP_ALL)
        return KW_OK;
    c.again = kw_alloc_array(g->arena, g->n_values, sizeof *c.again);
    if (!c.again)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < g->n_values; i++)
        c.again[i] = KW_NONE;
    KW_TRY(kw__rewrite_begin(&c.r, g, e));
    for (size_t i = 0; i < c.r.old.n_nodes; i++)
        KW_TRY(copy_node(&c, &c.r.old.node[i], e));
    kw__rewrite_end(&c.r);
    return kw_prune(g, e);
}
