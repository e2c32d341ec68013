/* source_folder.c - a model as a diffusers folder, whole or in part. */
#include "source_internal.h"

#include <stdio.h>
#include <string.h>

/*  config.json says  |  the part  */
static const struct { const char *class_name; kw_part part; } classes[] = {
    { "UNet2DConditionModel", KW_PART_UNET },
    { "AutoencoderKL", KW_PART_VAE },
    { "CLIPTextModel", KW_PART_TEXT },
    { "CLIPTextModelWithProjection", KW_PART_TEXT },
    { "CLIPModel", KW_PART_TEXT },
};

/* Which of a folder's files holds the weights: the first form that is there. %s: diffusion_pytorch_model, or model
 * (pytorch_model in pickles). Files without programs in them come first. */
static const char *const forms[] = {
    "%s.safetensors", "%s.safetensors.index.json", "%s.fp16.safetensors", "%s.safetensors.index.fp16.json",
    "%s.fp16.safetensors.index.json", "%s.bf16.safetensors", "%s.fp32.safetensors", "%s.non_ema.safetensors",
    "%s.bin", "%s.bin.index.json", "%s.fp16.bin", "%s.bin.index.fp16.json", "%s.fp16.bin.index.json",
    "%s.non_ema.bin",
};

static bool is_checkpoint(const char *name)
{
    static const char *const ends[] = { ".safetensors", ".ckpt", ".bin", ".pt", ".pth" };
    for (size_t i = 0; i < KW_LEN(ends); i++)
        if (kw_ends_with(name, ends[i]))
            return true;
    return false;
}

