/* print.c - a graph as text: one line per node, then what it costs. */
#include "ir.h"

double kw_graph_flops(const kw_graph *g)
{
    double sum = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        double flops = 0;
        if (g->node[i].op->cost)
            g->node[i].op->cost(g, &g->node[i], &flops);
        sum += flops;
    }
    return sum;
}

static void print_node(const kw_graph *g, const kw_node *n, kw_str *text)
{
    char shape[64];
    for (int k = 0; k < n->n_out; k++)
        kw_str_printf(text, "%s%%%d %s %s", k ? ", " : "", n->out[k], kw_dtype_name(g->value[n->out[k]].dtype),
                      kw_dims_text(g->value[n->out[k]].shape, shape));
    kw_str_printf(text, " = %s", n->op->name);
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] >= 0)
            kw_str_printf(text, " %%%d", n->in[k]);
    kw_str_printf(text, "%s  ; %s\n", n->backward ? "  ~" : "", n->scope);
}

void kw_graph_print(const kw_graph *g, kw_str *text)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        print_node(g, &g->node[i], text);
    kw_str_printf(text, "%zu nodes, %.3f GFLOP\n", g->n_nodes, kw_graph_flops(g) * 1e-9);
}
