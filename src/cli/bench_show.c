/* bench_show.c - what kiwame bench found, for people and as JSON: time, work, memory, and where the time goes. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

/* ---- texts ------------------------------------------------------------------------------------------------------- */

void kw_bench_seconds(double seconds, char text[32])
{
    if (seconds >= 1)
        snprintf(text, 32, seconds >= 100 ? "%.1f s" : "%.3f s", seconds);
    else
        snprintf(text, 32, seconds >= 1e-3 ? "%.2f ms" : "%.1f µs", seconds * (seconds >= 1e-3 ? 1e3 : 1e6));
}

void kw_bench_rate(kw_table *t, double work, double seconds)
{
    if (work > 0 && seconds > 0)
        kw_table_cell(t, "%.1f", work / seconds * 1e-9);
    else
        kw_table_cell(t, " ");
}

static void line(kw_table *t, const char *name, const char *value, const char *more)
{
    kw_table_cell(t, "%s", name);
    kw_table_cell(t, "%s", value);
    kw_table_cell(t, "%s", more);
}

static void show_size(char text[32], double bytes)
{
    kw_str s = { 0 };
    kw_show_size(&s, bytes);
    snprintf(text, 32, "%s", s.s ? s.s : "?");
    kw_str_free(&s);
}

static void show_times(const kw_bench_result *r, kw_table *t)
{
    char a[32], low[32], high[32], more[128];
    kw_bench_seconds(r->t.median, a);
    kw_bench_seconds(r->t.low, low);
    kw_bench_seconds(r->t.high, high);
    snprintf(more, sizeof more, _(N_("median of %d, %s to %s")), r->t.n, low, high);
    line(t, _(N_("time")), a, more);
    kw_bench_seconds(r->first, a);
    kw_bench_seconds(r->setup, low);
    snprintf(more, sizeof more, _(N_("weights are packed; before it %s of planning")), low);
    line(t, _(N_("first run")), a, more);
}

/* Of a run, or as forecast. */
static double seconds_of(const kw_bench_result *r) { return r->t.n ? r->t.median : r->work / kw_bench_peak(&r->t); }

static void show_forecast(const kw_bench_result *r, kw_table *t)
{
    char a[32], more[128];
    kw_bench_seconds(seconds_of(r), a);
    line(t, _(N_("time")), a, _(N_("a forecast: nothing was run")));
    kw_bench_seconds(r->plan, a);
    snprintf(more, sizeof more, _(N_("%s of planning")), a);
    kw_bench_seconds(r->setup, a);
    line(t, _(N_("to open")), a, more);
}

static void show_work(const kw_bench_result *r, kw_table *t)
{
    static const char *const instruction[] = { "f32", "bf16", "int8" };
    double speed = r->flops / seconds_of(r), peak = kw_bench_peak(&r->t);
    char value[64], more[128];
    snprintf(value, sizeof value, r->flops < 1e11 ? "%.2f GFLOP" : "%.0f GFLOP", r->flops * 1e-9);
    line(t, _(N_("useful work")), value, "");
    snprintf(value, sizeof value, "%.1f GFLOP/s", speed * 1e-9);
    snprintf(more, sizeof more, _(N_("%.0f %% of the peak")), 100 * speed / peak);
    line(t, _(N_("speed")), value, more);
    snprintf(value, sizeof value, "%.1f GFLOP/s", peak * 1e-9);
    snprintf(more, sizeof more, _(N_("%s, threads: %d, %.1f before and %.1f after")),
             instruction[kw_bench_kind(r->m->compute)], kw_threads(), r->t.before * 1e-9, r->t.after * 1e-9);
    line(t, _(N_("peak")), value, more);
}

static void show_memory(const kw_bench_result *r, kw_table *t)
{
    char value[32], forecast[32], more[96];
    show_size(value, r->rss);
    show_size(forecast, r->forecast);
    if (!r->t.n) {
        line(t, _(N_("memory")), forecast, _(N_("a forecast: nothing was run")));
        return;
    }
    snprintf(more, sizeof more, _(N_("%s were forecast")), forecast);
    line(t, _(N_("memory")), value, more);
}

