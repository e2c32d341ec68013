/* cmd_bench_op.c - kiwame bench op: single ops, at the shapes of a model or at one of the user's. */
#include "bench_ops.h"

#include <string.h>

typedef struct {
    kw_bench_options b;
    kw_texts words;
    float seconds;
    int most;
} config;

static const kw_option options[] = {
    KW_ROW_LIST("op", config, words, N_("names of ops, or one name and a shape"), .value = "NAME",
                .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED),
    KW_ROW_GROUP(N_("Measuring")),
    KW_ROW_FLOAT("seconds", config, seconds, 0.3, 0, 3600, N_("how long each shape is measured")),
    KW_ROW_INT("most", config, most, 0, 0, 10000, N_("only so many shapes of each op, those with most work"),
               .word = "all", .word_is = 0),
    KW_ROW_END
};
static const kw_option_table tables[] = {
    { options, 0, NULL, 0 }, { kw_bench_rows, offsetof(config, b), NULL, 0 },
    { kw_model_rows, offsetof(config, b.s), NULL, 0 }, { 0 }
};

typedef struct { kw_program *p; kw_workspace *w; } running;

static kw_status once(void *ctx, kw_err *e)
{
    const running *r = ctx;
    return kw_program_run(r->p, r->w, e);
}

static kw_status measure(const config *o, const kw_bench_op *op, kw_bench_times *t, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    running r = { .w = a ? kw_workspace_new(a) : NULL };
    kw_bench_work work = { .run = once, .ctx = &r, .compute = op->g->compute, .seconds = (double)o->seconds,
                           .least = 3, .most = 100000, .peak_seconds = 0.05 };
    kw_status s = r.w ? kw_bench_op_program(a, op, &r.p, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s)
        s = once(&r, e);                  /* packs weights, fills caches */
    if (!s)
        s = kw_bench_time(&work, t, e);
    kw_arena_free(a);
    return s;
}

/* ---- which ------------------------------------------------------------------------------------------------------- */

static kw_status check_names(const config *o, size_t n, kw_err *e)
{
    for (size_t i = 0; i < n; i++) {
        kw_nearest near = { .word = o->words.item[i] };
        for (int k = 0; kw_op_at(k); k++)
            kw_nearest_try(&near, kw_op_at(k)->name);
        if (kw_op_find(o->words.item[i]))
            continue;
        kw_status s = kw_fail(e, KW_EUSAGE, N_("there is no op '%s'"), o->words.item[i]);
        return near.best ? kw_advise(e, s, N_("did you mean '%s'?"), near.best)
                         : kw_advise(e, s, N_("ops are, for example, conv2d, linear, attention"));
    }
    return KW_OK;
}

/* The first `most` of each op: the list is sorted by op, then by work. */
static size_t shorten(kw_bench_op *list, size_t n, int most)
{
    size_t kept = 0;
    int of_op = 0;
    for (size_t i = 0; i < n; i++) {
        of_op = i && list[i].node->op == list[i - 1].node->op ? of_op + 1 : 0;
        if (!most || of_op < most)
            list[kept++] = list[i];
    }
    return kept;
}

static kw_status choose(kw_cli *c, config *o, kw_bench_model *m, kw_bench_op **list, size_t *n, kw_err *e)
{
    size_t names = o->words.n;
    const char *last = o->words.item[names - 1];
    bool shape = names == 2 && last[0] >= '0' && last[0] <= '9';
    KW_TRY(check_names(o, names - shape, e));
    if (kw_options_from(c->options, "pass") == KW_FROM_DEFAULT)
        KW_TRY(kw_options_set(c->options, "pass", "full", KW_FROM_PRESET, "--pass", e));
    KW_TRY(kw_bench_open(c, &o->b, m, e));
    if (!shape) {
        KW_TRY(kw_bench_ops_of_model(c, m, o->words.item, names, list, n, e));
        *n = shorten(*list, *n, o->most);
        return KW_OK;
    }
    *list = kw_alloc(c->arena, sizeof **list);
    *n = 1;
    if (!*list)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    return kw_bench_op_of_shape(c->arena, m->compute, m->weights, o->words.item[0], last, *list, e);
}

/* ---- showing ----------------------------------------------------------------------------------------------------- */

static void add_row(kw_table *t, const kw_bench_op *op, const kw_bench_times *found)
{
    char took[32];
    kw_bench_seconds(found->median, took);
    kw_table_cell(t, "%s", op->node->op->name);
    kw_table_cell(t, "%s", op->place);
    kw_table_cell(t, "%lld x", (long long)op->count);
    kw_table_cell(t, "%s", took);
    kw_bench_rate(t, op->flops, found->median);
    if (op->flops > 0)
        kw_table_cell(t, "%.0f %%", 100 * op->flops / found->median / kw_bench_peak(found));
    else
        kw_table_cell(t, " ");
    kw_bench_rate(t, op->bytes, found->median);
}

