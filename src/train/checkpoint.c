/*
 * checkpoint.c - the complete state of a step. One generation is one folder, step-00001234, that appears whole: written
 * under another name, synced, read back, renamed; older ones go only then. "Newest" is the highest step that is intact.
 */
#include "run_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };

static char *folder(const kw_run *r, kw_arena *a) { return kw_path_join(a, r->dir, "checkpoints"); }

/* ---- saving ------------------------------------------------------------------------------------------------------ */

/* Every flat range (values, moments, average) under its name; padding included: it is zero and part of the state. */
static kw_status save_tensors(kw_run *r, kw_arena *a, const char *path, kw_err *e)
{
    kw_tensor t[8];
    const char *name;
    int n = 0, state;
    kw_updater *u = kw_trainer_updater(r->trainer);
    for (; kw_updater_state(u, n, &name, &state); n++) {
        const kw_stored *s = kw_store_at(kw_trainer_base(r->trainer)->store, state);
        t[n] = (kw_tensor){ .name = name, .dtype = s->dtype, .rank = 1, .shape = { kw_count(s->shape) },
                            .data = s->data, .bytes = (uint64_t)kw_count(s->shape) * kw_dtype_size(s->dtype) };
    }
    (void)a;
    return kw_tensors_save(path, t, (size_t)n, NULL, 0, e);
}

/* JSON has no NaN: a number that is not known yet is null. */
static json_t *number(double x) { return __builtin_isfinite(x) ? json_real(x) : json_null(); }

static json_t *manifest(const kw_run *r, const char *hash)
{
    json_t *identity = kw__run_identity(r);
    if (!identity)
        return NULL;
    return json_pack("{s:i, s:I, s:I, s:s, s:o, s:i, s:s, s:I, s:o, s:o, s:o, s:o, s:I}", "version", VERSION, "step",
                     (json_int_t)kw_trainer_steps(r->trainer), "trained",
                     (json_int_t)kw_trainer_trained(r->trainer)->count, "state_sha256", hash, "identity", identity,
                     "threads", kw_threads(), "isa", kw_kern_get()->isa, "steps", (json_int_t)r->steps, "average_loss",
                     number(r->average_loss), "base_validation", number(r->base_validation), "best", number(r->best),
                     "validation", number(r->validation), "best_step", (json_int_t)r->best_step);
}

static kw_status save_manifest(const kw_run *r, const char *path, const char *hash, kw_err *e)
{
    json_t *j = manifest(r, hash);
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(j);
    if (!text)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_status s = kw_file_write_atomic(path, text, strlen(text), e);
    free(text);
    return s;
}

static int64_t step_of(const char *name)
{
    char *end;
    if (strncmp(name, "step-", 5))
        return -1;
    long long n = strtoll(name + 5, &end, 10);
    return *end || end == name + 5 ? -1 : n;
}

/* Keep the newest few generations; names that are not ours are left alone. */
static kw_status drop_old(const kw_run *r, kw_arena *a, const char *dir, kw_err *e)
{
    char **names;
    size_t n;
    int kept = 0;
    KW_TRY(kw_dir_list(a, dir, &names, &n, e));
    for (size_t i = n; i-- > 0;) {
        if (step_of(names[i]) < 0 || ++kept <= KW_MAX(r->s.keep_states, 2))
            continue;
        KW_TRY(kw_remove_all(kw_path_join(a, dir, names[i]), e));
    }
    return KW_OK;
}

