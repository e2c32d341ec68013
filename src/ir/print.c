/* print.c - a graph as text: one line per node, then what it costs. */
#include "ir.h"

double kw_node_flops(const kw_graph *g, const kw_node *n)
{
    double flops = 0;
    if (n->op->cost)
        n->op->cost(g, n, &flops);
    return flops;
}

double kw_node_bytes(const kw_graph *g, const kw_node *n)
{
    double sum = 0;
    for (int k = 0; k < n->n_in; k++)
        sum += n->in[k] < 0 ? 0 : (double)kw_value_bytes(g, n->in[k]);
    for (int k = 0; k < n->n_out; k++)
        sum += (double)kw_value_bytes(g, n->out[k]);
    return n->op->view ? 0 : sum;
}

static double sum_of(const kw_graph *g, bool all)
{
    double sum = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (all || !g->node[i].again)
            sum += kw_node_flops(g, &g->node[i]);
    return sum;
}

double kw_graph_flops(const kw_graph *g) { return sum_of(g, true); }
double kw_graph_useful_flops(const kw_graph *g) { return sum_of(g, false); }

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
