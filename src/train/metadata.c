/*
 * metadata.c - the keys of a LoRA file. Sources: sd-scripts train_network.py (ss_*), library/train_util.py (hashes),
 * library/sai_model_spec.py and the ModelSpec 1.0.1 text (modelspec.*).
 */
#include "escape.h"
#include "metadata_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct {
    kw_arena *arena;
    kw_meta *meta;
    size_t n, capacity;
    bool failed;                          /* memory ran out */
} list;

/* ---- one value, as Python's str() spells it ---------------------------------------------------------------------- */

static void put(list *l, const char *key, const char *value)
{
    if (!value || kw_grow(l->arena, &l->meta, &l->capacity, l->n, sizeof *l->meta, NULL)) {
        l->failed = true;
        return;
    }
    l->meta[l->n++] = (kw_meta){ key, value };
}

static void put_text(list *l, const char *key, const char *text)
{
    put(l, key, text ? kw_strdup(l->arena, text) : "None");
}
static void put_if(list *l, const char *key, const char *value)
{
    if (value)
        put_text(l, key, value);
}
static void put_bool(list *l, const char *key, bool v) { put(l, key, v ? "True" : "False"); }

static void put_int(list *l, const char *key, int64_t v)
{
    put(l, key, kw_sprintf(l->arena, "%lld", (long long)v));
}

static void put_built(list *l, const char *key, kw_str *b)
{
    put(l, key, b->failed ? NULL : kw_strndup(l->arena, b->s, b->n));
    kw_str_free(b);
}

/* repr(float): the shortest digits that read back, always with a point or an exponent. */
static void add_float(kw_str *b, double v)
{
    size_t at = b->n;
    kw__add_number(b, v);
    if (!b->failed && !strpbrk(b->s + at, ".en"))
        kw_str_add(b, ".0");
}

static void put_float(list *l, const char *key, double v)
{
    kw_str b = { 0 };
    add_float(&b, v);
    put_built(l, key, &b);
}

/* Options that are off when 0 are None in kohya's files. */
static void put_float_or_none(list *l, const char *key, double v)
{
    if (v > 0)
        put_float(l, key, v);
    else
        put_text(l, key, NULL);
}

/* Names come from paths: nothing but their last part leaves the house. */
static const char *last_part(const char *name)
{
    const char *slash = name ? strrchr(name, '/') : NULL, *back = name ? strrchr(name, '\\') : NULL;
    return slash && slash > back ? slash + 1 : back ? back + 1 : name;
}

/* ---- ss_*: the groups of sd-scripts' dictionary, in its order ---------------------------------------------------- */

static const char *base_version(const kw_lora_facts *f)
{
    return f->sdxl ? "sdxl_base_v1-0" : !f->v2 ? "sd_v1" : f->v_prediction ? "sd_v2_v" : "sd_v2";
}

/* {"conv_dim": "4", "conv_alpha": "1.0"}: kohya's --network_args, which are texts */
static void put_network(list *l, const kw_lora_facts *f)
{
    kw_str b = { 0 };
    put_text(l, "ss_network_module", "networks.lora");
    put_int(l, "ss_network_dim", f->rank);
    put_float(l, "ss_network_alpha", f->alpha);
    if (f->conv_rank) {
        kw_str_printf(&b, "{\"conv_dim\": \"%d\", \"conv_alpha\": \"", f->conv_rank);
        add_float(&b, f->conv_alpha);
        kw_str_add(&b, "\"}");
        put_built(l, "ss_network_args", &b);
    }
}

static void put_family(list *l, const kw_lora_facts *f)
{
    put_bool(l, "ss_v2", f->v2);
    put_text(l, "ss_base_model_version", base_version(f));
}

