/*
 * forecast.c - what a program will take, before it runs: bytes of the process, and time as a multiple of the peak's.
 *
 *     seconds = sum over nodes of (FLOPs / share + cost * bytes + start) / peak
 *
 * share: of the peak; above 1 where a kernel needs fewer products than are counted. cost: FLOPs of the peak while a
 * byte goes through; start: while a node begins and its threads meet. By bench/fit.py, from AVX2, f32.
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

enum { CONV, CONV_POINT, CONV_OTHER, CONV_DW, LINEAR, LINEAR_THIN, LINEAR_CODES, LINEAR_DW, LINEAR_DW_THIN, ATTENTION,
       ATTENTION_FEW, GRADIENT, GRADIENT_FEW, NORM, UPDATE, UPDATE_CODES, OTHER, PACK };
enum { TEAM, ALONE };                     /* two threads, one */

/*  class of nodes: share of the peak, FLOPs a byte, FLOPs a node, for a team and for a thread alone  */
static const struct { const char *name; rates of[2]; } table[] = {
    [CONV] = { "conv", { { 1.51, 7.52, 5.8e+06 }, { 1.69, 8.27, 0 } } },
    [CONV_POINT] = { "conv-point", { { 0.973, 15.7, 6.2e+05 }, { 1, 5.96, 4.6e+04 } } },
    [CONV_OTHER] = { "conv-other", { { 1, 18.3, 1.4e+06 }, { 0.871, 11.8, 0 } } },
    [CONV_DW] = { "conv-dw", { { 1.19, 23.3, 1.8e+06 }, { 1.55, 13.3, 1.4e+06 } } },
    [LINEAR] = { "linear", { { 0.93, 10.9, 2.3e+06 }, { 0.979, 6.9, 5.1e+05 } } },
    [LINEAR_THIN] = { "linear-thin", { { 0.677, 12.7, 1.7e+05 }, { 1, 5.83, 4.8e+04 } } },
    [LINEAR_CODES] = { "linear-codes", { { 1.51, 29.1, 3.6e+07 }, { 1.54, 20.6, 1.2e+07 } } },
    [LINEAR_DW] = { "linear-dw", { { 1, 11.5, 3.7e+06 }, { 0.735, 0, 0 } } },
    [LINEAR_DW_THIN] = { "linear-dw-thin", { { 1, 13.7, 0 }, { 1, 6.19, 7e+04 } } },
    [ATTENTION] = { "attention", { { 0.792, 7.03, 1.7e+07 }, { 0.818, 0, 0 } } },
    [ATTENTION_FEW] = { "attention-few", { { 0.704, 38.2, 1.2e+06 }, { 0.425, 1.95, 2.7e+05 } } },
    [GRADIENT] = { "gradient", { { 0.687, 0, 8.8e+07 }, { 0.654, 6.77, 0 } } },
    [GRADIENT_FEW] = { "gradient-few", { { 0.675, 28.5, 0 }, { 0.46, 15, 7.9e+04 } } },
    [NORM] = { "norm", { { 1, 12.7, 4.8e+05 }, { 1, 9.39, 1.5e+05 } } },
    [UPDATE] = { "update", { { 1, 3.76, 8.8e+05 }, { 1, 2.44, 7e+05 } } },
    [UPDATE_CODES] = { "update-codes", { { 1, 25.8, 3.8e+04 }, { 1, 25.6, 0 } } },
    [OTHER] = { "other", { { 1, 7.97, 9.3e+04 }, { 1, 3.69, 6.1e+04 } } },
    [PACK] = { "pack", { { 1, 19.2, 6.7e+05 }, { 1, 13.2, 1.4e+04 } } },
};

/*
 * AVX-512 was not at hand. These are what products reached by themselves there (oneDNN and attention alone, Zen 5,
 * bf16); no convolution takes Winograd's way. Bytes and nodes are the team's: a guess.
 */
static const double avx512_share[] = {
    [CONV] = 0.88, [CONV_POINT] = 0.88, [CONV_OTHER] = 0.7, [CONV_DW] = 0.8, [LINEAR] = 0.9, [LINEAR_THIN] = 0.6,
    [LINEAR_CODES] = 0.8, [LINEAR_DW] = 0.8, [LINEAR_DW_THIN] = 0.6, [ATTENTION] = 0.79, [ATTENTION_FEW] = 0.62,
    [GRADIENT] = 0.66, [GRADIENT_FEW] = 0.45, [NORM] = 1, [UPDATE] = 1, [UPDATE_CODES] = 1, [OTHER] = 1, [PACK] = 1,
};

static rates rates_of(int class)
{
    bool wide = kw_starts_with(kw_kern_get()->isa, "avx512");
    rates r = table[class].of[wide || kw_threads() > 1 ? TEAM : ALONE];
    if (wide)
        r.share = avx512_share[class];
    return r;
}

static bool begins(const kw_node *n, const char *head) { return kw_starts_with(n->op->name, head); }
static bool is(const kw_node *n, const char *name) { return !strcmp(n->op->name, name); }

/* Kernels 3 wide with enough channels go Winograd's way where the stride is 1: then both pictures are as wide. */
static int conv_class(const kw_graph *g, const kw_node *n)
{
    enum { FEW = 64 };
    bool dw = is(n, "conv2d_dw"), dx = is(n, "conv2d_dx");
    kw_shape x = kw_shape_of(g, n->in[0]), y = kw_shape_of(g, dw ? n->in[1] : n->out[0]);
    kw_shape w = kw_shape_of(g, dw ? n->out[0] : n->in[1]);
    if (w.d[2] * w.d[3] == 1)
        return CONV_POINT;
    return dw ? CONV_DW : x.d[2] == y.d[2] && w.d[dx ? 0 : 1] >= FEW ? CONV : CONV_OTHER;
}

/* Thin: a branch of small rank, whose operands are read rather than multiplied. Codes: whole numbers are multiplied. */
static int linear_class(const kw_graph *g, const kw_node *n)
{
    enum { THIN = 128 };
    bool dw = is(n, "linear_dw"), dx = is(n, "linear_dx");
    kw_val x = dx ? n->out[0] : n->in[is(n, "linear_add")], y = dx ? n->in[0] : dw ? n->in[1] : n->out[0];
    bool thin = KW_MIN(kw_last(kw_shape_of(g, x)), kw_last(kw_shape_of(g, y))) <= THIN;
    if (!dw && !dx && kw_dtype_of(g, n->in[is(n, "linear_add") ? 2 : 1]) == KW_I8)
        return LINEAR_CODES;
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
    if (is(n, "adamw8"))
        return UPDATE_CODES;
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
    if (c < 0)
        return 0;
    rates r = rates_of(c);
    return kw_node_flops(g, n) / r.share + r.cost * kw_node_bytes(g, n) + r.start;
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
    rates pack = rates_of(PACK);
    return sum_of(kw_program_graph(p), true) + pack.cost * (double)bytes + pack.start * (double)n;
}
