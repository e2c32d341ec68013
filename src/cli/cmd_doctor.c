/* cmd_doctor.c - kiwame doctor: can this machine do it, how fast, and what to do where it cannot. */
#include "cli.h"
#include "measure.h"

#include <stdlib.h>
#include <string.h>

#include "kern/kern.h"

typedef struct { float seconds; } config;

static const kw_option options[] = {
    KW_ROW_FLOAT("seconds", config, seconds, 2, 0, 60, "how long to measure the speed; 0: not at all",
                 .flags = KW_OPT_NO_RECIPE),
    KW_ROW_END
};

/* ---- checks -------------------------------------------------------------------------------------------------- */

typedef enum { GOOD, WEAK, BAD } verdict;

typedef struct {
    const char *id, *label;               /* label: translated */
    char value[160], fix[200];            /* fix: what to do unless GOOD */
    verdict verdict;
} check;

enum { MOST_CHECKS = 16 };
typedef struct { check list[MOST_CHECKS]; int n; } checks;

static check *add(checks *k, const char *id, const char *label, verdict v)
{
    check *c = &k->list[k->n++];
    *c = (check){ .id = id, .label = label, .verdict = v };
    return c;
}

static void copy(char *to, size_t size, kw_str *s)
{
    snprintf(to, size, "%s", s->s && !s->failed ? s->s : "");
    kw_str_free(s);
}

static void check_processor(checks *k, const kw_machine *m)
{
    kw_str s = { 0 };
    check *c = add(k, "processor", _(N_("processor")), GOOD);
    kw_str_printf(&s, "%s, %d %s, ", m->cpu, m->cores, _(N_("cores")));
    kw_machine_features(m, &s);
    copy(c->value, sizeof c->value, &s);
    const char *isa = kw_kern_get()->isa, *best = kw_isa_best();
    bool limited = strcmp(isa, best);
    c = add(k, "kernels", _(N_("kernels")), limited || isa[0] == 's' ? WEAK : GOOD);
    snprintf(c->value, sizeof c->value, "%s", isa);
    if (limited)
        snprintf(c->fix, sizeof c->fix, _(N_("this machine has %s: take KIWAME_ISA (or --isa) away to use it")), best);
    else
        snprintf(c->fix, sizeof c->fix, "%s", _(N_("works, but slowly: processors with AVX2 are several times faster")));
}

static void check_load(checks *k, const kw_machine *m)
{
    double load[1];
    if (getloadavg(load, 1) != 1 || load[0] < 0.5 * m->cores)
        return;
    check *c = add(k, "load", _(N_("other work")), WEAK);
    snprintf(c->value, sizeof c->value, _(N_("%.1f programs are computing besides")), load[0]);
    snprintf(c->fix, sizeof c->fix, "%s", _(N_("the speed below is too low; see what runs: top")));
}

static void check_memory(checks *k, const kw_machine *m)
{
    kw_str s = { 0 };
    check *c = add(k, "memory", _(N_("memory")), m->free < 1e9 ? BAD : m->free < 8e9 ? WEAK : GOOD);
    kw_show_size(&s, m->memory);
    kw_str_printf(&s, ", %s ", _(N_("free")));
    kw_show_size(&s, m->free);
    if (m->limit > 0) {
        kw_str_printf(&s, ", %s ", _(N_("limited to")));
        kw_show_size(&s, m->limit);
    }
    copy(c->value, sizeof c->value, &s);
    snprintf(c->fix, sizeof c->fix, "%s", c->verdict == BAD
             ? _(N_("at least 1 GB must be free; see who takes it: ps aux --sort=-rss | head"))
             : _(N_("enough for the embedded base; Stable Diffusion 1.5 wants 8 GB free")));
}

static void check_disk(checks *k, const kw_machine *m)
{
    kw_str s = { 0 }, free = { 0 };
    check *c = add(k, "disk", _(N_("disk")), m->disk_free < 1e9 ? BAD : m->disk_free < 1e10 ? WEAK : GOOD);
    kw_show_size(&free, m->disk_free);
    kw_str_printf(&s, _(N_("%s free in this folder")), free.s ? free.s : "?");
    kw_str_free(&free);
    copy(c->value, sizeof c->value, &s);
    snprintf(c->fix, sizeof c->fix, "%s", c->verdict == BAD
             ? _(N_("at least 1 GB must be free: change to another folder, see df -h"))
             : _(N_("enough for the embedded base; Stable Diffusion 1.5 wants 10 GB")));
}

static void check_libraries(checks *k)
{
    kw_str s = { 0 };
    for (const kw_library *l = kw_libraries(); l->name; l++)
        if (l->version)
            kw_str_printf(&s, "%s%s %s", s.n ? ", " : "", l->name, l->version);
    copy(add(k, "libraries", _(N_("libraries")), GOOD)->value, sizeof k->list->value, &s);
}