static void put_schedule(list *l, const kw_lora_facts *f)
{
    put(l, "ss_session_id", kw_sprintf(l->arena, "%llu", (unsigned long long)f->session));
    put_float(l, "ss_training_started_at", f->started);
    put_float(l, "ss_training_finished_at", f->finished);
    put_text(l, "ss_output_name", f->name);
    put_float(l, "ss_learning_rate", f->learning_rate);
    put_float_or_none(l, "ss_text_encoder_lr", f->text_rate);
    put_float(l, "ss_unet_lr", f->unet_rate);
    put_int(l, "ss_num_train_images", f->pictures);
    put_int(l, "ss_num_validation_images", f->held_out);
    put_int(l, "ss_num_reg_images", 0);
    put_int(l, "ss_num_batches_per_epoch", f->batches_per_epoch);
    put_int(l, "ss_num_epochs", f->epochs);
    put_int(l, "ss_epoch", f->epoch);
    put_int(l, "ss_steps", f->steps);
    put_bool(l, "ss_gradient_checkpointing", f->recompute);
    put_int(l, "ss_gradient_accumulation_steps", f->accumulation);
    put_int(l, "ss_max_train_steps", f->max_steps);
    put_int(l, "ss_lr_warmup_steps", f->warmup);
    bool renamed = f->warmup && f->scheduler && !strcmp(f->scheduler, "constant");
    put_text(l, "ss_lr_scheduler", renamed ? "constant_with_warmup" : f->scheduler);
}

/* "kiwame.AdamW(weight_decay=0.01,betas=(0.9, 0.999),eps=1e-08)" */
static void put_optimizer(list *l, const kw_lora_facts *f)
{
    kw_str b = { 0 };
    kw_str_printf(&b, "kiwame.%s(weight_decay=", f->optimizer ? f->optimizer : "AdamW");
    add_float(&b, f->weight_decay);
    kw_str_add(&b, ",betas=(");
    add_float(&b, f->beta1);
    kw_str_add(&b, ", ");
    add_float(&b, f->beta2);
    kw_str_add(&b, "),eps=");
    add_float(&b, f->eps);
    kw_str_add(&b, ")");
    put_built(l, "ss_optimizer", &b);
}

