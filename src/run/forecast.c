/*
 * forecast.c - what a program will take, before it runs: bytes of the process, and time as a multiple of the peak's.
 *
 *     seconds = sum over nodes of (FLOPs / share + cost * bytes + start) / peak
 *
 * share: of the peak; above 1 where a kernel needs fewer products than are counted. cost: FLOPs of the peak while a
 * byte goes through; start: while a node begins and its threads meet. By bench/fit.py, from AVX2, f32, two threads.
 */
#include "store.h"
#include "kern/kern.h"

#include <string.h>

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Pages of code and of libraries' own memory that are first touched when nodes run: 0.5 to 1.3 MB seen. */
enum { RUNNING = 1 << 20 };

size_t kw_forecast_beside(const kw_store *s)
{
    size_t all = kw__resident_bytes(), of_store = kw_store_resident(s);
    return RUNNING + (all > of_store ? all - of_store : 0);
}

static double input_bytes(const kw_graph *g)
{
    double sum = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        sum += g->node[i].op == &kw_op_input ? (double)kw_value_bytes(g, g->node[i].out[0]) : 0;
    return sum;
}

double kw_forecast_bytes(const kw_program *p)
{
    const kw_store *s = kw_program_store(p);
    return (double)kw_program_bytes(p) + (double)kw_program_passing_bytes(p) + input_bytes(kw_program_graph(p))
           + (double)kw_store_bytes(s) + (double)kw_store_mapped_bytes(s) + (double)kw_forecast_beside(s);
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

typedef struct { double share, cost, start; } rates;

enum { CONV, CONV_POINT, CONV_OTHER, CONV_DW, LINEAR, LINEAR_THIN, LINEAR_DW, LINEAR_DW_THIN, ATTENTION, ATTENTION_FEW,
       GRADIENT, GRADIENT_FEW, NORM, UPDATE, OTHER, PACK };
enum { TEAM, ALONE, AVX512, N_MACHINES };

/*
 * A class of nodes: share of the peak, FLOPs a byte, FLOPs a node; by bench/fit.py from AVX2 with two threads and with
 * one. AVX-512 was not at hand: shares are what its products reached by themselves (Zen 5, bf16), the rest is the team's.
 */
static const struct { const char *name; rates of[N_MACHINES]; } table[] = {
    [CONV] = { "conv", { { 1.44, 5.93, 1.2e+07 }, { 1.44, 5.93, 1.2e+07 }, { 0.88, 5.93, 1.2e+07 } } },
    [CONV_POINT] = { "conv-point", { { 0.832, 3.46, 1.1e+07 }, { 0.832, 3.46, 1.1e+07 }, { 0.88, 3.46, 1.1e+07 } } },
    [CONV_OTHER] = { "conv-other", { { 0.764, 9.12, 1e+07 }, { 0.764, 9.12, 1e+07 }, { 0.7, 9.12, 1e+07 } } },
    [CONV_DW] = { "conv-dw", { { 1.36, 23.4, 2.2e+07 }, { 1.36, 23.4, 2.2e+07 }, { 0.8, 23.4, 2.2e+07 } } },
    [LINEAR] = { "linear", { { 0.699, 3.36, 1.4e+07 }, { 0.699, 3.36, 1.4e+07 }, { 0.9, 3.36, 1.4e+07 } } },
    [LINEAR_THIN] = { "linear-thin", { { 1, 46.2, 6.5e+06 }, { 1, 46.2, 6.5e+06 }, { 1, 46.2, 6.5e+06 } } },
    [LINEAR_DW] = { "linear-dw", { { 0.918, 13.8, 1.8e+07 }, { 0.918, 13.8, 1.8e+07 }, { 0.8, 13.8, 1.8e+07 } } },
    [LINEAR_DW_THIN] = { "linear-dw-thin", { { 1, 93.5, 2.2e+06 }, { 1, 93.5, 2.2e+06 }, { 1, 93.5, 2.2e+06 } } },
    [ATTENTION] = { "attention", { { 0.688, 0, 2.1e+07 }, { 0.688, 0, 2.1e+07 }, { 0.79, 0, 2.1e+07 } } },
    [ATTENTION_FEW] = { "attention-few", { { 0.615, 15.5, 1.4e+07 }, { 0.615, 15.5, 1.4e+07 }, { 0.62, 15.5, 1.4e+07 } } },
    [GRADIENT] = { "gradient", { { 0.619, 4.68, 4.8e+07 }, { 0.619, 4.68, 4.8e+07 }, { 0.66, 4.68, 4.8e+07 } } },
    [GRADIENT_FEW] = { "gradient-few", { { 0.267, 3.28, 1.5e+07 }, { 0.267, 3.28, 1.5e+07 }, { 0.45, 3.28, 1.5e+07 } } },
    [NORM] = { "norm", { { 1, 22.9, 5.8e+06 }, { 1, 22.9, 5.8e+06 }, { 1, 22.9, 5.8e+06 } } },
    [UPDATE] = { "update", { { 1, 3.61, 1.3e+07 }, { 1, 3.61, 1.3e+07 }, { 1, 3.61, 1.3e+07 } } },
    [OTHER] = { "other", { { 1, 14.5, 4.2e+05 }, { 1, 14.5, 4.2e+05 }, { 1, 14.5, 4.2e+05 } } },
    [PACK] = { "pack", { { 1, 56.7, 8.8e+06 }, { 1, 56.7, 8.8e+06 }, { 1, 56.7, 8.8e+06 } } },
};

static int machine(void)
{
    return kw_starts_with(kw_kern_get()->isa, "avx512") ? AVX512 : kw_threads() > 1 ? TEAM : ALONE;
}

static bool begins(const kw_node *n, const char *head) { return kw_starts_with(n->op->name, head); }
static bool is(const kw_node *n, const char *name) { return !strcmp(n->op->name, name); }

/* Kernels 3 wide with enough channels go Winograd's way where the stride is 1: then both pictures have one size. */
static int conv_class(const kw_graph *g, const kw_node *n)
{
    enum { FEW = 32 };
    bool dw = is(n, "conv2d_dw");
    kw_shape x = kw_shape_of(g, n->in[0]), y = kw_shape_of(g, dw ? n->in[1] : n->out[0]);
    kw_shape w = kw_shape_of(g, dw ? n->out[0] : n->in[1]);
    if (w.d[2] * w.d[3] == 1)
        return CONV_POINT;
    return dw ? CONV_DW : x.d[1] == y.d[1] && w.d[0] >= FEW && w.d[1] >= FEW ? CONV : CONV_OTHER;
}

/* Thin: a branch of small rank, whose operands are read rather than multiplied. */
static int linear_class(const kw_graph *g, const kw_node *n)
{
    enum { THIN = 128 };
    bool dw = is(n, "linear_dw"), dx = is(n, "linear_dx");
    kw_val x = dx ? n->out[0] : n->in[is(n, "linear_add")], y = dx ? n->in[0] : dw ? n->in[1] : n->out[0];
    bool thin = KW_MIN(kw_last(kw_shape_of(g, x)), kw_last(kw_shape_of(g, y))) <= THIN;
    return dw ? (thin ? LINEAR_DW_THIN : LINEAR_DW) : thin ? LINEAR_THIN : LINEAR;
}

static int class_of(const kw_graph *g, const kw_node *n)
{
    enum { FEW_KEYS = 128 };
    if (n->op == &kw_op_input || n->op == &kw_op_state || n->op->view)
        return -1;
    if (begins(n, "conv2d"))
        return conv_class(g, n);
    if (begins(n, "linear"))
        return linear_class(g, n);
    if (begins(n, "attention")) {
        bool few = kw_shape_of(g, n->in[1]).d[1] <= FEW_KEYS;
        return is(n, "attention") ? (few ? ATTENTION_FEW : ATTENTION) : few ? GRADIENT_FEW : GRADIENT;
    }
    return begins(n, "group_norm") || begins(n, "layer_norm") ? NORM
           : begins(n, "adamw") || begins(n, "lerp") || begins(n, "sum_squares") ? UPDATE : OTHER;
}

const char *kw_forecast_class(const kw_graph *g, const kw_node *n)
{
    int c = class_of(g, n);
    return c < 0 ? NULL : table[c].name;
}

double kw_forecast_node(const kw_graph *g, const kw_node *n)
{
    int c = class_of(g, n);
    const rates *r = c < 0 ? NULL : &table[c].of[machine()];
    return r ? kw_node_flops(g, n) / r->share + r->cost * kw_node_bytes(g, n) + r->start : 0;
}

static double sum_of(const kw_graph *g, bool all)
{
    double sum = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        sum += all || (!g->node[i].backward && !g->node[i].again) ? kw_forecast_node(g, &g->node[i]) : 0;
    return sum;
}

double kw_forecast_forward(const kw_program *p) { return sum_of(kw_program_graph(p), false); }

double kw_forecast_work(const kw_program *p)
{
    size_t bytes, n = kw_program_repacks(p, &bytes);
    const rates *pack = &table[PACK].of[machine()];
    return sum_of(kw_program_graph(p), true) + pack->cost * (double)bytes + pack->start * (double)n;
}
