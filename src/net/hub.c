/* hub.c - what a repository of Hugging Face holds, and which of its files a program needs. */
#include "net_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- the list: /api/models/REPO/revision/REV?blobs=true ---------------------------------------------------------- */

static kw_status odd_list(const kw_hub_repo *r, const char *why, kw_err *e)
{
    return kw_fail(e, KW_EDATA, N_("%s: the hub's list of its files is not one: %.200s"), r->name.repo, why);
}

/* { "rfilename": "unet/x.safetensors", "size": 123, "blobId": "<sha1>", "lfs": { "sha256": "...", "size": 123 } } */
static kw_status read_file(kw_arena *a, const kw_hub_repo *r, json_t *j, kw_hub_file *f, kw_err *e)
{
    const char *path = json_string_value(json_object_get(j, "rfilename"));
    json_t *lfs = json_object_get(j, "lfs"), *size = json_object_get(json_is_object(lfs) ? lfs : j, "size");
    const char *sha256 = json_string_value(json_object_get(lfs, "sha256"));
    const char *blob = json_string_value(json_object_get(j, "blobId"));
    if (!path || !kw_path_safe(path)) {
        kw_status s = kw_fail(e, KW_EDATA, N_("%s: its list names a file outside of it: \"%.100s\""), r->name.repo,
                              path ? path : "");
        return kw_advise(e, s, N_("such a repository or mirror is not to be trusted; nothing was downloaded"));
    }
    f->large = json_is_object(lfs);
    const char *etag = f->large ? sha256 : blob;
    if (!etag || !kw__hex(etag, f->large ? 64 : 40))
        return odd_list(r, path, e);
    if (!json_is_integer(size) || json_integer_value(size) < 0 || json_integer_value(size) > INT64_MAX / 2)
        return odd_list(r, path, e);
    f->size = (uint64_t)json_integer_value(size);
    f->path = kw_strdup(a, path);
    f->etag = kw_strdup(a, etag);
    return f->path && f->etag ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* cardData.license; else the tag "license:..." */
static const char *licence_of(json_t *j)
{
    json_t *tag;
    size_t i;
    const char *said = json_string_value(json_object_get(json_object_get(j, "cardData"), "license"));
    json_array_foreach(json_object_get(j, "tags"), i, tag)
        if (!said && json_is_string(tag) && kw_starts_with(json_string_value(tag), "license:"))
            said = json_string_value(tag) + strlen("license:");
    return said;
}

static kw_status read_list(kw_arena *a, json_t *j, kw_hub_repo *r, kw_err *e)
{
    enum { MOST = 20000 };
    json_t *list = json_object_get(j, "siblings"), *one;
    const char *commit = json_string_value(json_object_get(j, "sha")), *licence = licence_of(j);
    const char *gated = json_string_value(json_object_get(j, "gated"));
    size_t i;
    if (!commit || !kw__hex(commit, 40))
        return odd_list(r, "sha", e);
    if (!json_is_array(list) || json_array_size(list) > MOST)
        return odd_list(r, "siblings", e);
    r->commit = kw_strdup(a, commit);
    r->licence = licence ? kw_strdup(a, licence) : NULL;
    r->gated = gated ? kw_strdup(a, gated) : NULL;
    r->file = kw_alloc_array(a, json_array_size(list) + 1, sizeof *r->file);
    if (!r->commit || !r->file)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    json_array_foreach(list, i, one)
        KW_TRY(read_file(a, r, one, &r->file[r->n++], e));
    return KW_OK;
}

kw_status kw_hub_open(kw_web *n, kw_arena *a, const kw_hub_name *name, kw_hub_repo **out, kw_err *e)
{
    kw_hub_repo *r = kw_alloc(a, sizeof *r);
    char *revision = kw_url_encode(a, name->revision, "");
    char *url = revision ? kw_sprintf(a, "%s/api/models/%s/revision/%s?blobs=true", n->hub, name->repo, revision)
        : NULL;
    json_t *j;
    if (!r || !url)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    r->name = *name;
    if (n->offline)
        return kw__offline(e, name->repo);
    KW_TRY(kw__ask_json(n, a, KW__HUB, name->repo, url, &j, e));
    *out = r;
    return read_list(a, j, r, e);
}

/* ---- the choice -------------------------------------------------------------------------------------------------- */

static const char *const weights[] = { ".safetensors", ".ckpt", ".bin", ".pt", ".pth" };        /* best first */

static int weight_kind(const char *path)          /* place in the list above; -1: no weights */
{
    for (size_t i = 0; i < KW_LEN(weights); i++)
        if (kw_ends_with(path, weights[i]))
            return (int)i;
    return -1;
}

static bool in_folder(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    return !strncmp(path, folder, n) && path[n] == '/' && !strchr(path + n + 1, '/');
}

static kw_hub_file *find(kw_hub_repo *r, const char *path)
{
    for (size_t i = 0; i < r->n; i++)
        if (!strcmp(r->file[i].path, path))
            return &r->file[i];
    return NULL;
}

/* "diffusion_pytorch_model.fp16-00001-of-00002.safetensors": has the name the variant as a component of its own? */
static bool has_variant(const char *path, const char *variant)
{
    const char *name = kw_path_name(path);
    size_t n = strlen(variant);
    for (const char *p = name; (p = strchr(p, '.')); p++)
        if (!strncmp(p + 1, variant, n) && (p[n + 1] == '.' || p[n + 1] == '-'))
            return true;
    return false;
}

static bool has_any_variant(const char *path)
{
    static const char *const known[] = { "fp16", "bf16", "fp32", "non_ema", "ema", "fp8", "openvino", "onnx" };
    for (size_t i = 0; i < KW_LEN(known); i++)
        if (has_variant(path, known[i]))
            return true;
    return false;
}

/* Files of other frameworks that lie among diffusers' and transformers' own. */
static bool is_ours(const char *path)
{
    static const char *const heads[] = { "diffusion_pytorch_model", "pytorch_model", "model" };
    const char *name = kw_path_name(path);
    for (size_t i = 0; i < KW_LEN(heads); i++)
        if (kw_starts_with(name, heads[i]) && !kw_starts_with(name, "model.onnx"))
            return true;
    return false;
}

/* The weights of one part in one kind and variant ("": none); does it mark anything? */
static bool mark_weights(kw_hub_repo *r, const char *folder, int kind, const char *variant, bool mark)
{
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        const char *path = r->file[i].path;
        bool index = kw_ends_with(path, ".index.json") || strstr(path, ".index.") != NULL;
        bool inside = folder ? in_folder(path, folder) : !strchr(path, '/');
        bool right = index ? strstr(path, weights[kind]) && kw_ends_with(path, ".json") : weight_kind(path) == kind;
        bool fits = *variant ? has_variant(path, variant) : !has_any_variant(path);
        if (!inside || !is_ours(path) || !right || !fits)
            continue;
        any |= !index;
        r->file[i].wanted |= mark;
    }
    return any;
}

