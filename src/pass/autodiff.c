/* autodiff.c - reverse mode by emission: one walk back over the graph, one rule per op. */
#include "pass.h"
#include "ops/ops.h"

typedef struct {
    kw_graph *g;
    bool *depends;                        /* by value: on something that is wanted */
    kw_val *d;                            /* by value: its gradient so far */
    size_t n;                             /* values before the walk */
    int *first, *next;                    /* by node: the first of what is wanted that it reads before all others; the rest */
} walk;

static void mark_dependents(walk *w, const kw_val *wrt, int n_wrt)
{
    for (int k = 0; k < n_wrt; k++)
        if (wrt[k] >= 0)
            w->depends[wrt[k]] = true;
    for (size_t i = 0; i < w->g->n_nodes; i++) {
        const kw_node *n = &w->g->node[i];
        bool any = false;
        for (int k = 0; k < n->n_in; k++)
            any |= n->in[k] >= 0 && w->depends[n->in[k]];
        for (int k = 0; any && k < n->n_out; k++)
            w->depends[n->out[k]] = true;
    }
}

/* A value read by several nodes sums their gradients, in the order of the walk; a parameter of few digits keeps all of them. */
static void add_to(walk *w, kw_val v, kw_val dv)
{
    if (dv < 0)
        return;
    kw_dtype t = kw_dtype_of(w->g, v);
    if (kw_state_of(w->g, v) < 0 && kw_dtype_of(w->g, dv) != t && (t == KW_F32 || t == KW_BF16 || t == KW_F64))
        dv = kw_cast(w->g, dv, t);
    if (w->d[v] >= 0)
        dv = kw_add(w->g, w->d[v], dv);
    w->d[v] = dv;
}

static kw_status visit(walk *w, size_t i, kw_err *e)
{
    const kw_node n = w->g->node[i];
    bool want[KW_INS] = { 0 }, any = false;
    kw_val dout[KW_OUTS], din[KW_INS];
    for (int k = 0; k < n.n_in; k++) {
        din[k] = KW_NONE;
        any |= want[k] = n.in[k] >= 0 && w->depends[n.in[k]];
    }
    for (int k = 0; k < n.n_out; k++)
        dout[k] = w->d[n.out[k]];
    if (!any || n.n_out == 0 || dout[0] < 0)
        return KW_OK;
    if (!n.op->grad)
        return kw_fail(e, KW_EDEVICE, "no gradient through %s (%s): %s", n.op->name, n.scope, n.op->no_grad);
    w->g->scope = n.scope;
    n.op->grad(w->g, &n, dout, want, din);
    for (int k = 0; k < n.n_in; k++)
        if (want[k])
            add_to(w, n.in[k], din[k]);
    return w->g->err.status;
}

/*
 * Lists by node: of what is wanted, that which no earlier node reads. Once the walk back has passed this node, nothing
 * can be added to its gradient, and nothing reads it any more.
 */
static kw_status list_first_readers(walk *w, const kw_val *wrt, int n_wrt, kw_err *e)
{
    int *reader = kw_alloc_array(w->g->arena, w->n, sizeof *reader);
    w->first = kw_alloc_array(w->g->arena, w->g->n_nodes + 1, sizeof *w->first);
    w->next = kw_alloc_array(w->g->arena, (size_t)n_wrt + 1, sizeof *w->next);
    if (!reader || !w->first || !w->next)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i <= w->g->n_nodes; i++)
        w->first[i] = KW_NONE;
    for (size_t v = 0; v < w->n; v++)
        reader[v] = KW_NONE;
    for (size_t i = w->g->n_nodes; i-- > 0;)
        for (int k = 0; k < w->g->node[i].n_in; k++)
            if (w->g->node[i].in[k] >= 0)
                reader[w->g->node[i].in[k]] = (int)i;
    for (int k = n_wrt; k-- > 0;)
        if (wrt[k] >= 0 && reader[wrt[k]] >= 0) {
            w->next[k] = w->first[reader[wrt[k]]];
            w->first[reader[wrt[k]]] = k;
        }
    return KW_OK;
}

static kw_status walk_back(walk *w, size_t n_nodes, const kw_val *wrt, kw_gradient_fn *ready, void *ctx, kw_err *e)
{
    for (size_t i = n_nodes; i-- > 0;) {
        if (w->g->node[i].n_out)
            KW_TRY(visit(w, i, e));
        for (int k = ready ? w->first[i] : KW_NONE; k >= 0; k = w->next[k])
            if (w->d[wrt[k]] >= 0) {
                w->g->scope = w->g->node[i].scope;
                KW_TRY(ready(ctx, w->g, k, w->d[wrt[k]], e));
            }
    }
    return w->g->err.status;
}

kw_status kw_backward_each(kw_graph *g, const kw_val *y, const kw_val *dy, int n_y, const kw_val *wrt, int n_wrt,
                           kw_val *dwrt, kw_gradient_fn *ready, void *ctx, kw_err *e)
{
    walk w = { .g = g, .n = g->n_values };
    size_t n_nodes = g->n_nodes;
    const char *scope = g->scope;
    bool was = g->backward;
    w.depends = kw_alloc_array(g->arena, w.n, sizeof *w.depends);
    w.d = kw_alloc_array(g->arena, w.n, sizeof *w.d);
    if (!w.depends || !w.d)
        return kw_fail(e, KW_ENOMEM, "out of memory for %zu gradients", w.n);
    for (size_t i = 0; i < w.n; i++)
        w.d[i] = KW_NONE;
    mark_dependents(&w, wrt, n_wrt);
    if (ready)
        KW_TRY(list_first_readers(&w, wrt, n_wrt, e));
    g->backward = true;
    for (int i = 0; i < n_y; i++)
        add_to(&w, y[i], dy[i]);
    kw_status s = walk_back(&w, n_nodes, wrt, ready, ctx, e);
    for (int k = 0; k < n_wrt; k++)
        dwrt[k] = wrt[k] < 0 ? KW_NONE : w.d[wrt[k]];
    g->scope = scope;
    g->backward = was;
    if (g->err.status && e)
        *e = g->err;
    return s;
}

kw_status kw_backward(kw_graph *g, const kw_val *y, const kw_val *dy, int n_y, const kw_val *wrt, int n_wrt, kw_val *dwrt, kw_err *e)
{
    return kw_backward_each(g, y, dy, n_y, wrt, n_wrt, dwrt, NULL, NULL, e);
}