/* Or else the only .safetensors file in it, or the only one of PyTorch's. */
static kw_status only_file(kw_source *s, const char *dir, char **path, kw_err *e)
{
    char **names;
    size_t n;
    const char *only[2] = { NULL };
    int found[2] = { 0 };
    KW_TRY(kw_dir_list(s->arena, dir, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        int kind = !kw_ends_with(names[i], ".safetensors");
        if (!is_checkpoint(names[i]) || *names[i] == '.')
            continue;
        only[kind] = names[i];
        found[kind]++;
    }
    int kind = !found[0];
    *path = found[kind] == 1 ? kw_path_join(s->arena, dir, only[kind]) : NULL;
    return KW_OK;
}

static kw_status find_weights(kw_source *s, const char *dir, kw_part p, char **path, kw_err *e)
{
    bool text = p == KW_PART_TEXT || p == KW_PART_TEXT2;
    for (size_t i = 0; i < KW_LEN(forms); i++) {
        const char *at = strstr(forms[i], "%s") + 2;
        const char *stem = !text ? "diffusion_pytorch_model" : strstr(at, ".bin") ? "pytorch_model" : "model";
        *path = kw_sprintf(s->arena, "%s/%s%s", dir, stem, at);
        if (!*path)
            return kw__no_memory(e, dir);
        if (kw_is_file(*path))
            return KW_OK;
    }
    return only_file(s, dir, path, e);
}

/* The class config.json names, or NULL. */
static const char *class_of(json_t *config)
{
    const char *name = json_string_value(json_object_get(config, "_class_name"));
    return name ? name : json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
}

static kw_status read_config(kw_source *s, const char *dir, json_t **config, kw_err *e)
{
    char *path = kw_path_join(s->arena, dir, "config.json");
    *config = NULL;
    if (!path)
        return kw__no_memory(e, dir);
    if (!kw_is_file(path))
        return KW_OK;
    KW_TRY(kw_json_read(s->arena, path, config, e));
    return json_is_object(*config) ? KW_OK : kw_fail(e, KW_EDATA, N_("%s: is not a configuration"), path);
}

static kw_status wrong_class(const char *dir, const char *name, kw_err *e)
{
    char shown[96];
    return kw_fail(e, KW_EDATA, N_("%s: recognised %s, which is not supported"), dir, kw__shown(name, shown));
}

static kw_status check_class(const char *dir, json_t *config, kw_part p, kw_err *e)
{
    const char *name = class_of(config);
    if (!name)
        return KW_OK;
    for (size_t i = 0; i < KW_LEN(classes); i++)
        if (!strcmp(name, classes[i].class_name)
            && (classes[i].part == p || (classes[i].part == KW_PART_TEXT && p == KW_PART_TEXT2)))
            return KW_OK;
    return wrong_class(dir, name, e);
}

/* Old VAE names and CLIP's two spellings are translated; the U-Net's names are diffusers' own. */
static kw_status take_weights(kw_source *s, kw_part p, const char *path, kw_err *e)
{
    static const int keys[] = { KW__CANONICAL, KW_KEYS_OLD_VAE, KW_KEYS_TEXT, KW_KEYS_TEXT };
    const kw_key_shape shape = { 0 };
    kw_tensors *t;
    KW_TRY(kw__tensors_open(s->arena, path, true, &t, e));
    if (t->note)
        KW_TRY(kw__note(s, e, "%s: %s", kw_part_name(p), t->note));
    KW_TRY(kw__names_clean(s, t, e));
    return kw__part_take(s, p, keys[p], &shape, "", t, e);
}

static kw_status open_part(kw_source *s, kw_part p, const char *dir, json_t *config, kw_err *e)
{
    char *path;
    KW_TRY(check_class(dir, config, p, e));
    json_t *text = json_object_get(config, "text_config");        /* a whole CLIP: its text half */
    s->parts[p].config = json_is_object(text) ? text : config;
    KW_TRY(find_weights(s, dir, p, &path, e));
    if (path)
        return take_weights(s, p, path, e);
    return config ? kw__note(s, e, N_("%s: has a configuration but no weights"), dir) : KW_OK;
}

static kw_status open_parts(kw_source *s, kw_err *e)
{
    for (int p = 0; p < KW_N_PARTS; p++) {
        char *dir = kw_path_join(s->arena, s->path, kw_part_name((kw_part)p));
        char *tokenizer = kw_path_join(s->arena, s->path, p == KW_PART_TEXT2 ? "tokenizer_2" : "tokenizer");
        json_t *config;
        if (!dir || !tokenizer)
            return kw__no_memory(e, s->path);
        if (!kw_is_dir(dir))
            continue;
        KW_TRY(read_config(s, dir, &config, e));
        KW_TRY(open_part(s, (kw_part)p, dir, config, e));
        if ((p == KW_PART_TEXT || p == KW_PART_TEXT2) && kw_is_dir(tokenizer))
            s->parts[p].tokenizer = tokenizer;
    }
    return KW_OK;
}

/* The folder of one part, named by its config.json. Its tokenizer may lie beside it or in it. */
static kw_status open_lone_part(kw_source *s, json_t *config, kw_err *e)
{
    const char *name = class_of(config), *type = json_string_value(json_object_get(config, "model_type"));
    kw_part p = KW_N_PARTS;
    for (size_t i = 0; name && i < KW_LEN(classes); i++)
        if (!strcmp(name, classes[i].class_name))
            p = classes[i].part;
    if (!name && type && kw_starts_with(type, "clip"))
        p = KW_PART_TEXT;
    if (p == KW_N_PARTS)
        return wrong_class(s->path, name ? name : type ? type : "config.json", e);
    KW_TRY(open_part(s, p, s->path, config, e));
    if (p != KW_PART_TEXT)
        return KW_OK;
    char *inside = kw_path_join(s->arena, s->path, "vocab.json");
    char *parent = kw_path_dir(s->arena, s->path);
    char *beside = parent ? kw_path_join(s->arena, parent, "tokenizer") : NULL;
    if (!inside || !beside)
        return kw__no_memory(e, s->path);
    s->parts[p].tokenizer = kw_is_file(inside) ? s->path : kw_is_dir(beside) ? beside : NULL;
    return KW_OK;
}

static kw_status read_scheduler(kw_source *s, kw_err *e)
{
    static const char *const names[] = { "scheduler/scheduler_config.json", "scheduler_config.json",
                                         "../scheduler/scheduler_config.json" };
    for (size_t i = 0; i < KW_LEN(names) && !s->scheduler; i++) {
        char *path = kw_path_join(s->arena, s->path, names[i]);
        if (!path)
            return kw__no_memory(e, s->path);
        if (kw_is_file(path))
            KW_TRY(kw_json_read(s->arena, path, &s->scheduler, e));
    }
    return KW_OK;
}

/* model_index.json of another family: say which, before complaining that there is no U-Net. */
static kw_status check_family(kw_source *s, kw_err *e)
{
    char *path = kw_path_join(s->arena, s->path, "model_index.json"), *unet = kw_path_join(s->arena, s->path, "unet");
    json_t *index;
    if (!path || !unet)
        return kw__no_memory(e, s->path);
    if (!kw_is_file(path))
        return KW_OK;
    if (kw_is_dir(unet)) {                /* then its parts say what it is; the index may be broken */
        s->switches = kw_json_read(s->arena, path, &index, NULL) ? NULL : index;
        return KW_OK;
    }
    KW_TRY(kw_json_read(s->arena, path, &index, e));
    const char *name = class_of(index);
    return name && json_object_get(index, "transformer") ? wrong_class(s->path, name, e) : KW_OK;
}

static bool has_parts(const kw_source *s)
{
    for (int p = 0; p < KW_N_PARTS; p++)
        if (s->parts[p].n || s->parts[p].config)
            return true;
    return false;
}

kw_status kw__open_folder(kw_source *s, kw_err *e)
{
    json_t *config;
    char *file;
    KW_TRY(check_family(s, e));
    KW_TRY(open_parts(s, e));
    KW_TRY(read_scheduler(s, e));
    if (has_parts(s))
        return KW_OK;
    KW_TRY(read_config(s, s->path, &config, e));
    if (config)
        return open_lone_part(s, config, e);
    KW_TRY(only_file(s, s->path, &file, e));
    return file ? kw__open_single(s, file, e) : KW_OK;
}
