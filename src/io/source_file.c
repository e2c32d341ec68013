/* source_file.c - a model in one file: which parts are in it, under which prefix, in which spelling. */
#include "source_internal.h"

#include <stdio.h>
#include <string.h>

static const char *named(const kw_tensors *t, const kw__stranger *list, size_t n)
{
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < kw_tensors_n(t); i++)
            if (strstr(kw_tensors_at(t, i)->name, list[k].piece))
                return list[k].is;
    return NULL;
}

const char *kw__stranger_name(const kw_tensors *t, bool has_unet)
{
    const char *is = named(t, kw__impostors, kw__n_impostors);
    return is || has_unet ? is : named(t, kw__strangers, kw__n_strangers);
}

static const kw_tensor *find(const kw_tensors *t, const char *prefix, const char *name)
{
    char whole[KW_KEY_ROOM];
    snprintf(whole, sizeof whole, "%s%s", prefix, name);
    return kw_tensors_find(t, whole);
}

/* How many k = 0, 1, 2 ... there are of a name with one %d. */
static int count(const kw_tensors *t, const char *prefix, const char *form)
{
    int k = 0;
    char name[256];
    for (;; k++) {
        const char *at = strstr(form, "%d");
        snprintf(name, sizeof name, "%.*s%d%s", (int)(at - form), form, k, at + 2);
        if (!find(t, prefix, name))
            return k;
    }
}

/* The first block that halves, after L resnets, is number L + 1; the next 2(L + 1). None: all blocks are one level. */
static kw_key_shape unet_shape(const kw_tensors *t, const char *prefix)
{
    kw_key_shape s = { .levels = 1 };
    char name[64];
    int blocks = 1;
    for (int k = 1; k < 1000; k++, blocks++) {
        snprintf(name, sizeof name, "input_blocks.%d.0.op.weight", k);
        bool halves = find(t, prefix, name);
        snprintf(name, sizeof name, "input_blocks.%d.0.in_layers.0.weight", k);
        if (!halves && !find(t, prefix, name))
            break;
        if (halves && !s.layers)
            s.layers = k - 1;
        s.levels += halves;
    }
    if (!s.layers)
        s.layers = blocks - 1;
    for (int i = 0; i < s.levels && i < 32; i++) {
        snprintf(name, sizeof name, "output_blocks.%d.1.proj_in.weight", i * (s.layers + 1));
        s.up_attention |= (uint32_t)(find(t, prefix, name) != NULL) << i;
    }
    return s;
}

static kw_key_shape vae_shape(const kw_tensors *t, const char *prefix)
{
    int down = count(t, prefix, "encoder.down.%d.block.0.conv1.weight");
    int up = count(t, prefix, "decoder.up.%d.block.0.conv1.weight");
    int layers = count(t, prefix, "encoder.down.0.block.%d.conv1.weight");
    if (!layers)
        layers = count(t, prefix, "decoder.up.0.block.%d.conv1.weight") - 1;
    return (kw_key_shape){ .levels = KW_MAX(down, up), .layers = layers };
}

/* SD 2's checkpoints have 24 text layers and use 23: the last, and the projection, are passed over, unless the file's
 * own configuration has them. */
static bool is_ignored(const kw_source *s, const char *name)
{
    json_t *text = s->parts[KW_PART_TEXT].config;
    const char *class_name = json_string_value(json_array_get(json_object_get(text, "architectures"), 0));
    if (kw_starts_with(name, "cond_stage_model.model.transformer.")
        && json_integer_value(json_object_get(text, "num_hidden_layers")) > 23)
        return false;
    if (!strcmp(name, "cond_stage_model.model.text_projection") && class_name && strstr(class_name, "WithProjection"))
        return false;
    for (size_t k = 0; k < kw__n_ignored; k++)
        if (kw_starts_with(name, kw__ignored[k]))
            return true;
    return false;
}

/* LitEma's name of a parameter: model.a.b.c -> model_ema.abc; NULL: none there, or of another shape. */
static const kw_tensor *averaged(const kw_tensors *all, const kw_tensor *t)
{
    char name[KW_KEY_ROOM] = "model_ema.";
    size_t n = strlen(name);
    if (!kw_starts_with(t->name, "model."))
        return NULL;
    for (const char *p = t->name + strlen("model."); *p && n + 1 < sizeof name; p++)
        if (*p != '.')
            name[n++] = *p;
    const kw_tensor *ema = kw_tensors_find(all, name);
    return ema && ema->rank == t->rank && !memcmp(ema->shape, t->shape, sizeof t->shape) ? ema : NULL;
}

/* Training averaged the U-Net's weights: its own, or those averages under its names. */
static kw_status choose_averages(kw_source *s, const kw_tensors *all, kw_tensors *some, size_t n_ema, kw_err *e)
{
    size_t taken = 0;
    if (!n_ema && s->averages)
        return kw_fail(e, KW_EDATA, N_("%s: holds no averaged weights (model_ema)"), s->path);
    if (!n_ema)
        return KW_OK;
    if (!s->averages)
        return kw__note(s, e, N_("the file also holds averaged weights (model_ema); the others are used"));
    for (size_t i = 0; i < some->n; i++) {
        kw_tensor *t = &some->tensors[i];
        const kw_tensor *ema = averaged(all, t);
        const char *name = t->name;
        if (!ema)
            continue;
        *t = *ema;
        t->name = name;
        taken++;
    }
    return kw__note(s, e, N_("the averaged weights (model_ema) are used: %zu tensors"), taken);
}