static kw_status save(kw_run *r, kw_arena *a, kw_err *e)
{
    char *dir = folder(r, a), *temp, hash[65];
    int64_t step = kw_trainer_steps(r->trainer);
    char *path = kw_sprintf(a, "%s/step-%08lld", dir, (long long)step);
    if (!dir || !path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (kw_is_dir(path))                               /* the same step was saved before: the same bits */
        return KW_OK;
    KW_TRY(kw_mkdirs(dir, e));
    KW_TRY(kw_temp_dir(a, dir, &temp, e));
    char *state = kw_path_join(a, temp, "state.safetensors"), *json = kw_path_join(a, temp, "manifest.json");
    if (!state || !json)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_status s = save_tensors(r, a, state, e);
    if (!s)
        s = kw_sha256_file(state, hash, e);
    if (!s)
        s = save_manifest(r, json, hash, e);
    if (!s)
        s = kw_temp_dir_commit(temp, path, e);
    if (s) {
        kw_status ignored = kw_remove_all(temp, NULL);         /* the first error counts */
        (void)ignored;
        return s;
    }
    return drop_old(r, a, dir, e);
}

kw_status kw__checkpoint_save(kw_run *r, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    kw_status s = a ? save(r, a, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_arena_free(a);
    return s;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static double real(const json_t *j, const char *name)
{
    const json_t *v = json_object_get(j, name);
    return json_is_number(v) ? json_number_value(v) : __builtin_nan("");
}

/* Of a later format nothing is believed; *other: it is not damaged, and older ones are not to be taken instead. */
static kw_status check_version(const char *path, const json_t *j, bool *other, kw_err *e)
{
    const json_t *v = json_object_get(j, "version");
    json_int_t version = json_integer_value(v);
    if (version == VERSION)
        return KW_OK;
    *other = version > VERSION;
    if (!*other)
        return kw_fail(e, KW_EDATA, N_("%s: is not a manifest of a checkpoint"), path);
    return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: is of version %lld, written by a newer kiwame; this one knows %d"),
                                path, (long long)version, VERSION), N_("resume it with the kiwame that wrote it"));
}

static kw_status check_manifest(const kw_run *r, const char *path, const json_t *j, char hash[65], kw_err *e)
{
    const char *sha = json_string_value(json_object_get(j, "state_sha256"));
    if (!sha || strlen(sha) != 64)
        return kw_fail(e, KW_EDATA, N_("%s: is not a manifest of a checkpoint"), path);
    memcpy(hash, sha, 65);
    if (json_integer_value(json_object_get(j, "trained")) != kw_trainer_trained(r->trainer)->count)
        return kw_fail(e, KW_EDATA, "%s: other layers are trained now than when it was written", path);
    return KW_OK;
}

static kw_status load_state(kw_run *r, kw_arena *a, const char *path, const char *want, kw_err *e)
{
    char hash[65];
    kw_tensors *t;
    const char *name;
    int state;
    kw_store *store = kw_trainer_base(r->trainer)->store;
    KW_TRY(kw_sha256_file(path, hash, e));
    if (strcmp(hash, want))
        return kw_fail(e, KW_EDATA, "%s: damaged (its checksum is not the manifest's)", path);
    KW_TRY(kw_tensors_open(a, path, &t, e));
    for (int i = 0; kw_updater_state(kw_trainer_updater(r->trainer), i, &name, &state); i++) {
        const kw_tensor *found = kw_tensors_find(t, name);
        const kw_stored *s = kw_store_at(store, state);
        if (!found || found->dtype != s->dtype || kw_tensor_count(found) != kw_count(s->shape))
            return kw_fail(e, KW_EDATA, "%s: %s is missing or of another size", path, name);
        memcpy(kw_store_write(store, state), found->data, (size_t)found->bytes);
    }
    return KW_OK;
}

/* *other: it is intact, but of another run than this one has become. */
static kw_status load_one(kw_run *r, kw_arena *a, const char *path, int64_t *step, bool *other, kw_err *e)
{
    json_t *j;
    char hash[65], *json = kw_path_join(a, path, "manifest.json"), *state = kw_path_join(a, path, "state.safetensors");
    if (!json || !state)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_json_read(a, json, &j, e));
    KW_TRY(check_version(json, j, other, e));
    kw_status same = kw__run_same(r, json_object_get(j, "identity"), e);
    *other = same;
    KW_TRY(same);
    KW_TRY(check_manifest(r, json, j, hash, e));
    KW_TRY(load_state(r, a, state, hash, e));
    *step = json_integer_value(json_object_get(j, "step"));
    r->average_loss = real(j, "average_loss");
    r->base_validation = real(j, "base_validation");
    r->validation = real(j, "validation");
    r->best = real(j, "best");
    r->best_step = json_integer_value(json_object_get(j, "best_step"));
    kw_trainer_set_steps(r->trainer, *step);
    kw_trained_changed((kw_trained *)(uintptr_t)kw_trainer_trained(r->trainer));
    return KW_OK;
}

/* The newest intact generation; a damaged one is named and passed over. All damaged: refused, never started anew. */
kw_status kw__checkpoint_load(kw_run *r, int64_t *step, kw_err *e)
{
    char **names, *dir = folder(r, r->arena);
    size_t n;
    bool any = false;
    kw_status last = KW_OK;
    kw_err local;
    e = e ? e : &local;                   /* what is passed over is told by it */
    *step = -1;
    if (!dir)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!kw_is_dir(dir))
        return KW_OK;
    KW_TRY(kw_dir_list(r->arena, dir, &names, &n, e));
    for (size_t i = n; i-- > 0;) {
        if (step_of(names[i]) < 0)
            continue;
        bool other = false;
        any = true;
        last = load_one(r, r->arena, kw_path_join(r->arena, dir, names[i]), step, &other, e);
        if (!last || other)
            return last;
        kw__run_note(r, kw_translate(N_("checkpoint passed over: %s")), e->what);
    }
    return any ? last : KW_OK;
}

/* From the recipe's comment. */
static kw_status machine_of_recipe(kw_arena *a, const char *dir, int *threads, const char **isa, kw_err *e)
{
    char *path = kw_path_join(a, dir, "recipe.toml"), *text, name[16];
    size_t n;
    if (!path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!kw_is_file(path) || kw_file_read(a, path, 1 << 20, &text, &n, NULL))
        return KW_OK;
    const char *line = strstr(text, "\n# threads ");
    if (!line || sscanf(line + 1, KW_RUN_MACHINE "%15s", threads, name) != 2)
        *threads = 0;
    else if (!(*isa = kw_strdup(a, name)))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    return KW_OK;
}

kw_status kw_run_recorded(kw_arena *a, const char *dir, int *threads, const char **isa, kw_err *e)
{
    char **names, *checkpoints = kw_path_join(a, dir, "checkpoints");
    size_t n;
    *threads = 0;
    *isa = NULL;
    if (!checkpoints)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(machine_of_recipe(a, dir, threads, isa, e));
    if (!kw_is_dir(checkpoints))
        return KW_OK;
    KW_TRY(kw_dir_list(a, checkpoints, &names, &n, e));
    for (size_t i = n, found = 0; i-- > 0 && !found;) {
        char *path = kw_sprintf(a, "%s/%s/manifest.json", checkpoints, names[i]);
        json_t *j;
        kw_err damaged;
        if (step_of(names[i]) < 0 || !path || !kw_is_file(path) || kw_json_read(a, path, &j, &damaged))
            continue;
        *threads = (int)json_integer_value(json_object_get(j, "threads"));
        *isa = json_string_value(json_object_get(j, "isa"));
        found = 1;
    }
    return KW_OK;
}
