/* run_report.c - a run's page, report.html, from what the run knows at this moment. */
#include "report.h"
#include "run_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST = 64 };

typedef struct { kw_arena *a; kw_report_fact fact[MOST]; size_t n; } facts;

static void add(facts *f, const char *label, const char *fmt, ...) KW_PRINTF(3, 4);
static void add(facts *f, const char *label, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char *copy = kw_strdup(f->a, text);
    if (copy && f->n < MOST)
        f->fact[f->n++] = (kw_report_fact){ label, copy };
}

static void settings(const kw_run *r, facts *f)
{
    const kw_settings *s = &r->s;
    if (r->tc.lora)
        add(f, N_("rank / alpha"), "%d / %g", s->rank, (double)kw_settings_alpha(s));
    add(f, N_("trained layers"), "%s", r->tc.lora ? s->targets : r->align ? "text" : s->part);
    add(f, N_("learning rate"), "%g", s->learning_rate);
    add(f, N_("batch size"), "%d x %d", s->batch, s->accumulation);
    add(f, N_("steps"), "%lld", (long long)r->steps);
    add(f, N_("resolution"), "%d", r->resolution);
    if (s->min_snr > 0)
        add(f, N_("min-SNR gamma"), "%g", s->min_snr);
    add(f, N_("seed"), "%llu", (unsigned long long)s->seed);
}

static void data_facts(const kw_run *r, facts *f)
{
    add(f, N_("training pictures"), "%zu", kw_data_count(r->data, false));
    add(f, N_("held-out pictures"), "%zu", kw_data_count(r->data, true));
    add(f, N_("samples in an epoch"), "%lld", (long long)kw_plan_samples(r->plan));
}

/* Of a file, or of all files of a model's folder. */
static uint64_t size_of(kw_arena *a, const char *path)
{
    struct stat st;
    char **names;
    size_t n;
    uint64_t sum = 0;
    if (stat(path, &st))
        return 0;
    if (!S_ISDIR(st.st_mode) || kw_dir_list(a, path, &names, &n, NULL))
        return S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    for (size_t i = 0; i < n; i++) {
        char *inner = kw_path_join(a, path, names[i]);
        sum += inner ? size_of(a, inner) : 0;
    }
    return sum;
}

static size_t files(const kw_run *r, kw_arena *a, kw_report_file *out)
{
    size_t n, k = 0;
    const kw_event *v = kw_events_list(r->log, &n);
    for (size_t i = 0; i < n && k < MOST; i++) {
        char *path = v[i].kind == KW_EVENT_SAVE ? kw_path_join(a, r->dir, v[i].file) : NULL;
        if (path && (kw_is_file(path) || kw_is_dir(path)))
            out[k++] = (kw_report_file){ .name = v[i].file, .step = v[i].step, .epoch = v[i].epoch,
                                         .bytes = size_of(a, path), .best = v[i].step == r->best_step };
    }
    return k;
}

/* One entry for each thing that should be looked at: what kind, and which file. */
static size_t warnings(const kw_run *r, kw_arena *a, const char **out)
{
    size_t n = 0;
    for (size_t i = 0; i < r->data->n_remarks && n < MOST; i++) {
        const kw_remark *m = &r->data->remarks[i];
        if (kw_remark_class_of(m->code) == KW_CLASS_WARNING || kw_remark_class_of(m->code) == KW_CLASS_BAD)
            out[n++] = kw_sprintf(a, "%s: %s %s", m->name, kw_translate(kw_remark_text(m->code)), m->detail);
    }
    return n;
}

static kw_status write(kw_run *r, kw_arena *a, kw_err *e)
{
    facts *s = kw_alloc(a, sizeof *s), *d = kw_alloc(a, sizeof *d);
    kw_lora_bucket *b = kw_alloc_array(a, r->data->n_buckets + 1, sizeof *b);
    kw_report_file *f = kw_alloc_array(a, MOST, sizeof *f);
    const char **w = kw_alloc_array(a, MOST, sizeof *w);
    char *path = kw_path_join(a, r->dir, "report.html"), *sheet = kw_path_join(a, r->dir, "samples/sheet.png");
    kw_str plan = { 0 };
    if (!s || !d || !b || !f || !w || !path || !sheet)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    s->a = d->a = a;
    settings(r, s);
    data_facts(r, d);
    kw_run_plan(r, &plan);
    for (size_t i = 0; i < r->data->n_buckets; i++)
        b[i] = (kw_lora_bucket){ r->data->buckets[i].w, r->data->buckets[i].h, r->data->buckets[i].n };
    kw_report p = { .lang = r->hooks.lang ? r->hooks.lang : "en", .dir = r->dir, .name = r->s.name,
                    .trigger = r->s.trigger, .base = kw_path_name(r->s.base),
                    .seconds_left = r->seconds * (double)(r->steps - kw_trainer_steps(r->trainer)), .settings = s->fact,
                    .n_settings = s->n, .plan = plan.s, .data = d->fact, .n_data = d->n, .buckets = b,
                    .n_buckets = r->data->n_buckets, .files = f, .n_files = files(r, a, f), .warnings = w,
                    .n_warnings = warnings(r, a, w), .sheet = kw_is_file(sheet) ? "samples/sheet.png" : NULL };
    p.events = kw_events_list(r->log, &p.n_events);
    if (r->tc.lora)
        p.lora_line = kw_sprintf(a, "<lora:%s:0.8> %s", r->s.name, r->s.trigger ? r->s.trigger : "");
    kw_status st = kw_report_write(path, &p, e);
    kw_str_free(&plan);
    return st;
}

/* A page that cannot be written is told, and the run goes on. */
void kw__run_report(kw_run *r)
{
    kw_err trouble = { 0 };
    kw_arena *a = kw_arena_new();
    if (a && write(r, a, &trouble))
        kw__run_note(r, kw_translate(N_("report.html was not written: %s")), trouble.what);
    kw_arena_free(a);
}