/* The names that mean something, as a set of their own: the rest is either ignored or unknown. */
static kw_status without_ignored(kw_source *s, const kw_tensors *all, kw_tensors *some, kw_err *e)
{
    *some = *all;
    s->chosen = some;
    some->n = 0;
    if (!(some->tensors = kw_alloc_array(s->arena, all->n + 1, sizeof *some->tensors)))
        return kw__no_memory(e, s->path);
    size_t ema = 0;
    for (size_t i = 0; i < all->n; i++) {
        const char *name = all->tensors[i].name;
        if (!is_ignored(s, name))
            some->tensors[some->n++] = all->tensors[i];
        ema += kw_starts_with(name, "model_ema.");
    }
    KW_TRY(choose_averages(s, all, some, ema, e));
    return kw__tensors_index(s->arena, some, e);
}

static kw_status take_parts(kw_source *s, const kw_tensors *t, kw_err *e)
{
    const kw__spelling *taken[KW_N_PARTS] = { NULL };
    for (size_t k = 0; k < kw__n_spellings; k++) {
        const kw__spelling *sp = &kw__spellings[k];
        if (taken[sp->part] || !find(t, sp->prefix, sp->probe))
            continue;
        taken[sp->part] = sp;
        kw_key_shape shape = sp->keys == KW_KEYS_UNET ? unet_shape(t, sp->prefix)
                           : sp->keys == KW_KEYS_VAE ? vae_shape(t, sp->prefix) : (kw_key_shape){ 0 };
        int keys = sp->keys == KW__CANONICAL && sp->part == KW_PART_VAE ? KW_KEYS_OLD_VAE : sp->keys;
        KW_TRY(kw__part_take(s, sp->part, keys, &shape, sp->prefix, t, e));
    }
    for (size_t i = 0; i < t->n; i++) {
        bool mine = false;
        for (int p = 0; p < KW_N_PARTS; p++)
            mine |= taken[p] && kw_starts_with(t->tensors[i].name, taken[p]->prefix);
        if (!mine && !kw__is_scale(t, t->tensors[i].name))
            KW_TRY(kw__text_add(s->arena, &s->unknown, t->tensors[i].name, e));
    }
    return KW_OK;
}

/* ---- configurations that came with the file -------------------------------------------------------------------- */

static kw_status own_metadata(kw_source *s, const kw_tensors *t, kw_err *e)
{
    const char *text = kw_tensors_meta(t, KW_META_CONFIG);
    if (!text)
        return KW_OK;
    json_t *all;
    KW_TRY(kw_json_parse(s->arena, s->path, text, strlen(text), &all, e));
    for (int p = 0; p < KW_N_PARTS; p++) {
        json_t *one = json_object_get(all, kw_part_name((kw_part)p));
        s->parts[p].config = json_is_object(one) ? one : NULL;
    }
    json_t *one = json_object_get(all, "scheduler");
    s->scheduler = json_is_object(one) ? one : NULL;
    one = json_object_get(all, "model_index");
    s->index = s->switches = json_is_object(one) ? one : NULL;
    return KW_OK;
}

/* A part's weights given alone: its config.json lies beside. */
static kw_status sibling_config(kw_source *s, const char *path, kw_err *e)
{
    int only = -1;
    for (int p = 0; p < KW_N_PARTS; p++)
        if (s->parts[p].n)
            only = only < 0 ? p : KW_N_PARTS;
    char *dir = kw_path_dir(s->arena, path), *config = dir ? kw_path_join(s->arena, dir, "config.json") : NULL;
    if (!config)
        return kw__no_memory(e, path);
    if (only < 0 || only == KW_N_PARTS || s->parts[only].config || !kw_is_file(config))
        return KW_OK;
    json_t *json;
    KW_TRY(kw_json_read(s->arena, config, &json, e));
    const char *name = json_string_value(json_object_get(json, "_class_name"));
    bool fits = only == KW_PART_UNET ? name && strstr(name, "UNet2DCondition")
              : only == KW_PART_VAE ? name && !strcmp(name, "AutoencoderKL") : !name;
    if (fits)
        s->parts[only].config = json;
    return KW_OK;
}

static bool has_unet(const kw_tensors *t)
{
    for (size_t k = 0; k < kw__n_spellings; k++)
        if (kw__spellings[k].part == KW_PART_UNET && find(t, kw__spellings[k].prefix, kw__spellings[k].probe))
            return true;
    return false;
}

kw_status kw__open_single(kw_source *s, const char *path, kw_err *e)
{
    kw_tensors *all, *some = kw_alloc(s->arena, sizeof *some);
    if (!some)
        return kw__no_memory(e, path);
    s->is_single = true;
    KW_TRY(kw__tensors_open(s->arena, path, true, &all, e));
    if (all->note)
        KW_TRY(kw__note(s, e, "%s", all->note));
    KW_TRY(kw__names_clean(s, all, e));
    KW_TRY(own_metadata(s, all, e));
    const char *stranger = kw__stranger_name(all, has_unet(all));
    if (stranger)
        return kw_fail(e, KW_EDATA, N_("%s: is %s, which cannot be used as the base"), path, kw_translate(stranger));
    KW_TRY(without_ignored(s, all, some, e));
    KW_TRY(take_parts(s, some, e));
    for (int p = 0; p < KW_N_PARTS; p++)
        s->parts[p].file = s->parts[p].file ? all : NULL;
    KW_TRY(sibling_config(s, path, e));
    if (kw_tensors_meta(all, KW_META_TOKENIZER) && s->parts[KW_PART_TEXT].n)
        s->parts[KW_PART_TEXT].tokenizer = kw_tensors_path(all);
    return KW_OK;
}