static void add_sum(kw_table *t, const kw_bench_op *list, const kw_bench_times *found, size_t n)
{
    double seconds = 0, flops = 0, ideal = 0;
    char took[32];
    for (size_t i = 0; i < n; i++) {
        seconds += (double)list[i].count * found[i].median;
        flops += (double)list[i].count * list[i].flops;
        ideal += (double)list[i].count * list[i].flops / kw_bench_peak(&found[i]);
    }
    kw_bench_seconds(seconds, took);
    kw_table_cell(t, "%s", _(N_("all of them")));
    kw_table_cell(t, " ");
    kw_table_cell(t, " ");
    kw_table_cell(t, "%s", took);
    kw_bench_rate(t, flops, seconds);
    if (flops > 0)
        kw_table_cell(t, "%.0f %%", 100 * ideal / seconds);
    else
        kw_table_cell(t, " ");
    kw_table_cell(t, " ");
}

static void show(const kw_bench_model *m, const kw_bench_op *list, const kw_bench_times *found, size_t n)
{
    kw_table t = { .align = "llrrrrr" };
    const char *const heads[] = { _(N_("op")), _(N_("shape")),       _(N_("calls")), _(N_("time")),
                                  "GFLOP/s",   _(N_("of the peak")), "GB/s" };
    printf("%s  %s  %s: %d\n", m->compute == KW_BF16 ? "bf16" : "f32", kw_kern_get()->isa, _(N_("threads")),
           kw_threads());
    for (size_t i = 0; i < KW_LEN(heads); i++)
        kw_table_cell(&t, "%s", heads[i]);
    for (size_t i = 0; i < n; i++)
        add_row(&t, &list[i], &found[i]);
    if (n > 1)
        add_sum(&t, list, found, n);
    kw_table_print(&t, stdout, 2);
}

static void print_json(const kw_bench_model *m, const kw_bench_op *list, const kw_bench_times *found, size_t n)
{
    printf("{\"dtype\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"ops\":[", m->compute == KW_BF16 ? "bf16" : "f32",
           kw_kern_get()->isa, kw_threads());
    for (size_t i = 0; i < n; i++) {
        const kw_bench_times *t = &found[i];
        double speed = list[i].flops / t->median, peak = kw_bench_peak(t);
        printf("%s{\"op\":\"%s\",\"shape\":\"%s\",\"calls\":%lld,\"bytes\":%.0f", i ? "," : "", list[i].node->op->name,
               list[i].place, (long long)list[i].count, list[i].bytes);
        printf(",\"seconds\":%.9g,\"seconds_low\":%.9g,\"seconds_high\":%.9g,\"tflop\":%.9g,\"tflops\":%.9g", t->median,
               t->low, t->high, list[i].flops * 1e-12, speed * 1e-12);
        printf(",\"peak_tflops\":%.9g,\"fraction\":%.6g,\"steady\":%s}", peak * 1e-12, speed / peak,
               t->steady ? "true" : "false");
    }
    printf("]}\n");
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    config *o = arg;
    kw_bench_model m;
    kw_bench_op *list = NULL;
    size_t n = 0;
    kw_progress p;
    KW_TRY(choose(c, o, &m, &list, &n, e));
    kw_bench_times *found = kw_alloc_array(c->arena, n, sizeof *found);
    if (!found)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_progress_begin(&p, c, _(N_("measuring")), _(N_("shape")), (int64_t)n);
    kw_status s = KW_OK;
    for (size_t i = 0; i < n && !s; i++) {
        s = measure(o, &list[i], &found[i], e);
        kw_progress_at(&p, (int64_t)i + 1, list[i].node->op->name);
    }
    kw_progress_pause(&p);
    KW_TRY(s);
    if (c->global.json)
        print_json(&m, list, found, n);
    else
        show(&m, list, found, n);
    const kw_bench_times *worst = NULL;
    for (size_t i = 0; i < n; i++)
        worst = found[i].steady ? worst : &found[i];
    if (worst)
        kw_bench_remark(c, worst);
    return KW_OK;
}

const kw_command kw_command_bench_op = {
    .name = "op", .help = N_("time single ops at a model's shapes, or at one shape"),
    .about = N_("Shapes are those of a pass of the model (full training unless told otherwise), with how often each "
                "occurs there; nothing of the model is loaded or run. Inputs are in the processor's caches as far as "
                "they fit."),
    .examples = "kiwame bench op conv2d conv2d_dx conv2d_dw --most 5\n"
                "kiwame bench op attention 1x4096x4096x8x40 --dtype bf16\n"
                "kiwame bench op linear 4096x320x2560",
    .tables = tables, .config_size = sizeof(config), .flags = KW_COMMAND_THREADS, .run = run,
};