static void show_families(const kw_bench_breakdown *b, double seconds)
{
    kw_table t = { .align = "lrrrr" };
    const char *const heads[] = { _(N_("ops")), _(N_("time")), _(N_("share")), "GFLOP/s", "GB/s" };
    for (size_t i = 0; i < KW_LEN(heads); i++)
        kw_table_cell(&t, "%s", heads[i]);
    for (int i = 0; i < b->n; i++) {
        const kw_bench_family *f = &b->family[i];
        char took[32];
        kw_bench_seconds(f->seconds / b->runs, took);
        kw_table_cell(&t, "%s", _(f->name));
        kw_table_cell(&t, "%s", took);
        kw_table_cell(&t, "%.1f %%", 100 * f->seconds / b->runs / seconds);
        kw_bench_rate(&t, f->flops, f->seconds);
        kw_bench_rate(&t, f->bytes, f->seconds);
    }
    printf("\n");
    kw_table_print(&t, stdout, 2);
}

static void show_places(const kw_bench_result *r)
{
    kw_table t = { .align = "lrrr" };
    const char *const heads[] = { _(N_("the costliest shapes")), " ", _(N_("time")), "GFLOP/s" };
    kw_bench_spot *list = calloc(KW_BENCH_SPOTS, sizeof *list);
    size_t n = list ? kw_bench_spots(r, list, KW_BENCH_SPOTS) : 0;
    for (size_t i = 0; i < KW_LEN(heads); i++)
        kw_table_cell(&t, "%s", heads[i]);
    for (size_t i = 0; i < n && i < (size_t)r->top; i++) {
        char took[32];
        kw_bench_seconds(list[i].seconds / r->t.n, took);
        kw_table_cell(&t, "%s", list[i].text);
        kw_table_cell(&t, "%lld x", (long long)(list[i].count / r->t.n));
        kw_table_cell(&t, "%s", took);
        kw_bench_rate(&t, list[i].flops, list[i].seconds);
    }
    printf("\n");
    kw_table_print(&t, stdout, 2);
    free(list);
}

