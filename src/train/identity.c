/*
 * identity.c - what the bits of a run depend on: its settings, its pictures and captions, its base. Each checkpoint
 * keeps it, and a run is resumed only with the same: else the message says what differs.
 */
#include "run_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where things lie, how often something is written or shown: no step becomes another one by it. */
static bool is_harmless(const char *name)
{
    static const char *const list[] = {
        "data", "base", "vae", "init", "held-out", "out", "name", "cache", "memory", "vae-tile", "preset", "metadata", "save-dtype",
        "save-every-steps", "save-every-epochs", "checkpoint-every", "keep-checkpoints", "validate-every",
        "sample-every-steps", "sample-every-epochs", "sample-prompt", "sample-sampling-steps", "sample-cfg", "steps",
        "epochs",
    };
    for (size_t i = 0; i < KW_LEN(list); i++)
        if (!strcmp(name, list[i]))
            return true;
    return false;
}

/* Every option by its name, but the harmless ones; as the recipe spells them. */
static json_t *settings_of(const kw_run *r)
{
    kw_settings copy = { 0 };
    kw_str text = { 0 };
    kw_arena *a = kw_arena_new();
    kw_options *o = a ? kw_options_new(a) : NULL;
    json_t *all = NULL;
    if (o && !kw_options_add(o, kw_run_rows, &copy, NULL, NULL)
        && !kw_options_add(o, kw_model_rows, &copy, NULL, NULL)) {
        copy = r->s;                      /* after the defaults, which adding the rows has set */
        if (!kw_options_write_json(o, &text, NULL))
            all = json_loads(text.s, 0, NULL);
    }
    const char *name;
    json_t *value;
    void *next;
    json_object_foreach_safe(all, next, name, value)
        if (is_harmless(name))
            json_object_del(all, name);
    kw_str_free(&text);
    kw_arena_free(a);
    return all;
}

/* More steps are a longer run, not another one, as long as the rate does not depend on their number. */
static int64_t length_of(const kw_run *r) { return r->tc.schedule.kind == KW_RATE_CONSTANT ? 0 : r->steps; }

json_t *kw__run_identity(const kw_run *r)
{
    char data[65] = "";
    json_t *settings = settings_of(r);
    if (!settings || kw_data_fingerprint(r->data, data, NULL)) {
        json_decref(settings);
        return NULL;
    }
    return json_pack("{s:o, s:s, s:s, s:s, s:I}", "settings", settings, "data", data, "base", r->base_hash, "vae",
                     r->vae_hash, "length", (json_int_t)length_of(r));
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static void add(kw_str *list, const char *text) { kw_str_printf(list, "%s%s", list->n ? "; " : "", text); }

static void add_change(kw_str *list, const char *name, const json_t *was, const json_t *is)
{
    char *from = json_dumps(was, JSON_ENCODE_ANY), *to = json_dumps(is, JSON_ENCODE_ANY);
    kw_str_printf(list, "%s%s: %s → %s", list->n ? "; " : "", name, from ? from : "?", to ? to : "?");
    free(from);
    free(to);
}

static bool differs(const json_t *was, const json_t *is, const char *key)
{
    const json_t *w = json_object_get(was, key);
    return w && !json_equal(w, json_object_get(is, key));
}

static void compare(const json_t *was, const json_t *is, kw_str *list)
{
    const char *name;
    json_t *value;
    json_t *before = json_object_get(was, "settings"), *now = json_object_get(is, "settings");
    json_object_foreach(before, name, value)
        if (json_object_get(now, name) && !json_equal(value, json_object_get(now, name)))
            add_change(list, name, value, json_object_get(now, name));
    if (differs(was, is, "length"))
        add_change(list, "steps", json_object_get(was, "length"), json_object_get(is, "length"));
    if (differs(was, is, "data"))
        add(list, kw_translate(N_("the pictures, their captions or which are held out")));
    if (differs(was, is, "base"))
        add(list, kw_translate(N_("the base model")));
    if (differs(was, is, "vae") && !differs(was, is, "base"))
        add(list, kw_translate(N_("the autoencoder")));
}

kw_status kw__run_same(kw_run *r, const json_t *was, kw_err *e)
{
    kw_str list = { 0 };
    kw_status s = KW_OK;
    json_t *is = json_is_object(was) ? kw__run_identity(r) : NULL;
    if (!json_is_object(was))
        return KW_OK;                     /* of a version that did not keep it */
    if (!is)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    compare(was, is, &list);
    if (list.n && r->hooks.accept_changes)
        kw__run_note(r, kw_translate(N_("changed since the run was stopped: %s")), list.s);
    else if (list.n) {
        s = kw_fail(e, KW_EUSAGE, N_("changed since the run was stopped, so its bits would be others: %s"), list.s);
        s = kw_advise(e, s, N_("change it back, or take it as it is: kiwame resume %s --accept-changes"), r->dir);
    }
    kw_str_free(&list);
    json_decref(is);
    return s;
}