/* ---- what can be trained ------------------------------------------------------------------------------------------ */

/*
 * Work per step in GFLOP, counted for SD 1.5 at batch 1 (forward 803; LoRA step 2.14 x forward; full step 2409; decoding a
 * picture 2506); LoRA on the embedded base at batch 4 6.5. share: of the speed of large products that the job reached on
 * AVX2, norms and attention included. Memory as measured, in f32; full training with updates in the backward pass.
 */
typedef struct { const char *id, *name; double gflop; int steps; double bytes, share; } job;

static const job jobs[] = {
    { "lora-emoji", N_("LoRA, the base that comes along, batch 4"), 6.5, 400, 0.3e9, 0.5 },
    { "generate-sd15", N_("picture, SD 1.5, 512 px, 20 steps"), 34630, 1, 4.5e9, 1 },
    { "lora-sd15-256", N_("LoRA, SD 1.5, 256 px"), 386, 800, 4.6e9, 0.8 },
    { "lora-sd15-512", N_("LoRA, SD 1.5, 512 px"), 1722, 800, 6.3e9, 0.86 },
    { "full-sd15-512", N_("full training, SD 1.5, 512 px"), 2409, 2000, 11.8e9, 0.76 },
};

static verdict fits(const job *j, const kw_machine *m)
{
    double most = m->limit > 0 ? m->limit : m->memory;
    return j->bytes <= m->free ? GOOD : j->bytes <= most ? WEAK : BAD;
}

static double step_seconds(const job *j, const kw_speed *s) { return 1e9 * j->gflop / (j->share * s->all); }

static const char *job_fix(verdict v)
{
    return v == GOOD ? "" : v == WEAK ? _(N_("close other programs: memory is there but taken"))
                                      : _(N_("not enough memory in this machine: choose a job above"));
}

/* ---- showing --------------------------------------------------------------------------------------------------------- */

static const char *mark(verdict v) { return v == GOOD ? "✓" : v == WEAK ? "!" : "✗"; }

static void add_mark(kw_table *t, const kw_cli *c, verdict v)
{
    static const kw_style style[] = { KW_GREEN, KW_YELLOW, KW_RED };
    kw_table_cell(t, "%s%s%s", kw_style_text(c->term.out_colour, style[v]), mark(v),
                  kw_style_text(c->term.out_colour, KW_PLAIN));
}

static void show_checks(const kw_cli *c, const checks *k)
{
    kw_table t = { .align = "lll" };
    int column = 0;
    for (int i = 0; i < k->n; i++)
        column = KW_MAX(column, kw_width(k->list[i].label));
    column += 2 + 1 + 2 + 2;              /* indent, mark and two gaps */
    printf("%s\n", _(N_("Machine")));
    for (int i = 0; i < k->n; i++) {
        const check *x = &k->list[i];
        kw_str value = { 0 };
        add_mark(&t, c, x->verdict);
        kw_table_cell(&t, "%s", x->label);
        kw_wrap(&value, x->value, column, column, c->term.width);
        kw_table_cell(&t, "%s", value.s ? value.s : "");
        kw_str_free(&value);
        if (x->verdict != GOOD) {
            kw_table_cell(&t, " ");
            kw_table_cell(&t, " ");
            kw_table_cell(&t, "→ %s", x->fix);
        }
    }
    kw_table_print(&t, stdout, 2);
    fflush(stdout);                       /* seen before the measuring starts */
}

static void show_speed(const kw_speed *s)
{
    kw_table t = { .align = "lrl" };
    printf("\n%s\n", _(N_("Speed (measured)")));
    kw_table_cell(&t, "%s", _(N_("products, 1 thread")));
    kw_table_cell(&t, "%.0f GFLOP/s", s->one / 1e9);
    kw_table_cell(&t, " ");
    kw_table_cell(&t, _(N_("products, %d threads")), s->threads);
    kw_table_cell(&t, "%.0f GFLOP/s", s->all / 1e9);
    kw_table_cell(&t, s->threads > 1 && s->all < 1.3 * s->one ? "! %s" : " %.0s",
                  _(N_("the threads share a core, or other programs run")));
    kw_table_cell(&t, "%s", _(N_("memory")));
    kw_table_cell(&t, "%.0f GB/s", s->memory / 1e9);
    kw_table_cell(&t, " ");
    kw_table_print(&t, stdout, 2);
}

static void add_duration(kw_table *t, double seconds)
{
    kw_str s = { 0 };
    kw_show_duration(&s, seconds);
    kw_table_cell(t, "%s", s.s ? s.s : "?");
    kw_str_free(&s);
}