void kw_bench_remark(const kw_cli *c, const kw_bench_times *t)
{
    if (t->steady || c->global.json || c->global.quiet)
        return;
    fprintf(stderr, "%s! %s", kw_style_text(c->term.err_colour, KW_YELLOW),
            kw_style_text(c->term.err_colour, KW_PLAIN));
    fprintf(stderr, _(N_("the peak moved by %.0f %% in each of %d tries: other programs are computing, or threads "
                         "share a core; such figures say little")),
            100 * (1 - KW_MIN(t->before, t->after) / kw_bench_peak(t)), t->tries);
    fputc('\n', stderr);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void add_family(kw_str *o, const kw_bench_breakdown *b, const kw_bench_family *f)
{
    const char *comma = "";
    kw_str_printf(o, "{\"family\":\"%s\",\"seconds\":%.9g,\"tflop\":%.9g,\"bytes\":%.0f,\"ops\":[", f->id,
                  f->seconds / b->runs, f->flops / b->runs * 1e-12, f->bytes / b->runs);
    for (int i = 0; i < b->n_ops; i++) {
        if (strcmp(kw_bench_family_of(b->op[i].op), f->id))
            continue;
        kw_str_printf(o, "%s{\"op\":\"%s\",\"count\":%.0f,\"seconds\":%.9g,\"tflop\":%.9g,\"bytes\":%.0f}", comma,
                      b->op[i].op, (double)b->op[i].count / b->runs, b->op[i].seconds / b->runs,
                      b->op[i].flops / b->runs * 1e-12, b->op[i].bytes / b->runs);
        comma = ",";
    }
    kw_str_add(o, "]}");
}

static void add_figures(kw_str *o, const kw_bench_result *r)
{
    const kw_bench_model *m = r->m;
    double peak = kw_bench_peak(&r->t), speed = r->t.n ? r->flops / r->t.median : 0;
    size_t slow = 0;
    for (int i = 0; i < r->n_programs; i++)
        slow += kw_program_references(r->program[i]);
    kw_str_add(o, "{\"model\":");
    kw_show_json_text(o, m->name);
    kw_str_printf(o, ",\"pass\":\"%s\",\"width\":%d,\"height\":%d,\"batch\":%d,\"dtype\":\"%s\"", r->pass, m->w, m->h,
                  m->o->batch, m->compute == KW_BF16 ? "bf16" : "f32");
    if (m->o->s.base_dtype)
        kw_str_add(o, ",\"base_dtype\":\"int8\"");
    if (m->o->pass == KW_BENCH_LORA)
        kw_str_printf(o, ",\"rank\":%d", m->o->s.rank);
    kw_str_printf(o, ",\"isa\":\"%s\",\"threads\":%d", kw_kern_get()->isa, kw_threads());
    if (r->t.n)
        kw_str_printf(o, ",\"seconds\":%.9g,\"seconds_low\":%.9g,\"seconds_high\":%.9g", r->t.median, r->t.low,
                      r->t.high);
    kw_str_printf(o, ",\"runs\":%d,\"tflop\":%.9g", r->t.n, r->flops * 1e-12);
    if (r->t.n)
        kw_str_printf(o, ",\"tflops\":%.9g,\"fraction\":%.6g", speed * 1e-12, speed / peak);
    kw_str_printf(o, ",\"peak_tflops\":%.9g", peak * 1e-12);
    kw_str_printf(o, ",\"peak_before\":%.9g,\"peak_after\":%.9g,\"steady\":%s,\"tries\":%d", r->t.before * 1e-12,
                  r->t.after * 1e-12, r->t.steady ? "true" : "false", r->t.tries);
    kw_str_printf(o, ",\"forecast_bytes\":%.0f,\"setup_seconds\":%.9g,\"reference_nodes\":%zu", r->forecast, r->setup,
                  slow);
    if (r->t.n)
        kw_str_printf(o, ",\"rss_bytes\":%.0f,\"first_seconds\":%.9g", r->rss, r->first);
    if (r->work > 0)
        kw_str_printf(o, ",\"forecast_seconds\":%.9g,\"plan_seconds\":%.9g,\"states_seconds\":%.9g", r->work / peak,
                      r->plan, r->states);
    if (r->stages)
        kw_str_printf(o, ",\"text_seconds\":%.9g,\"steps_seconds\":%.9g,\"pixels_seconds\":%.9g", r->stages[0] / r->t.n,
                      r->stages[1] / r->t.n, r->stages[2] / r->t.n);
}

static void add_places(kw_str *o, const kw_bench_result *r)
{
    kw_bench_spot *list = calloc(KW_BENCH_SPOTS, sizeof *list);
    size_t n = list ? kw_bench_spots(r, list, KW_BENCH_SPOTS) : 0;
    kw_str_add(o, "],\"places\":[");
    for (size_t i = 0; i < n && i < (size_t)r->top; i++)
        kw_str_printf(o, "%s{\"place\":\"%s\",\"class\":\"%s\",\"count\":%.0f,\"seconds\":%.9g,\"gflop\":%.9g,"
                      "\"bytes\":%.0f}", i ? "," : "", list[i].text, list[i].kind ? list[i].kind : "",
                      (double)list[i].count / r->t.n, list[i].seconds / r->t.n, list[i].flops / r->t.n * 1e-9,
                      list[i].bytes / r->t.n);
    free(list);
}

static void print_json(const kw_bench_result *r, const kw_bench_breakdown *b)
{
    kw_str o = { 0 };
    add_figures(&o, r);
    for (int i = 0; i < b->n && r->t.n; i++) {
        kw_str_add(&o, i ? "," : ",\"breakdown\":[");
        add_family(&o, b, &b->family[i]);
    }
    if (r->top > 0 && r->t.n)
        add_places(&o, r);
    printf("%s%s}\n", o.s && !o.failed ? o.s : "{", r->t.n ? "]" : "");
    kw_str_free(&o);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static void show_head(const kw_bench_result *r)
{
    const kw_bench_model *m = r->m;
    printf("%s  %d x %d", m->name, m->w, m->h);
    if (m->o->batch > 1)
        printf("  %s %d", _(N_("batch")), m->o->batch);
    printf("  %s", r->pass);
    if (m->o->pass == KW_BENCH_LORA)
        printf("  %s %d, %s", _(N_("rank")), m->o->s.rank, m->o->s.targets);
    printf("  %s  %s\n", m->compute == KW_BF16 ? "bf16" : "f32", kw_kern_get()->isa);
}

void kw_bench_show(const kw_cli *c, const kw_bench_result *r)
{
    kw_bench_breakdown b;
    bool ran = r->t.n > 0, detailed = kw_bench_break_down(r, &b) && ran;
    if (c->global.json) {
        print_json(r, &b);
    } else {
        kw_table t = { .align = "lrl" };
        show_head(r);
        (ran ? show_times : show_forecast)(r, &t);
        show_work(r, &t);
        show_memory(r, &t);
        kw_table_print(&t, stdout, 2);
        if (detailed)
            show_families(&b, r->t.sum / b.runs);
        if (r->top > 0 && ran)
            show_places(r);
    }
    kw_bench_remark(c, &r->t);
    free(b.op);
}