static const char *const model_parts[] = { "unet", "vae", "text_encoder", "text_encoder_2" };
static const char *const small_parts[] = { "scheduler", "tokenizer", "tokenizer_2", "feature_extractor" };

static int best_kind(kw_hub_repo *r, const char *folder, const char *variant)
{
    for (int k = 0; k < (int)KW_LEN(weights); k++)
        if (mark_weights(r, folder, k, variant, false))
            return k;
    return -1;
}

/* Has every part that has weights at all weights in half precision? A mixture would be neither. */
static bool complete(kw_hub_repo *r, const char *variant)
{
    for (size_t i = 0; i < KW_LEN(model_parts); i++)
        if (best_kind(r, model_parts[i], "") >= 0 && best_kind(r, model_parts[i], variant) < 0)
            return false;
    return best_kind(r, "unet", variant) >= 0;
}

static bool is_small_text(const char *path)
{
    return kw_ends_with(path, ".json") || kw_ends_with(path, ".txt") || kw_ends_with(path, ".model");
}

/* The hub's tokenizers, schedulers and configurations; what says who made it and on which terms. */
static void mark_small(kw_hub_repo *r)
{
    for (size_t i = 0; i < r->n; i++) {
        kw_hub_file *f = &r->file[i];
        const char *name = kw_path_name(f->path);
        for (size_t k = 0; k < KW_LEN(small_parts); k++)
            f->wanted |= in_folder(f->path, small_parts[k]) && is_small_text(name) && f->size < 64 << 20;
        for (size_t k = 0; k < KW_LEN(model_parts); k++)
            f->wanted |= in_folder(f->path, model_parts[k]) && !strcmp(name, "config.json");
        bool root = !strchr(f->path, '/');
        f->wanted |= root && (!strcmp(name, "model_index.json") || !strcmp(name, "README.md")
                              || kw_starts_with(name, "LICENSE"));
    }
}

