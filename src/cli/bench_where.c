/* bench_where.c - where the time goes: by families of ops, and by the shapes that cost most. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

/* ---- families of ops --------------------------------------------------------------------------------------------- */

/*  how the op's name begins  |  the family: id, name  */
static const struct { const char *head, *id, *name; } families[] = {
    { "conv2d", "conv", N_("convolutions") },      { "linear", "linear", N_("linear layers") },
    { "attention", "attention", N_("attention") }, { "group_norm", "norm", N_("norms") },
    { "layer_norm", "norm", N_("norms") },         { "unary", "activation", N_("activations") },
    { "geglu", "activation", N_("activations") },  { "adamw", "update", N_("update of weights") },
    { "lerp", "update", N_("update of weights") }, { "sum_squares", "update", N_("update of weights") },
    { "pack", "pack", N_("packing of weights") },  { "concat", "layout", N_("layout") },
    { "slice", "layout", N_("layout") },           { "unslice", "layout", N_("layout") },
    { "reshape", "layout", N_("layout") },         { "upsample", "layout", N_("layout") },
    { "gather", "layout", N_("layout") },          { "pick", "layout", N_("layout") },
    { "", "sum", N_("sums and losses") },
};

_Static_assert(KW_LEN(families) < KW_BENCH_FAMILIES, "room for each family and for what is outside");

static kw_bench_family *family_of(kw_bench_breakdown *b, const char *id, const char *name)
{
    for (int i = 0; i < b->n; i++)
        if (!strcmp(b->family[i].id, id))
            return &b->family[i];
    b->family[b->n] = (kw_bench_family){ .id = id, .name = name };
    return &b->family[b->n++];
}

const char *kw_bench_family_of(const char *op)
{
    size_t k = 0;
    while (!kw_starts_with(op, families[k].head))
        k++;
    return families[k].id;
}

static void add_op(kw_bench_breakdown *b, const kw_op_time *t)
{
    size_t k = 0;
    while (!kw_starts_with(t->op, families[k].head))
        k++;
    kw_bench_family *f = family_of(b, families[k].id, families[k].name);
    f->seconds += t->seconds;
    f->flops += t->flops;
    f->bytes += t->bytes;
}

static int costliest_family(const void *a, const void *b)
{
    double x = ((const kw_bench_family *)a)->seconds, y = ((const kw_bench_family *)b)->seconds;
    return (x < y) - (x > y);
}

static int costliest_op(const void *a, const void *b)
{
    double x = ((const kw_op_time *)a)->seconds, y = ((const kw_op_time *)b)->seconds;
    return (x < y) - (x > y);
}

/* Sums over all programs; what a run takes beyond them is a family of its own. */
bool kw_bench_break_down(const kw_bench_result *r, kw_bench_breakdown *b)
{
    kw_op_time t;
    double inside = 0;
    *b = (kw_bench_breakdown){ .op = calloc((size_t)kw_op_count() + 1, sizeof *b->op), .runs = r->t.n };
    for (int i = 0; b->op && i <= kw_op_count(); i++) {
        kw_op_time *sum = &b->op[b->n_ops];
        *sum = (kw_op_time){ 0 };
        for (int p = 0; p < r->n_programs && kw_program_time(r->program[p], i, &t); p++) {
            sum->op = t.op;
            sum->seconds += t.seconds;
            sum->flops += t.flops;
            sum->bytes += t.bytes;
            sum->count += t.count;
        }
        if (!sum->op || sum->seconds <= 0)
            continue;
        add_op(b, sum);
        inside += sum->seconds;
        b->n_ops++;
    }
    if (!b->op || !r->n_programs)
        return false;
    kw_bench_family *rest = family_of(b, "outside", N_("outside of the graph"));
    rest->seconds = KW_MAX(0, r->t.sum - inside);
    qsort(b->family, (size_t)b->n, sizeof *b->family, costliest_family);
    qsort(b->op, (size_t)b->n_ops, sizeof *b->op, costliest_op);
    return true;
}

/* ---- the costliest shapes ---------------------------------------------------------------------------------------- */

static int costliest_place(const void *a, const void *b)
{
    double x = ((const kw_bench_spot *)a)->seconds, y = ((const kw_bench_spot *)b)->seconds;
    return (x < y) - (x > y);
}

