/* cmd_bench_peak.c - kiwame bench peak: register-only multiply-adds, matrix products, memory. */
#include "bench.h"

typedef struct { float seconds; } config;

static const kw_option options[] = {
    KW_ROW_FLOAT("seconds", config, seconds, 3, 0.1, 600, N_("how long to measure in all"), .flags = KW_OPT_NO_RECIPE),
    KW_ROW_END
};

/*  what is multiplied  |  what people call it  */
static const struct { kw_peak kind; const char *id, *name; } kinds[] = {
    { KW_PEAK_F32, "f32", N_("f32 multiply-adds") },
    { KW_PEAK_BF16, "bf16", N_("bf16 dot products") },
    { KW_PEAK_INT8, "int8", N_("int8 dot products") },
};

typedef struct { double one[KW_LEN(kinds)], all[KW_LEN(kinds)]; kw_speed speed; } found;

static void silent(void *arg, int done, int of) { (void)arg, (void)done, (void)of; }

static void measure(found *f, double seconds)
{
    for (size_t i = 0; i < KW_LEN(kinds); i++) {
        f->one[i] = kw_peak_measure(kinds[i].kind, 1, seconds / 10);
        f->all[i] = kw_threads() > 1 ? kw_peak_measure(kinds[i].kind, kw_threads(), seconds / 10) : f->one[i];
    }
    kw_speed_measure(&f->speed, 0.4 * seconds, silent, NULL);
}

static void row(kw_table *t, const char *name, double one, double all, const char *unit)
{
    kw_table_cell(t, "%s", name);
    kw_table_cell(t, "%.1f", one * 1e-9);
    kw_table_cell(t, "%.1f %s", all * 1e-9, unit);
    kw_table_cell(t, "%.2f", all / one);
}

static void show(const found *f)
{
    kw_table t = { .align = "lrrr" };
    kw_table_cell(&t, "%s", kw_kern_get()->isa);
    kw_table_cell(&t, "%s", _(N_("1 thread")));
    kw_table_cell(&t, "%s: %d", _(N_("threads")), kw_threads());
    kw_table_cell(&t, "%s", _(N_("ratio")));
    for (size_t i = 0; i < KW_LEN(kinds); i++)
        if (f->one[i] > 0)
            row(&t, _(kinds[i].name), f->one[i], f->all[i], i == KW_PEAK_INT8 ? "GOP/s  " : "GFLOP/s");
    row(&t, _(N_("f32 matrix products, 768 x 768")), f->speed.one, f->speed.all, "GFLOP/s");
    kw_table_cell(&t, "%s", _(N_("memory")));
    kw_table_cell(&t, " ");
    kw_table_cell(&t, "%.1f GB/s   ", f->speed.memory * 1e-9);
    kw_table_cell(&t, " ");
    kw_table_print(&t, stdout, 0);
}

static void print_json(const found *f)
{
    printf("{\"isa\":\"%s\",\"threads\":%d,\"peaks\":[", kw_kern_get()->isa, kw_threads());
    const char *comma = "";
    for (size_t i = 0; i < KW_LEN(kinds); i++)
        if (f->one[i] > 0) {
            printf("%s{\"kind\":\"%s\",\"tflops_1\":%.6g,\"tflops\":%.6g}", comma, kinds[i].id, f->one[i] * 1e-12,
                   f->all[i] * 1e-12);
            comma = ",";
        }
    printf("],\"products_tflops_1\":%.6g,\"products_tflops\":%.6g,\"memory_bytes_per_second\":%.6g}\n",
           f->speed.one * 1e-12, f->speed.all * 1e-12, f->speed.memory);
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    const config *o = arg;
    found f = { 0 };
    (void)e;
    measure(&f, (double)o->seconds);
    if (c->global.json)
        print_json(&f);
    else
        show(&f);
    return KW_OK;
}

const kw_command kw_command_bench_peak = {
    .name = "peak", .help = N_("the most this machine can do: multiply-adds on registers, products, memory"),
    .options = options, .config_size = sizeof(config), .flags = KW_COMMAND_THREADS, .run = run,
};
