/* autodiff.c - reverse mode by emission: one walk back over the graph, one rule per op. */
#include "pass.h"
#include "ops/ops.h"

typedef struct {
    kw_graph *g;
    bool *depends;                        /* by value: on something that is wanted */
    kw_val *d;                            /* by value: its gradient so far */
    size_t n;                             /* values before the walk */
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

/* A value read by several nodes sums their gradients, in the order of the walk. */
static void add_to(walk *w, kw_val v, kw_val dv)
{
    if (dv < 0)
        return;
    kw_dtype t = kw_dtype_of(w->g, v);
    if (kw_dtype_of(w->g, dv) != t && (t == KW_F32 || t == KW_BF16 || t == KW_F64))
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

kw_status kw_backward(kw_graph *g, const kw_val *y, const kw_val *dy, int n_y, const kw_val *wrt, int n_wrt, kw_val *dwrt, kw_err *e)
{
    walk w = { .g = g, .n = g->n_values };
    const char *scope = g->scope;
    bool was = g->backward;
    w.depends = kw_alloc_array(g->arena, w.n, sizeof *w.depends);
    w.d = kw_alloc_array(g->arena, w.n, sizeof *w.d);
    if (!w.depends || !w.d)
        return kw_fail(e, KW_ENOMEM, "out of memory for %zu gradients", w.n);
    for (size_t i = 0; i < w.n; i++)
        w.d[i] = KW_NONE;
    mark_dependents(&w, wrt, n_wrt);
    g->backward = true;
    for (int i = 0; i < n_y; i++)
        add_to(&w, y[i], dy[i]);
    kw_status s = KW_OK;
    for (size_t i = g->n_nodes; i-- > 0 && !s;)
        if (g->node[i].n_out && (size_t)g->node[i].out[0] < w.n)
            s = visit(&w, i, e);
    for (int k = 0; k < n_wrt; k++)
        dwrt[k] = wrt[k] < 0 ? KW_NONE : w.d[wrt[k]];
    g->scope = scope;
    g->backward = was;
    if (g->err.status && e && !s)
        *e = g->err;
    return s ? s : g->err.status;
}
