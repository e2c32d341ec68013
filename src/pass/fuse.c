/*
 * fuse.c - a product whose only reader is a sum becomes one node with it:
 *
 *     h = x wᵀ;  y = y0 + a h      ->      y = y0 + a x wᵀ           (linear_add; y may take over y0's memory)
 *
 * So the branch of an adapter is added into the base's output, a residual into what it adds to, and the gradients of a
 * value that several layers read (queries, keys, values) into one another, without a pass over memory for each sum.
 */
#include "rewrite.h"
#include "ops/ops.h"

typedef struct {
    kw__rewrite r;
    int *readers;                         /* by value */
    kw_val *product;                      /* by node of the old graph: of a sum, the value that it swallows */
} fuse;

static void count_readers(fuse *f, const kw_graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->node[i].n_in; k++)
            if (g->node[i].in[k] >= 0)
                f->readers[g->node[i].in[k]]++;
    for (size_t i = 0; i < g->n_results; i++)
        f->readers[g->result[i].value]++;
    for (size_t i = 0; i < g->n_bound; i++)
        f->readers[g->bound[i].value]++;
}

/* May the sum, of which `other` is taken once, compute v = a product itself? A bias is not multiplied by the factor. */
static bool swallows(const fuse *f, const kw_graph *g, const kw_node *sum, kw_val v, float factor, kw_val other,
                     float once)
{
    const kw_node *p = kw_node_of(g, v);
    bool is_product = p->op == &kw_op_linear || p->op == &kw_op_linear_dx;
    return is_product && once == 1 && v != other && f->readers[v] == 1 && !p->keep && p->backward == sum->backward
        && (p->op == &kw_op_linear_dx || p->in[2] < 0 || factor == 1)
        && kw_dtype_of(g, v) == kw_dtype_of(g, sum->out[0]) && kw_dtype_of(g, other) == kw_dtype_of(g, sum->out[0]);
}

static void find(fuse *f, const kw_graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kw_node *n = &g->node[i];
        float a, b;
        f->product[i] = KW_NONE;
        if (!kw_is_axby(n, &a, &b))
            continue;
        if (swallows(f, g, n, n->in[1], b, n->in[0], a))
            f->product[i] = n->in[1];
        else if (swallows(f, g, n, n->in[0], a, n->in[1], b))
            f->product[i] = n->in[0];
    }
}

static kw_status emit(fuse *f, const kw_node *sum, kw_val product, kw_err *e)
{
    const kw_graph *old = &f->r.old;
    kw_graph *g = f->r.g;
    const kw_node *p = kw_node_of(old, product);
    bool first = sum->in[0] == product, back = p->op == &kw_op_linear_dx;
    const kw_val *map = f->r.map;
    kw_val bias = back || p->in[2] < 0 ? KW_NONE : map[p->in[2]];
    float a = 1, b = 1;
    (void)kw_is_axby(sum, &a, &b);
    g->scope = sum->scope;
    g->backward = sum->backward;
    kw_val y = kw_linear_add(g, map[sum->in[first]], first ? a : b, map[p->in[0]], map[p->in[1]], bias, back);
    if (y < 0) {
        *e = g->err;
        return g->err.status;
    }
    g->node[g->n_nodes - 1].keep = sum->keep;
    g->value[y].name = old->value[sum->out[0]].name;
    f->r.map[sum->out[0]] = y;
    return KW_OK;
}

static kw_status rewrite(fuse *f, const bool *gone, kw_err *e)
{
    for (size_t i = 0; i < f->r.old.n_nodes; i++) {
        const kw_node *n = &f->r.old.node[i], *copy;
        kw_val in[KW_INS] = { 0 };
        if (gone[i])
            continue;
        if (f->product[i] >= 0) {
            KW_TRY(emit(f, n, f->product[i], e));
            continue;
        }
        for (int k = 0; k < n->n_in; k++)
            in[k] = n->in[k] < 0 ? KW_NONE : f->r.map[n->in[k]];
        KW_TRY(kw__rewrite_copy(&f->r, n, in, &copy, e));
        for (int k = 0; k < n->n_out; k++)
            f->r.map[n->out[k]] = copy->out[k];
    }
    return KW_OK;
}

kw_status kw_fuse(kw_graph *g, kw_err *e)
{
    fuse f = { .readers = kw_alloc_array(g->arena, g->n_values, sizeof *f.readers) };
    bool *gone = kw_alloc_array(g->arena, g->n_nodes, sizeof *gone), backward = g->backward;
    const char *scope = g->scope;
    f.product = kw_alloc_array(g->arena, g->n_nodes, sizeof *f.product);
    if (!f.readers || !gone || !f.product)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    count_readers(&f, g);
    find(&f, g);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (f.product[i] >= 0)
            gone[g->value[f.product[i]].node] = true;
    KW_TRY(kw__rewrite_begin(&f.r, g, e));
    KW_TRY(rewrite(&f, gone, e));
    kw__rewrite_end(&f.r);
    g->scope = scope;
    g->backward = backward;
    return KW_OK;
}
