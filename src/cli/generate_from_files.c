/* generate_from_files.c - --from: the model a picture was made with, and hashes of all its files. */
#include "generate.h"

#include <string.h>

typedef struct { kw_cli *cli; kw_generate_config *c; kw_from *f; size_t capacity; kw_err *e; } reader;

static const char *get(const reader *r, const char *key) { return kw_infotext_get(&r->f->text, key); }

/* ---- files with hashes ------------------------------------------------------------------------------------------ */

static kw_status want(reader *r, const char *kind, const char *name, const char *hash)
{
    if (!name || !hash || strspn(hash, "0123456789abcdefABCDEF") != strlen(hash) || strlen(hash) < 10)
        return KW_OK;
    KW_TRY(kw_grow(r->cli->arena, &r->f->wanted, &r->capacity, r->f->n, sizeof *r->f->wanted, r->e));
    r->f->wanted[r->f->n++] = (kw_wanted){ kw_strdup(r->cli->arena, name), kind, kw_strdup(r->cli->arena, hash) };
    return KW_OK;
}

/* "name: 0123456789ab, name2: ..." */
static kw_status lora_hashes(reader *r)
{
    const char *list = get(r, "Lora hashes");
    char *at = list ? kw_strdup(r->cli->arena, list) : NULL;
    while (at && *at) {
        char *next = strchr(at, ','), *colon;
        if (next)
            *next++ = 0;
        at += strspn(at, " ");
        if ((colon = strrchr(at, ':'))) {
            *colon = 0;
            KW_TRY(want(r, "lora", at, colon + 1 + strspn(colon + 1, " ")));
        }
        at = next;
    }
    return KW_OK;
}

/* {"model": "0123456789", "lora:name": "...", "vae": "..."} */
static kw_status civitai_hashes(reader *r)
{
    const char *text = get(r, "Hashes"), *key;
    json_t *all = text ? json_loads(text, 0, NULL) : NULL, *value;
    kw_status s = KW_OK;
    json_object_foreach(all, key, value) {
        const char *hash = json_string_value(value);
        if (!s && hash && !strcmp(key, "model"))
            s = want(r, "model", "", hash);
        else if (!s && hash && !strcmp(key, "vae"))
            s = want(r, "vae", "", hash);
        else if (!s && hash && kw_starts_with(key, "lora:"))
            s = want(r, "lora", key + 5, hash);
    }
    json_decref(all);
    return s;
}

static kw_status read_hashes(reader *r)
{
    KW_TRY(want(r, "model", "", get(r, "Model hash")));
    KW_TRY(want(r, "model", "", get(r, "Parts hash")));
    KW_TRY(want(r, "vae", "", get(r, "VAE hash")));
    KW_TRY(lora_hashes(r));
    return civitai_hashes(r);
}

static bool same_hash(const char *a, const char *b)
{
    size_t n = KW_MIN(strlen(a), strlen(b));
    return n >= 8 && !strncasecmp(a, b, n);
}

void kw_from_compare(const kw_cli *cli, const kw_from *f, const char *kind, const char *name, const char *found,
                     const char *other)
{
    const char *wanted = NULL;
    for (size_t i = 0; found && i < f->n; i++) {
        const kw_wanted *w = &f->wanted[i];
        if (strcmp(w->kind, kind))
            continue;
        if (same_hash(w->hash, found) || (other && same_hash(w->hash, other)))
            return;
        if (!*w->name || !strcmp(w->name, name))
            wanted = w->hash;
    }
    if (wanted && !cli->global.quiet) {
        fprintf(stderr, _(N_("%s: another file than the picture was made with (%.10s instead of %.10s)")), name, found,
                wanted);
        fputc('\n', stderr);
    }
}

/* ---- the model -------------------------------------------------------------------------------------------------- */

static bool is_model(const char *path)
{
    return kw_ends_with(path, ".safetensors") || kw_ends_with(path, ".ckpt") || kw_is_dir(path);
}

/* By name, else by hash; NULL: it is not there. */
static kw_status find_model(reader *r, const char *name, const char *hash, const char **out)
{
    static const char *const endings[] = { ".safetensors", ".ckpt", "" };
    kw_arena *a = r->cli->arena;
    char **names;
    size_t n;
    *out = NULL;
    for (size_t i = 0; name && !strchr(name, '/') && i < KW_LEN(endings); i++) {
        const char *path = kw_sprintf(a, "%s/%s%s", r->c->model_dir, name, endings[i]);
        if (path && (kw_is_file(path) || kw_is_dir(path))) {
            *out = path;
            return KW_OK;
        }
    }
    KW_TRY(kw_dir_list(a, r->c->model_dir, &names, &n, r->e));
    for (size_t i = 0; hash && i < n && !*out; i++) {
        char sha[65];
        const char *path = kw_path_join(a, r->c->model_dir, names[i]);
        if (path && is_model(path) && kw_is_file(path) && !kw_sha256_file(path, sha, NULL) && same_hash(sha, hash))
            *out = path;
    }
    return KW_OK;
}

static kw_status choose_model(reader *r)
{
    const char *name = get(r, "Model"), *hash = get(r, "Model hash"), *found = NULL;
    const char *parts = get(r, "Parts hash"), *own = kw_embedded_base(r->cli->arena);
    if (r->c->base || (!name && !hash))
        return KW_OK;
    if (r->c->model_dir)
        KW_TRY(find_model(r, name, hash, &found));
    if (!found && own && name && !hash && !strcmp(kw_path_name(own), name))
        return KW_OK;
    if (!found) {
        kw_status s = kw_fail(r->e, KW_EDATA, N_("%s was made with the model %s (%s), which is not at hand"),
                              r->f->path, name ? name : "?", hash ? hash : parts ? parts : "?");
        return kw_advise(r->e, s, r->c->model_dir ? N_("name it, or another one, with --base")
                                                  : N_("name it with --base, or its folder with --model-dir"));
    }
    return kw_options_set(r->cli->options, "base", found, KW_FROM_RECIPE, "--base", r->e);
}

/* Another autoencoder than the model's own; without it the picture is another one, and that is said. */
static kw_status choose_vae(reader *r, const char **missing)
{
    const char *name = get(r, "VAE"), *found = NULL;
    if (!name || r->c->vae)
        return KW_OK;
    if (r->c->model_dir)
        KW_TRY(find_model(r, name, get(r, "VAE hash"), &found));
    if (!found)
        *missing = name;
    return found ? kw_options_set(r->cli->options, "vae", found, KW_FROM_RECIPE, "--vae", r->e) : KW_OK;
}

kw_status kw_from_files(kw_cli *cli, kw_generate_config *c, kw_from *f, const char **missing_vae, kw_err *e)
{
    reader r = { .cli = cli, .c = c, .f = f, .e = e };
    KW_TRY(read_hashes(&r));
    KW_TRY(choose_vae(&r, missing_vae));
    return choose_model(&r);
}
