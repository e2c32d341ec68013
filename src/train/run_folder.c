/* run_folder.c - a run's name and its folder: refused before anything is read, taken for this process, or finished. */
#include "run_internal.h"

#include <string.h>

/* The name of the result, as a file and in <lora:...>: as given, else from trigger word or folder, spelt plainly. */
kw_status kw__run_settle_name(kw_run *r, kw_err *e)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    if (!r->s.name) {
        const char *from = r->s.trigger && strpbrk(r->s.trigger, letters) ? r->s.trigger
                         : r->s.trigger && *r->s.trigger ? kw_path_name(r->s.data) : r->tc.lora ? "lora" : "model";
        r->title = r->s.trigger && *r->s.trigger ? r->s.trigger : NULL;
        r->s.name = kw_name_plain(r->arena, from);
        return r->s.name ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    }
    bool good = r->s.name[0] && r->s.name[0] != '.' && !strpbrk(r->s.name, "/\\:<>");
    for (const char *c = r->s.name; *c; c++)
        good &= (unsigned char)*c >= 0x20 && *c != 0x7f;
    return good ? KW_OK
                : kw_fail(e, KW_EUSAGE, N_("--name: '%s' cannot be a file's name and stand in <lora:...>"), r->s.name);
}

/* ---- the folder -------------------------------------------------------------------------------------------------- */

/* A run that is there is not begun anew. */
static kw_status refuse_old(const kw_run *r, kw_err *e)
{
    char *recipe = kw_path_join(r->arena, r->dir, "recipe.toml");
    if (!recipe)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!r->hooks.recipe || !kw_is_file(recipe))
        return KW_OK;
    kw_status s = kw_fail(e, KW_EUSAGE, N_("%s holds a run already"), r->dir);
    return kw_advise(e, s, N_("go on with it: kiwame resume %s; or choose another --out"), r->dir);
}

kw_status kw__run_check_folder(const kw_run *r, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    char *lock = a ? kw_path_join(a, r->dir, ".lock") : NULL;
    kw_status s = lock ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s && kw_is_file(lock))
        s = kw_lock_dir(a, r->dir, e);    /* another process has it: says so. It goes with the arena. */
    kw_arena_free(a);
    KW_TRY(s);
    KW_TRY(refuse_old(r, e));
    return kw_can_write(r->dir, e);
}

/* For this process alone from now on: what dead ones left goes, and a new run says what it is. */
kw_status kw__run_take_folder(kw_run *r, kw_err *e)
{
    static const char *const inner[] = { "", "checkpoints", "samples" };
    KW_TRY(kw_mkdirs(r->dir, e));
    KW_TRY(kw_lock_dir(r->arena, r->dir, e));
    KW_TRY(refuse_old(r, e));
    for (size_t i = 0; i < KW_LEN(inner); i++) {
        char *dir = *inner[i] ? kw_path_join(r->arena, r->dir, inner[i]) : kw_strdup(r->arena, r->dir);
        if (dir && kw_is_dir(dir))
            KW_TRY(kw_remove_stale(dir, NULL, e));
    }
    char *recipe = kw_path_join(r->arena, r->dir, "recipe.toml");
    if (!recipe)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    return r->hooks.recipe ? kw_file_write_atomic(recipe, r->hooks.recipe, strlen(r->hooks.recipe), e) : KW_OK;
}

/* ---- what the log says ------------------------------------------------------------------------------------------- */

/* The log says that this run was finished, at the step that is asked for now. */
bool kw__run_is_finished(const kw_run *r)
{
    kw_event *v;
    size_t n;
    kw_arena *a = kw_arena_new();
    bool done = false;
    if (a && !kw_events_read(a, r->dir, &v, &n, NULL, NULL) && n) {
        const kw_event *last = &v[n - 1];
        done = last->kind == KW_EVENT_END && last->step == r->steps && last->level && !strcmp(last->level, "finished");
    }
    kw_arena_free(a);
    return done;
}

/* Was there a step? Without a checkpoint it is lost. */
bool kw__run_had_steps(const kw_run *r)
{
    kw_event *v;
    size_t n;
    bool any = false;
    kw_arena *a = kw_arena_new();
    if (a && !kw_events_read(a, r->dir, &v, &n, NULL, NULL))
        for (size_t i = 0; i < n; i++)
            any |= v[i].step > 0;
    kw_arena_free(a);
    return any;
}
