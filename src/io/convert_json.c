/* convert_json.c - the configurations of a converted model: a folder's small files, or a single file's metadata. */
#include "convert_internal.h"

#include <stdlib.h>
#include <string.h>

static kw_status no_memory(const kw_conversion *c, kw_err *e) { return kw__no_memory(e, c->source->path); }

kw_status kw__small_add(kw_conversion *c, const char *path, const char *from, const char *text, size_t n, kw_err *e)
{
    for (size_t i = 0; i < c->n_small; i++)
        if (!strcmp(c->small[i].path, path))
            return KW_OK;                 /* the first one holds */
    KW_TRY(kw_grow(c->arena, &c->small, &c->small_capacity, c->n_small, sizeof *c->small, e));
    c->small[c->n_small++] = (kw__small){ path, from, text, n };
    return KW_OK;
}

kw_status kw__meta_add(kw_conversion *c, kw__new_file *f, const char *key, const char *value, kw_err *e)
{
    for (size_t i = 0; i < f->n_meta; i++)
        if (!strcmp(f->meta[i].key, key))
            return KW_OK;
    KW_TRY(kw_grow(c->arena, &f->meta, &f->meta_capacity, f->n_meta, sizeof *f->meta, e));
    f->meta[f->n_meta++] = (kw_meta){ key, value };
    return KW_OK;
}

/* 1e-5 as Python writes it, 1e-05: configurations that were read come back byte for byte. */
static char *like_python(kw_arena *a, const char *text)
{
    char *out = text ? kw_alloc(a, 2 * strlen(text) + 1) : NULL, *to = out;
    bool inside = false;
    for (const char *p = text; out && *p; p++) {
        if (*p == '"' && (p == text || p[-1] != '\\'))
            inside = !inside;
        *to++ = *p;
        bool exponent = !inside && p > text && *p == 'e' && p[-1] >= '0' && p[-1] <= '9';
        const char *digits = p + 1 + (exponent && (p[1] == '-' || p[1] == '+'));
        if (!exponent || *digits < '0' || *digits > '9' || (digits[1] >= '0' && digits[1] <= '9'))
            continue;
        *to++ = p[1] == '-' ? '-' : '+';
        *to++ = '0';
        p = digits - 1;
    }
    return out;
}

/* Reals with the digits that give the same number again, few if few do (0.00085, not 0.00084999999999999995). */
static char *dump(kw_arena *a, const json_t *json, size_t flags)
{
    json_error_t unused;
    char *text = json_dumps(json, flags | JSON_REAL_PRECISION(15)), *copy;
    json_t *back = text ? json_loads(text, 0, &unused) : NULL;
    if (back && !json_equal(back, json)) {
        free(text);
        text = json_dumps(json, flags | JSON_REAL_PRECISION(17));
    }
    json_decref(back);
    copy = like_python(a, text);
    free(text);
    return copy;
}

static void release(void *json) { json_decref(json); }

/* An object that goes with the conversion's arena. */
static kw_status own(kw_conversion *c, json_t *json, kw_err *e)
{
    return !json || kw_defer(c->arena, release, json) ? no_memory(c, e) : KW_OK;
}

static kw_status add_json(kw_conversion *c, const char *path, const json_t *json, kw_err *e)
{
    char *text = dump(c->arena, json, JSON_INDENT(2)), *whole = text ? kw_sprintf(c->arena, "%s\n", text) : NULL;
    return whole ? kw__small_add(c, path, NULL, whole, strlen(whole), e) : no_memory(c, e);
}

/* ---- the scheduler ----------------------------------------------------------------------------------------------- */

/* What is known of the noise, as the class that the family's own repositories name. */
static json_t *made_scheduler(const kw_source *s)
{
    const kw_noise_config *n = &s->noise;
    bool xl = s->parts[KW_PART_TEXT2].n > 0;
    return json_pack("{s:s, s:f, s:s, s:f, s:b, s:i, s:s, s:b, s:b, s:b, s:i, s:s}",
                     "_class_name", xl ? "EulerDiscreteScheduler" : "DDIMScheduler", "beta_end", n->beta_end,
                     "beta_schedule", n->beta_schedule, "beta_start", n->beta_start, "clip_sample", (int)n->clip_sample,
                     "num_train_timesteps", n->num_train_timesteps, "prediction_type", n->prediction_type,
                     "rescale_betas_zero_snr", (int)n->rescale_betas_zero_snr,
                     "set_alpha_to_one", (int)n->set_alpha_to_one, "skip_prk_steps", 1,
                     "steps_offset", n->steps_offset, "timestep_spacing", n->timestep_spacing);
}

/* ---- model_index.json -------------------------------------------------------------------------------------------- */

static json_t *pair(const char *library, const char *name)
{
    return name ? json_pack("[s, s]", library, name) : json_pack("[n, n]");
}

static const char *class_of_text(const kw_source *s, kw_part p)
{
    const char *name = json_string_value(json_array_get(json_object_get(s->parts[p].config, "architectures"), 0));
    return !s->parts[p].n ? NULL : name ? name : p == KW_PART_TEXT2 ? "CLIPTextModelWithProjection" : "CLIPTextModel";
}

