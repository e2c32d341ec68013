/* run_frame.c - a run as the terminal shows it: plan, progress line, Ctrl-C. */
#include "run_frame.h"

#include "train/train.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { kw_cli *c; kw_progress bar; kw_phase phase; bool open; } frame;      /* open: a bar stands there */

static volatile sig_atomic_t stops, last_signal;

/* Once: finish the step, save, stop. Twice: stop at once; what was saved before is whole. */
static void on_signal(int number)
{
    last_signal = number;
    if (++stops > 1)
        _exit(number == SIGTERM ? 143 : 130);
}

static void catch_signals(void)
{
    struct sigaction a = { .sa_handler = on_signal };
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGHUP, SIG_IGN);
}

static bool stop(void *user)
{
    (void)user;
    return stops > 0;
}

static const char *phase_name(kw_phase p)
{
    static const char *const names[] = { N_("checking pictures"), N_("encoding pictures"), N_("encoding texts"),
                                         N_("training"), N_("drawing samples") };
    return _(names[p]);
}

static void describe(const kw_progress_report *r, kw_str *s)
{
    if (!isnan(r->loss))
        kw_str_printf(s, _(N_("loss %.4f (%.4f)")), r->loss, r->average);
    if (!isnan(r->validation))
        kw_str_printf(s, _(N_(", held out %.4f")), r->validation);
    if (!isnan(r->base_validation))
        kw_str_printf(s, _(N_(", base %.4f")), r->base_validation);
}

static void progress(void *user, kw_phase phase, const kw_progress_report *r)
{
    frame *f = user;
    kw_str extra = { 0 };
    if (!f->open || f->phase != phase) {
        if (f->open)
            kw_progress_end(&f->bar, f->bar.total, NULL);
        kw_progress_begin(&f->bar, f->c, phase_name(phase),
                          phase == KW_PHASE_TRAIN ? _(N_("step")) : _(N_("picture")), r->total);
        f->bar.mark_done = r->done;       /* a resumed run did not do the steps before it just now */
        f->open = true;
        f->phase = phase;
    }
    describe(r, &extra);
    if (r->done >= r->total) {
        kw_progress_end(&f->bar, r->done, extra.s);
        f->open = false;
    } else {
        kw_progress_at(&f->bar, r->done, extra.s);
    }
    kw_str_free(&extra);
}

static void note(void *user, const char *text)
{
    frame *f = user;
    kw_str safe = { 0 };
    if (f->c->global.quiet)
        return;
    if (f->open)
        kw_progress_pause(&f->bar);
    else
        kw_hush(f->c);
    kw_escape(&safe, text);
    fprintf(stderr, "%s\n", safe.s ? safe.s : "");
    kw_str_free(&safe);
}

static void show_plan(const kw_cli *c, const kw_run *r)
{
    kw_str plan = { 0 };
    kw_run_plan(r, &plan);
    if (!c->global.quiet)
        fputs(plan.s ? plan.s : "", stderr);
    kw_str_free(&plan);
}

/* $XDG_CACHE_HOME/kiwame, ~/.cache/kiwame; nothing when there is no home. */
static const char *cache_folder(kw_arena *a)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && cache[0] == '/')
        return kw_path_join(a, cache, "kiwame");
    return home && home[0] == '/' ? kw_path_join(a, home, ".cache/kiwame") : NULL;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void add_text(kw_str *o, const char *key, const char *text)
{
    if (!text)
        return;
    kw_str_printf(o, ",\"%s\":", key);
    kw_show_json_text(o, text);
}

static void add_number(kw_str *o, const char *key, double v)
{
    if (isfinite(v))
        kw_str_printf(o, ",\"%s\":%.9g", key, v);
}

static void print_json(const kw_run_summary *r)
{
    kw_str o = { 0 };
    kw_str_add(&o, "{\"run\":");
    kw_show_json_text(&o, r->dir);
    add_text(&o, "result", r->result);
    kw_str_printf(&o, ",\"steps\":%lld", (long long)r->steps);
    add_number(&o, "loss", r->loss);
    add_number(&o, "validation", r->validation);
    add_number(&o, "base_validation", r->base_validation);
    if (r->best_step)
        kw_str_printf(&o, ",\"best_step\":%lld", (long long)r->best_step);
    add_text(&o, "sheet", r->sheet);
    add_text(&o, "report", r->report);
    add_text(&o, "prompt", r->line);
    printf("%s}\n", o.s && !o.failed ? o.s : "{");
    kw_str_free(&o);
}

/* A word of a shell: quoted unless it is plain. */
static void add_word(kw_str *s, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+=,@%";
    if (*word && !word[strspn(word, plain)]) {
        kw_str_add(s, word);
        return;
    }
    kw_str_add(s, "'");
    for (; *word; word++)
        if (*word == '\'')
            kw_str_add(s, "'\\''");
        else
            kw_str_add_n(s, word, 1);
    kw_str_add(s, "'");
}

static void tell(const char *label, const char *text)
{
    kw_str safe = { 0 };
    kw_escape(&safe, text ? text : "");
    if (text)
        fprintf(stderr, "%s%s\n", label, safe.s ? safe.s : "");
    kw_str_free(&safe);
}

/* Where everything is, and the line to copy. */
static void show_end(const kw_cli *c, const kw_run_summary *r, const kw_settings *s)
{
    kw_str command = { 0 };
    if (c->global.quiet)
        return;
    tell(_(N_("sheet:       ")), r->sheet);
    tell(_(N_("report:      ")), r->report);
    if (!r->line || !r->result)
        return;
    tell(_(N_("prompt:      ")), r->line);
    kw_str_add(&command, "kiwame generate ");
    add_word(&command, r->line);
    if (s->base && (!kw_embedded_base(c->arena) || strcmp(s->base, kw_embedded_base(c->arena)))) {
        kw_str_add(&command, " --base ");
        add_word(&command, s->base);
    }
    kw_str_add(&command, " --lora-dir ");
    add_word(&command, r->dir);
    tell(_(N_("draw with:   ")), command.s && !command.failed ? command.s : NULL);
    kw_str_free(&command);
}

static kw_status work(kw_cli *c, const kw_settings *s, const kw_run_hooks *h, kw_err *e)
{
    kw_run *r;
    kw_run_summary end;
    kw_say(c, _(N_("opening the model")));
    kw_status opened = kw_run_open(c->arena, s, h, &r, e);
    kw_hush(c);
    KW_TRY(opened);
    show_plan(c, r);
    KW_TRY(kw_run_start(r, e));
    kw_run_summary_of(r, &end);
    if (c->global.json)
        print_json(&end);
    else
        printf("%s\n", end.result ? end.result : end.dir);
    fflush(stdout);
    show_end(c, &end, s);
    return KW_OK;
}

kw_status kw_run_frame(kw_cli *c, const kw_settings *given, const char *recipe, bool accept_changes, kw_err *e)
{
    frame f = { .c = c };
    kw_run_hooks h = { .user = &f, .progress = progress, .note = note, .stop = stop, .decoder = kw_decoder_argv(),
                       .recipe = recipe, .accept_changes = accept_changes,
                       .lang = kw_i18n_lang() == KW_LANG_JA ? "ja" : "en" };
    kw_settings s = *given;
    if (!s.cache)
        s.cache = cache_folder(c->arena);
    catch_signals();
    kw_status status = work(c, &s, &h, e);
    if (f.open)
        kw_progress_pause(&f.bar);
    c->stopped_by = (int)last_signal;
    return status;
}