static kw_status pick_folder(kw_hub_repo *r, const kw_hub_want *want, kw_err *e)
{
    bool half = want->variant == KW_VARIANT_FP16 || (want->variant == KW_VARIANT_AUTO && complete(r, "fp16"));
    if (want->variant == KW_VARIANT_FP16 && !complete(r, "fp16"))
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: has no fp16 variant of all its parts"), r->name.repo),
                         N_("leave out --variant fp16"));
    mark_small(r);
    for (size_t i = 0; i < KW_LEN(model_parts); i++) {
        const char *folder = model_parts[i], *variant = half ? "fp16" : "";
        int kind = best_kind(r, folder, variant);
        if (kind < 0)                     /* published without the plain one: whatever there is */
            kind = best_kind(r, folder, variant = half ? "" : "fp16");
        if (kind >= 0)
            mark_weights(r, folder, kind, variant, true);
    }
    r->chosen = half ? N_("diffusers folder, fp16") : N_("diffusers folder");
    return KW_OK;
}

static kw_status several(const kw_hub_repo *r, kw_err *e)
{
    char list[400] = "", size[32];
    size_t n = 0, left = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (weight_kind(r->file[i].path) < 0 || strchr(r->file[i].path, '/'))
            continue;
        kw_size_text((double)r->file[i].size, size);
        if (n + strlen(r->file[i].path) + 48 < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s (%s)", n ? ", " : "", r->file[i].path, size);
        else
            left++;
    }
    if (left)
        snprintf(list + n, sizeof list - n, ", +%zu", left);
    if (!n)
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: holds no model that is known here"), r->name.repo),
                         N_("all of it: --all; one file: hf:%s:FILE"), r->name.repo);
    return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: holds several models: %s"), r->name.repo, list),
                     N_("name one: hf:%s:FILE"), r->name.repo);
}

/* No folder of diffusers: the one model file, or a part (config.json beside diffusion_pytorch_model), or a LoRA. */
static kw_status pick_file(kw_hub_repo *r, const kw_hub_want *want, kw_err *e)
{
    kw_hub_file *only = find(r, "pytorch_lora_weights.safetensors"), *config = find(r, "config.json");
    size_t n = only ? 1 : 0;
    bool part = config && !only && best_kind(r, NULL, "") >= 0;
    for (int kind = 0; !n && !part && kind < (int)KW_LEN(weights); kind++)        /* safetensors, else checkpoints */
        for (size_t i = 0; i < r->n; i++)
            if (weight_kind(r->file[i].path) == kind && !strchr(r->file[i].path, '/')) {
                only = &r->file[i];
                n++;
            }
    if (part) {
        bool half = want->variant == KW_VARIANT_FP16 && best_kind(r, NULL, "fp16") >= 0;
        config->wanted = true;
        mark_weights(r, NULL, best_kind(r, NULL, half ? "fp16" : ""), half ? "fp16" : "", true);
        r->chosen = N_("one part of a model");
        return KW_OK;
    }
    if (n != 1)
        return several(r, e);
    only->wanted = true;
    r->main = only->path;
    r->chosen = N_("one file");
    return KW_OK;
}

static kw_status pick_named(kw_hub_repo *r, kw_err *e)
{
    kw_nearest near = { .word = r->name.file };
    kw_hub_file *f = find(r, r->name.file);
    for (size_t i = 0; i < r->n && !f; i++)
        kw_nearest_try(&near, r->file[i].path);
    if (f) {
        f->wanted = true;
        r->main = f->path;
        r->chosen = N_("one file");
        return KW_OK;
    }
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: holds no file %s"), r->name.repo, r->name.file);
    return near.best ? kw_advise(e, s, N_("did you mean '%s'?"), near.best) : s;
}

kw_status kw_hub_pick(kw_arena *a, kw_hub_repo *r, const kw_hub_want *want, kw_err *e)
{
    (void)a;
    for (size_t i = 0; i < r->n; i++)
        r->file[i].wanted = want->all && !r->name.file;
    if (r->name.file)
        return pick_named(r, e);
    if (want->all) {
        r->chosen = N_("all files");
        return KW_OK;
    }
    return find(r, "model_index.json") ? pick_folder(r, want, e) : pick_file(r, want, e);
}

uint64_t kw_hub_bytes(const kw_hub_repo *r, bool missing)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < r->n; i++)
        if (r->file[i].wanted && !(missing && r->file[i].there) && !kw_add_size(sum, r->file[i].size, &sum))
            return UINT64_MAX;
    return sum;
}