static json_t *made_index(const kw_source *s, const char *scheduler)
{
    bool xl = s->parts[KW_PART_TEXT2].n > 0;
    bool paint = json_integer_value(json_object_get(s->parts[KW_PART_UNET].config, "in_channels")) == 9;
    json_t *j = json_object();
    json_object_set_new(j, "_class_name", json_string(
        xl ? paint ? "StableDiffusionXLInpaintPipeline" : "StableDiffusionXLPipeline"
           : paint ? "StableDiffusionInpaintPipeline" : "StableDiffusionPipeline"));
    json_object_set_new(j, "_diffusers_version", json_string("0.30.0"));
    json_object_set_new(j, "feature_extractor", pair(NULL, NULL));
    json_object_set_new(j, "image_encoder", pair(NULL, NULL));
    if (!xl) {
        json_object_set_new(j, "requires_safety_checker", json_false());
        json_object_set_new(j, "safety_checker", pair(NULL, NULL));
    } else
        json_object_set_new(j, "force_zeros_for_empty_prompt", json_true());
    json_object_set_new(j, "scheduler", pair("diffusers", scheduler));
    json_object_set_new(j, "text_encoder", pair("transformers", class_of_text(s, KW_PART_TEXT)));
    if (xl)
        json_object_set_new(j, "text_encoder_2", pair("transformers", class_of_text(s, KW_PART_TEXT2)));
    json_object_set_new(j, "tokenizer", pair("transformers", s->parts[KW_PART_TEXT].n ? "CLIPTokenizer" : NULL));
    if (xl)
        json_object_set_new(j, "tokenizer_2", pair("transformers", "CLIPTokenizer"));
    json_object_set_new(j, "unet", pair("diffusers", s->parts[KW_PART_UNET].n ? "UNet2DConditionModel" : NULL));
    json_object_set_new(j, "vae", pair("diffusers", s->parts[KW_PART_VAE].n ? "AutoencoderKL" : NULL));
    return j;
}

/* Components that a single file cannot hold are absent from the folder made of it. */
static json_t *trimmed_index(const json_t *index)
{
    static const char *const heavy[] = { "safety_checker", "feature_extractor", "image_encoder" };
    json_t *j = json_deep_copy(index);
    for (size_t i = 0; j && i < KW_LEN(heavy); i++)
        if (json_is_string(json_array_get(json_object_get(j, heavy[i]), 0)))
            json_object_set_new(j, heavy[i], pair(NULL, NULL));
    return j;
}

/* ---- a folder ---------------------------------------------------------------------------------------------------- */

static kw_status copy_folder(kw_conversion *c, const char *from, const char *to, bool all, int depth, kw_err *e);

/* Weights in other forms tell of other files than the new ones; they stay behind. */
static bool is_weights(const char *name)
{
    static const char *const kinds[] = { ".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx" };
    for (size_t i = 0; i < KW_LEN(kinds); i++)
        if (strstr(name, kinds[i]))
            return true;
    return false;
}

static kw_status copy_one(kw_conversion *c, const char *from, const char *to, const char *name, bool all, int depth,
                          kw_err *e)
{
    char *f = kw_path_join(c->arena, from, name);
    char *t = *to ? kw_sprintf(c->arena, "%s/%s", to, name) : kw_strdup(c->arena, name);
    if (!f || !t)
        return no_memory(c, e);
    if (*name == '.')
        return KW_OK;
    if (kw_is_dir(f))
        return depth < 4 ? copy_folder(c, f, t, all, depth + 1, e) : KW_OK;
    return kw_is_file(f) && (all || !is_weights(name)) ? kw__small_add(c, t, f, NULL, 0, e) : KW_OK;
}