static int64_t dim(const kw_graph *g, kw_val v, int i) { return kw_shape_of(g, v).d[i]; }

static bool is(const kw_node *n, const char *op) { return !strcmp(n->op->name, op); }

static void place_conv(const kw_graph *g, const kw_node *n, char *text, size_t size)
{
    bool dx = is(n, "conv2d_dx"), dw = is(n, "conv2d_dw");
    kw_val x = dx ? n->out[0] : n->in[0], y = dx ? n->in[0] : dw ? n->in[1] : n->out[0], w = dw ? n->out[0] : n->in[1];
    int64_t stride = (dim(g, x, 2) + dim(g, y, 2) - 1) / dim(g, y, 2);   /* of widths: stripes have neighbours' rows */
    snprintf(text, size, "n%lld %lldx%lld %lld->%lld k%lld s%lld", (long long)dim(g, x, 0), (long long)dim(g, x, 1),
             (long long)dim(g, x, 2), (long long)dim(g, w, 1), (long long)dim(g, w, 0), (long long)dim(g, w, 2),
             (long long)stride);
}

static void place_linear(const kw_graph *g, const kw_node *n, char *text, size_t size)
{
    bool dx = is(n, "linear_dx"), dw = is(n, "linear_dw"), add = is(n, "linear_add");
    kw_val x = dx ? n->out[0] : n->in[add], y = dx ? n->in[0] : dw ? n->in[1] : n->out[0];
    kw_shape in = kw_shape_of(g, x), out = kw_shape_of(g, y);
    snprintf(text, size, "%lld x %lld->%lld", (long long)(kw_count(in) / kw_last(in)), (long long)kw_last(in),
             (long long)kw_last(out));
}

static void place_attention(const kw_graph *g, const kw_node *n, char *text, size_t size)
{
    kw_val lse = is(n, "attention") ? n->out[1] : n->in[4];
    int64_t heads = dim(g, lse, 1);
    snprintf(text, size, "n%lld h%lld q%lld k%lld d%lld", (long long)dim(g, lse, 0), (long long)heads,
             (long long)dim(g, lse, 2), (long long)dim(g, n->in[1], 1), (long long)(dim(g, n->in[0], 2) / heads));
}

void kw_bench_place(const kw_graph *g, const kw_node *n, char text[96])
{
    char dims[64];
    if (kw_starts_with(n->op->name, "conv2d"))
        place_conv(g, n, text, 96);
    else if (kw_starts_with(n->op->name, "linear"))
        place_linear(g, n, text, 96);
    else if (kw_starts_with(n->op->name, "attention"))
        place_attention(g, n, text, 96);
    else
        snprintf(text, 96, "%s", kw_dims_text(kw_shape_of(g, n->n_in && n->in[0] >= 0 ? n->in[0] : n->out[0]), dims));
}

size_t kw_bench_spots(const kw_bench_result *r, kw_bench_spot *list, size_t most)
{
    size_t n = 0;
    for (int p = 0; p < r->n_programs; p++) {
        const kw_graph *g = kw_program_graph(r->program[p]);
        for (size_t i = 0; i < g->n_nodes; i++) {
            double seconds = kw_program_node_seconds(r->program[p], i);
            char where[96], text[128];
            size_t k = 0;
            if (seconds <= 0)
                continue;
            kw_bench_place(g, &g->node[i], where);
            snprintf(text, sizeof text, "%s  %s", g->node[i].op->name, where);
            while (k < n && strcmp(list[k].text, text))
                k++;
            if (k == most)
                continue;
            if (k == n)
                memcpy(list[n++].text, text, sizeof text);
            list[k].kind = kw_forecast_class(g, &g->node[i]);
            list[k].bytes += kw_node_bytes(g, &g->node[i]) * (double)kw_program_timed_runs(r->program[p]);
            list[k].seconds += seconds;
            list[k].flops += kw_node_flops(g, &g->node[i]) * (double)kw_program_timed_runs(r->program[p]);
            list[k].count += kw_program_timed_runs(r->program[p]);
        }
    }
    qsort(list, n, sizeof *list, costliest_place);
    return n;
}