static void put_objective(list *l, const kw_lora_facts *f)
{
    put_text(l, "ss_network_dropout", NULL);
    put_text(l, "ss_mixed_precision", f->bf16 ? "bf16" : "no");
    put_bool(l, "ss_full_fp16", false);
    if (f->clip_skip > 1)
        put_int(l, "ss_clip_skip", f->clip_skip);
    else
        put_text(l, "ss_clip_skip", NULL);
    if (f->token_length > 75)
        put_int(l, "ss_max_token_length", f->token_length);
    else
        put_text(l, "ss_max_token_length", NULL);
    put_bool(l, "ss_cache_latents", f->cache_latents);
    put(l, "ss_seed", kw_sprintf(l->arena, "%llu", (unsigned long long)f->seed));
    put_bool(l, "ss_lowram", false);
    put_float_or_none(l, "ss_noise_offset", f->noise_offset);
    put_bool(l, "ss_zero_terminal_snr", f->zero_terminal_snr);
    put_text(l, "ss_training_comment", f->comment);
    put_optimizer(l, f);
    put_float(l, "ss_max_grad_norm", f->max_norm);
    put_float(l, "ss_caption_dropout_rate", f->caption_dropout);
    put_float_or_none(l, "ss_min_snr_gamma", f->min_snr);
    put_text(l, "ss_loss_type", "l2");
    if (f->held_out_share > 0)
        put_float(l, "ss_validation_split", f->held_out_share);
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

/*  {"10_kiwa": {"n_repeats": 10, "img_count": 20}}  */
static void put_folders(list *l, const kw_lora_facts *f)
{
    kw_str b = { 0 };
    const char *before = "{";
    for (size_t i = 0; i < f->n_folders; i++) {
        int64_t pictures = 0;
        if (kw__folder_first(f, i) != i)
            continue;
        for (size_t k = i; k < f->n_folders; k++)
            pictures += kw__folder_first(f, k) == i ? f->folders[k].pictures : 0;
        kw_str_add(&b, before);
        kw__add_json(&b, kw__folder_name(&f->folders[i]), true);
        kw_str_printf(&b, ": {\"n_repeats\": %d, \"img_count\": %lld}", f->folders[i].repeats, (long long)pictures);
        before = ", ";
    }
    kw_str_add(&b, f->n_folders ? "}" : "{}");
    put_built(l, "ss_dataset_dirs", &b);
    put_text(l, "ss_reg_dataset_dirs", "{}");
}

/*  {"buckets": {"0": {"resolution": [512, 512], "count": 12}}, "mean_img_ar_error": 0.01}  */
static void put_buckets(list *l, const kw_lora_facts *f)
{
    kw_str b = { 0 };
    kw_str_add(&b, "{\"buckets\": {");
    for (size_t i = 0; i < f->n_buckets; i++)
        kw_str_printf(&b, "%s\"%zu\": {\"resolution\": [%d, %d], \"count\": %lld}", i ? ", " : "", i, f->buckets[i].w,
                      f->buckets[i].h, (long long)f->buckets[i].pictures);
    kw_str_add(&b, "}, \"mean_img_ar_error\": ");
    add_float(&b, f->mean_aspect_error);
    kw_str_add(&b, "}");
    put_built(l, "ss_bucket_info", &b);
}

static void put_data(list *l, const kw_lora_facts *f)
{
    kw_str tags = { 0 };
    put_int(l, "ss_batch_size_per_device", f->batch);
    put_int(l, "ss_total_batch_size", f->batch);
    put(l, "ss_resolution", kw_sprintf(l->arena, "(%d, %d)", f->resolution_w, f->resolution_h));
    put_bool(l, "ss_color_aug", false);
    put_bool(l, "ss_flip_aug", f->flip);
    put_bool(l, "ss_random_crop", f->random_crop);
    put_bool(l, "ss_shuffle_caption", f->shuffle);
    put_bool(l, "ss_enable_bucket", f->n_buckets > 0);
    put_bool(l, "ss_bucket_no_upscale", f->no_upscale);
    put_int(l, "ss_min_bucket_reso", f->bucket_min);
    put_int(l, "ss_max_bucket_reso", f->bucket_max);
    put_int(l, "ss_keep_tokens", f->keep_tokens);
    put_folders(l, f);
    kw__tag_frequency(l->arena, f, &tags);
    put_built(l, "ss_tag_frequency", &tags);
    put_buckets(l, f);
    put_if(l, "kiwame.background", f->background);
    put_if(l, "kiwame.base_dtype", f->base_dtype);
}

static void put_base(list *l, const kw_lora_facts *f)
{
    put_if(l, "ss_sd_model_name", last_part(f->base_name));
    put_if(l, "ss_sd_model_hash", f->base_short_hash);
    put_if(l, "ss_new_sd_model_hash", f->base_hash);
    put_if(l, "ss_vae_name", last_part(f->vae_name));
    put_if(l, "ss_vae_hash", f->vae_short_hash);
    put_if(l, "ss_new_vae_hash", f->vae_hash);
}

/* ---- modelspec.* ------------------------------------------------------------------------------------------------- */

static const char *architecture(const kw_lora_facts *f)
{
    return f->sdxl ? "stable-diffusion-xl-v1-base/lora" : !f->v2 ? "stable-diffusion-v1/lora"
         : f->v_prediction ? "stable-diffusion-v2-768-v/lora" : "stable-diffusion-v2-512/lora";
}

/* In UTC, so that nothing is told about where. */
static char *date(kw_arena *a, double time)
{
    struct tm t;
    time_t whole = (time_t)time;
    char text[32];
    if (!gmtime_r(&whole, &t) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &t))
        return kw_strdup(a, "1970-01-01T00:00:00Z");
    return kw_strdup(a, text);
}

/* What a reader of the file is told to do; in English, since nobody knows who reads it. */
static char *usage(kw_arena *a, const kw_lora_facts *f)
{
    if (f->trigger && *f->trigger)
        return kw_sprintf(a, "Put \"%s\" into the prompt and load the LoRA: <lora:%s:1> %s", f->trigger, f->name,
                          f->trigger);
    return kw_sprintf(a, "Load the LoRA: <lora:%s:1>. It needs no trigger word.", f->name);
}