static void show_jobs(const kw_cli *c, const kw_machine *m, const kw_speed *speed)
{
    kw_table t = { .align = "llrrrr" };
    const char *const heads[] = { " ", _(N_("job")), _(N_("memory")), _(N_("one step")), _(N_("steps")), _(N_("in all")) };
    verdict worst = GOOD;
    printf("\n%s\n", _(N_("What can be trained here")));
    for (size_t i = 0; i < KW_LEN(heads); i++)
        kw_table_cell(&t, "%s", heads[i]);
    for (size_t i = 0; i < KW_LEN(jobs); i++) {
        kw_str size = { 0 };
        verdict v = fits(&jobs[i], m);
        worst = KW_MAX(worst, v);
        add_mark(&t, c, v);
        kw_table_cell(&t, "%s", _(jobs[i].name));
        kw_show_size(&size, jobs[i].bytes);
        kw_table_cell(&t, "%s", size.s ? size.s : "?");
        kw_str_free(&size);
        add_duration(&t, step_seconds(&jobs[i], speed));
        kw_table_cell(&t, "%d", jobs[i].steps);
        add_duration(&t, jobs[i].steps * step_seconds(&jobs[i], speed));
    }
    kw_table_print(&t, stdout, 2);
    for (verdict v = WEAK; v <= worst; v++)
        printf("  %s → %s\n", mark(v), job_fix(v));
    printf("  %s\n", _(N_("estimated from the speed of products, batch 1 where none is named")));
}

static void print_json(const kw_machine *m, const checks *k, const kw_speed *s)
{
    static const char *const verdicts[] = { "good", "weak", "bad" };
    kw_str o = { 0 };
    kw_str_printf(&o, "{\"version\":\"%s\",\"cores\":%d,\"memory\":%.0f,\"memory_free\":%.0f,\"disk_free\":%.0f,\"checks\":[",
                  KW_VERSION, m->cores, m->memory, m->free, m->disk_free);
    for (int i = 0; i < k->n; i++) {
        kw_str_printf(&o, "%s{\"id\":\"%s\",\"verdict\":\"%s\",\"value\":", i ? "," : "", k->list[i].id,
                      verdicts[k->list[i].verdict]);
        kw_show_json_text(&o, k->list[i].value);
        kw_str_add(&o, ",\"fix\":");
        kw_show_json_text(&o, k->list[i].verdict == GOOD ? "" : k->list[i].fix);
        kw_str_add(&o, "}");
    }
    kw_str_add(&o, "]");
    if (s->all > 0) {
        kw_str_printf(&o, ",\"speed\":{\"threads\":%d,\"gflops_1\":%.1f,\"gflops\":%.1f,\"gbytes\":%.1f},\"jobs\":[",
                      s->threads, s->one / 1e9, s->all / 1e9, s->memory / 1e9);
        for (size_t i = 0; i < KW_LEN(jobs); i++)
            kw_str_printf(&o, "%s{\"id\":\"%s\",\"verdict\":\"%s\",\"memory\":%.0f,\"step_seconds\":%.3f,\"steps\":%d}",
                          i ? "," : "", jobs[i].id, verdicts[fits(&jobs[i], m)], jobs[i].bytes,
                          step_seconds(&jobs[i], s), jobs[i].steps);
        kw_str_add(&o, "]");
    }
    printf("%s}\n", o.s && !o.failed ? o.s : "{");
    kw_str_free(&o);
}

static void measuring(void *arg, int done, int of)
{
    kw_progress_at(arg, done, NULL);
    if (done == of)
        kw_progress_pause(arg);
}

static kw_status run(kw_cli *c, void *config_, kw_err *e)
{
    const config *g = config_;
    kw_machine m;
    kw_speed speed = { 0 };
    kw_progress p;
    checks k = { .n = 0 };
    kw_machine_read(&m);
    check_processor(&k, &m);
    check_load(&k, &m);
    check_memory(&k, &m);
    check_disk(&k, &m);
    check_libraries(&k);
    if (!c->global.json)
        show_checks(c, &k);
    fflush(stdout);                       /* measuring takes its time */
    if (g->seconds > 0) {
        kw_say(c, _(N_("measuring")));
        kw_progress_begin(&p, c, _(N_("measuring")), _(N_("part")), 3);
        kw_speed_measure(&speed, (double)g->seconds, measuring, &p);
    }
    if (c->global.json)
        print_json(&m, &k, &speed);
    else if (speed.all > 0) {
        show_speed(&speed);
        show_jobs(c, &m, &speed);
    }
    for (int i = 0; i < k.n; i++)
        if (k.list[i].verdict == BAD)
            return kw_advise(e, kw_fail(e, KW_ENOMEM, N_("this machine cannot train as it is: %s, %s"), k.list[i].label,
                                        k.list[i].value), "%s", k.list[i].fix);
    return KW_OK;
}

const kw_command kw_command_doctor = {
    .name = "doctor",
    .help = N_("check this machine: what can be trained here, and how fast"),
    .about = N_("Every line with ! or ✗ says what to do. Ends with code 4 if nothing can be trained here."),
    .options = options, .config_size = sizeof(config), .flags = KW_COMMAND_THREADS, .run = run,
};