static kw_status copy_folder(kw_conversion *c, const char *from, const char *to, bool all, int depth, kw_err *e)
{
    char **names;
    size_t n;
    KW_TRY(kw_dir_list(c->arena, from, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        KW_TRY(copy_one(c, from, to, names[i], all, depth, e));
    return KW_OK;
}

/* The source's own files: each component that the index names, whole if it is none of our parts. */
static kw_status copy_source(kw_conversion *c, kw_err *e)
{
    static const char *const usual[] = { "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2",
                                         "scheduler", "safety_checker", "feature_extractor", "image_encoder" };
    char *index = kw_path_join(c->arena, c->source->path, "model_index.json");
    if (!index)
        return no_memory(c, e);
    if (!kw_is_file(index))
        return KW_OK;                     /* the folder of one part: its configuration is written below */
    KW_TRY(kw__small_add(c, "model_index.json", index, NULL, 0, e));
    for (size_t i = 0; i < KW_LEN(usual); i++) {
        char *from = kw_path_join(c->arena, c->source->path, usual[i]);
        bool part = i < 4 && c->source->parts[i].n;
        if (!from)
            return no_memory(c, e);
        if (kw_is_dir(from))
            KW_TRY(copy_folder(c, from, usual[i], !part, 1, e));
    }
    return KW_OK;
}

kw_status kw__convert_folder_files(kw_conversion *c, kw_err *e)
{
    const kw_source *s = c->source;
    if (!s->is_single)
        KW_TRY(copy_source(c, e));
    for (int p = 0; p < KW_N_PARTS; p++) {
        char *path = kw_sprintf(c->arena, "%s/config.json", kw_part_name((kw_part)p));
        if (!path)
            return no_memory(c, e);
        if (s->parts[p].n)
            KW_TRY(add_json(c, path, s->parts[p].config, e));
        const char *tokenizer = s->parts[p].n ? s->parts[p].tokenizer : NULL;
        if (tokenizer && kw_is_dir(tokenizer))
            KW_TRY(copy_folder(c, tokenizer, p == KW_PART_TEXT2 ? "tokenizer_2" : "tokenizer", false, 4, e));
    }
    json_t *scheduler = s->scheduler ? json_incref(s->scheduler) : made_scheduler(s);
    KW_TRY(own(c, scheduler, e));
    KW_TRY(add_json(c, "scheduler/scheduler_config.json", scheduler, e));
    const char *name = json_string_value(json_object_get(scheduler, "_class_name"));
    json_t *index = s->index ? trimmed_index(s->index) : made_index(s, name ? name : "DDIMScheduler");
    KW_TRY(own(c, index, e));
    KW_TRY(add_json(c, "model_index.json", index, e));
    for (size_t i = 0; i < c->want.n_extra; i++)
        KW_TRY(kw__small_add(c, c->want.extra[i].path, NULL, c->want.extra[i].text, c->want.extra[i].n, e));
    return KW_OK;
}

/* ---- metadata ---------------------------------------------------------------------------------------------------- */

/* Hashes of other bytes than the new ones, and configurations that are written anew. */
static bool is_stale(const char *key)
{
    return !strcmp(key, "sshs_model_hash") || !strcmp(key, "sshs_legacy_hash") || !strcmp(key, "modelspec.hash_sha256")
        || !strcmp(key, KW_META_CONFIG) || !strcmp(key, KW_META_TOKENIZER);
}

static bool is_given(const kw_conversion *c, const char *key)
{
    for (size_t i = 0; i < c->want.n_meta; i++)
        if (!strcmp(c->want.meta[i].key, key))
            return true;
    return false;
}

static kw_status copy_meta(kw_conversion *c, kw__new_file *f, const kw_tensors *from, kw_err *e)
{
    for (size_t i = 0; from && i < from->n_meta; i++)
        if (!is_stale(from->meta[i].key) && !is_given(c, from->meta[i].key))
            KW_TRY(kw__meta_add(c, f, from->meta[i].key, from->meta[i].value, e));
    return KW_OK;
}

static json_t *read_index(kw_conversion *c)
{
    json_t *index = NULL;
    char *path = kw_path_join(c->arena, c->source->path, "model_index.json");
    kw_err unused;
    if (c->source->is_single)
        return c->source->index;
    return path && kw_is_file(path) && !kw_json_read(c->arena, path, &index, &unused) ? index : NULL;
}

/* Guesses are not written down: whoever reads the file is to know that they are guesses. */
static kw_status add_config(kw_conversion *c, kw__new_file *f, kw_err *e)
{
    const kw_source *s = c->source;
    json_t *all = json_object(), *index = read_index(c);
    KW_TRY(own(c, all, e));
    for (int p = 0; p < KW_N_PARTS; p++)
        if (s->parts[p].n && s->parts[p].config && !s->parts[p].inferred)
            json_object_set(all, kw_part_name((kw_part)p), s->parts[p].config);
    if (s->scheduler)
        json_object_set(all, "scheduler", s->scheduler);
    if (index)
        json_object_set(all, "model_index", index);
    char *text = json_object_size(all) ? dump(c->arena, all, JSON_COMPACT) : NULL;
    return !json_object_size(all) ? KW_OK : text ? kw__meta_add(c, f, KW_META_CONFIG, text, e) : no_memory(c, e);
}

/* transformers reads no file that does not say whose layout its tensors have. A single file's own texts lie with the
 * U-Net in a folder, and come back from there. */
kw_status kw__convert_metadata(kw_conversion *c, kw_err *e)
{
    const kw_source *s = c->source;
    for (size_t i = 0; i < c->n; i++) {
        kw__new_file *f = &c->files[i];
        KW_TRY(kw__meta_add(c, f, "format", "pt", e));
        for (int p = 0; p < KW_N_PARTS; p++)
            if (f->part == KW_N_PARTS || (s->is_single ? i == 0 : f->part == (kw_part)p))
                KW_TRY(copy_meta(c, f, s->parts[p].file, e));
        for (size_t k = 0; !i && k < c->want.n_meta; k++)
            KW_TRY(kw__meta_add(c, f, c->want.meta[k].key, c->want.meta[k].value, e));
        if (!c->want.folder)
            KW_TRY(add_config(c, f, e));
        if (!c->want.folder && c->want.tokenizer)
            KW_TRY(kw__meta_add(c, f, KW_META_TOKENIZER, c->want.tokenizer, e));
    }
    return KW_OK;
}