static void put_modelspec(list *l, const kw_lora_facts *f)
{
    put_text(l, "modelspec.sai_model_spec", "1.0.1");
    put_text(l, "modelspec.architecture", architecture(f));
    put_text(l, "modelspec.implementation",
             f->sdxl ? "https://github.com/Stability-AI/generative-models" : "diffusers");
    put_text(l, "modelspec.implementation_version", "kiwame/" KW_VERSION);
    put_text(l, "modelspec.title", f->title ? f->title : f->name);
    put(l, "modelspec.resolution", kw_sprintf(l->arena, "%dx%d", f->resolution_w, f->resolution_h));
    put(l, "modelspec.date", date(l->arena, f->finished));
    put_text(l, "modelspec.prediction_type", f->v_prediction ? "v" : "epsilon");
    put_text(l, "modelspec.trigger_phrase", f->trigger ? f->trigger : "");
    put(l, "modelspec.usage_hint", usage(l->arena, f));
    if (f->clip_skip > 1)
        put_int(l, "modelspec.encoder_layer", f->clip_skip);
    put_if(l, "modelspec.author", f->author);
    put_if(l, "modelspec.description", f->description);
    put_if(l, "modelspec.license", f->license);
    put_if(l, "modelspec.tags", f->tags);
    put_if(l, "modelspec.thumbnail", f->thumbnail);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void put_all(list *l, const kw_lora_facts *f, kw_metadata_level level)
{
    if (level == KW_METADATA_NONE)
        return;
    if (level == KW_METADATA_FULL)
        put_schedule(l, f);
    put_network(l, f);
    put_family(l, f);
    if (level == KW_METADATA_FULL) {
        put_objective(l, f);
        put_data(l, f);
        put_base(l, f);
    }
    put_modelspec(l, f);
}

kw_status kw_lora_metadata(kw_arena *a, const kw_lora_facts *f, kw_metadata_level level, kw_meta **meta, size_t *n,
                           kw_err *e)
{
    list l = { .arena = a };
    put_all(&l, f, level);
    if (l.failed)
        return kw_fail(e, KW_ENOMEM, N_("%s: out of memory"), f->name);
    *meta = l.meta;
    *n = l.n;
    return KW_OK;
}

/* The digits of the SHA-256 of nothing: the file ends before the bytes that the old hash looks at. */
#define NOTHING "e3b0c442"

static kw_status put_hashes(list *l, const kw_tensor *t, size_t n, char model[65], kw_err *e)
{
    char legacy[9];
    size_t n_ss = 0;
    kw_meta *ss = kw_alloc_array(l->arena, l->n + 1, sizeof *ss);
    for (size_t i = 0; ss && i < l->n; i++)
        if (kw_starts_with(l->meta[i].key, "ss_"))
            ss[n_ss++] = l->meta[i];
    if (!ss)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_tensors_hash_list(t, n, ss, n_ss, model, legacy, e));
    if (!l->n)
        return KW_OK;                                              /* no metadata at all */
    put_text(l, "sshs_model_hash", model);
    if (strcmp(legacy, NOTHING))
        put_text(l, "sshs_legacy_hash", legacy);
    put(l, "modelspec.hash_sha256", kw_sprintf(l->arena, "0x%s", model));
    return l->failed ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

static kw_status save(kw_arena *a, const char *path, const kw_tensor *t, size_t n, const kw_lora_facts *f,
                      kw_metadata_level level, char model[65], kw_err *e)
{
    list l = { .arena = a };
    put_all(&l, f, level);
    if (l.failed)
        return kw_fail(e, KW_ENOMEM, N_("%s: out of memory"), path);
    KW_TRY(put_hashes(&l, t, n, model, e));
    return kw_tensors_save(path, t, n, l.meta, l.n, e);
}

kw_status kw_lora_save(const char *path, const kw_tensor *t, size_t n, const kw_lora_facts *f, kw_metadata_level level,
                       char model_hash[65], kw_err *e)
{
    char model[65];
    kw_arena *a = kw_arena_new();
    kw_status s = a ? save(a, path, t, n, f, level, model, e) : kw_fail(e, KW_ENOMEM, N_("%s: out of memory"), path);
    kw_arena_free(a);
    if (!s && model_hash)
        memcpy(model_hash, model, sizeof model);
    return s;
}
