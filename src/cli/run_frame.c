/* run_frame.c - a run as the terminal shows it: plan, progress line, Ctrl-C. */
#include "run_frame.h"

#include "train/train.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { kw_cli *c; kw_progress bar; kw_phase phase; bool open; } frame;

static volatile sig_atomic_t stops;

/* Once: finish the step, save, stop. Twice: stop at once; what was saved before is whole. */
static void on_signal(int number)
{
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
    static const char *const names[] = { N_("checking pictures"), N_("encoding pictures"), N_("encoding texts"), N_("training"), N_("drawing samples") };
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
        kw_progress_begin(&f->bar, f->c, phase_name(phase), phase == KW_PHASE_TRAIN ? _(N_("step")) : _(N_("picture")), r->total);
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
    kw_escape(&safe, text);
    fprintf(stderr, "%s\n", safe.s ? safe.s : "");
    kw_str_free(&safe);
}

static kw_status write_recipe(const char *dir, const char *recipe, kw_arena *a, kw_err *e)
{
    char *path = kw_path_join(a, dir, "recipe.toml");
    KW_TRY(kw_mkdirs(dir, e));
    return path ? kw_file_write_atomic(path, recipe, strlen(recipe), e) : kw_fail(e, KW_ENOMEM, "out of memory");
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

kw_status kw_run_frame(kw_cli *c, const kw_settings *given, const char *recipe, kw_err *e)
{
    static const char *const decoder[] = { "/proc/self/exe", "_decode-worker", NULL };
    frame f = { .c = c };
    kw_run_hooks h = { .user = &f, .progress = progress, .note = note, .stop = stop, .decoder = decoder, .lang = kw_i18n_lang() == KW_LANG_JA ? "ja" : "en" };
    kw_run *r;
    kw_settings filled = *given;
    const kw_settings *s = &filled;
    if (!filled.cache)
        filled.cache = cache_folder(c->arena);
    catch_signals();
    KW_TRY(kw_run_open(c->arena, s, &h, &r, e));
    show_plan(c, r);
    if (recipe && kw_is_file(kw_path_join(c->arena, kw_run_dir(r), "recipe.toml"))) {
        kw_status st = kw_fail(e, KW_EUSAGE, "%s holds a run already", kw_run_dir(r));
        return kw_advise(e, st, "go on with it: kiwame resume %s; or choose another --out", kw_run_dir(r));
    }
    if (recipe)
        KW_TRY(write_recipe(kw_run_dir(r), recipe, c->arena, e));
    KW_TRY(kw_run_start(r, e));
    printf("%s\n", kw_run_result(r) ? kw_run_result(r) : kw_run_dir(r));
    return KW_OK;
}
