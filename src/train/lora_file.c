/* lora_file.c - what a run knows about its LoRA, for the metadata of the file. */
#include "run_internal.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

/* One entry per folder of pictures, with the captions of what is trained on. */
static kw_status folders(const kw_run *r, kw_arena *a, kw_lora_facts *f, kw_err *e)
{
    const kw_dataset *d = r->data;
    kw_lora_folder *out = kw_alloc_array(a, d->n_folders + 1, sizeof *out);
    const char **captions = kw_alloc_array(a, d->n + 1, sizeof *captions);
    if (!out || !captions)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        if (!d->items[i].bad && !d->items[i].held_out)
            captions[n++] = d->items[i].captions[0];
    for (size_t i = 0; i < d->n_folders; i++)
        out[i] = (kw_lora_folder){ .name = d->folders[i].name, .repeats = d->folders[i].repeats,
                                   .pictures = d->folders[i].n };
    if (d->n_folders == 1) {
        out[0].captions = captions;
        out[0].n_captions = n;
    }
    f->folders = out;
    f->n_folders = d->n_folders;
    return KW_OK;
}

static kw_status buckets(const kw_run *r, kw_arena *a, kw_lora_facts *f, kw_err *e)
{
    kw_lora_bucket *out = kw_alloc_array(a, r->data->n_buckets + 1, sizeof *out);
    double error = 0;
    size_t n = 0;
    if (!out)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < r->data->n_buckets; i++)
        out[i] = (kw_lora_bucket){ r->data->buckets[i].w, r->data->buckets[i].h, r->data->buckets[i].n };
    for (size_t i = 0; i < r->data->n; i++) {
        const kw_item *item = &r->data->items[i];
        if (item->bad || item->held_out)
            continue;
        error += fabs((double)item->w / item->h - (double)item->fit.w / item->fit.h);
        n++;
    }
    f->buckets = out;
    f->n_buckets = r->data->n_buckets;
    f->mean_aspect_error = n ? error / (double)n : 0;
    return KW_OK;
}

static kw_lora_facts settings(const kw_run *r, int64_t epoch)
{
    static const char *const schedulers[] = { "constant", "cosine", "linear" };
    const kw_settings *s = &r->s;
    const kw_noise *z = kw_trainer_noise(r->trainer);
    bool v2 = kw_trainer_base(r->trainer)->unet.context[0] == 1024;
    int64_t steps = kw_trainer_steps(r->trainer);
    return (kw_lora_facts){
        .name = s->name, .trigger = s->trigger, .v2 = v2, .v_prediction = z->spec.predict == KW_PREDICT_V,
        .resolution_w = r->resolution, .resolution_h = r->resolution, .base_name = kw_path_name(s->base),
        .vae_name = s->vae ? kw_path_name(s->vae) : NULL, .rank = s->rank, .alpha = (double)s->alpha,
        .conv_rank = r->tc.adapter.targets & KW_TARGET_CONV ? (s->conv_rank ? s->conv_rank : s->rank) : 0,
        .conv_alpha = s->conv_alpha > 0 ? (double)s->conv_alpha : (double)s->alpha,
        .learning_rate = s->learning_rate, .unet_rate = s->learning_rate,
        .text_rate = r->learns_text ? r->tc.rate[KW_GROUP_TEXT] : -1, .scheduler = schedulers[s->scheduler],
        .warmup = s->warmup, .optimizer = "AdamW", .weight_decay = s->weight_decay, .beta1 = s->beta1,
        .beta2 = s->beta2, .eps = s->eps, .accumulation = s->accumulation, .batch = s->batch, .max_norm = s->max_norm,
        .min_snr = s->min_snr, .noise_offset = s->noise_offset, .caption_dropout = s->caption_dropout,
        .recompute = s->memory > 0, .flip = s->flip, .random_crop = s->random_crop, .shuffle = s->shuffle,
        .cache_latents = true, .zero_terminal_snr = z->spec.zero_snr, .keep_tokens = KW_MAX(s->keep_tokens, 0),
        .token_length = s->token_length, .clip_skip = s->clip_skip, .bf16 = r->tc.compute == KW_BF16, .seed = s->seed,
        .epochs = (r->steps + r->per_epoch - 1) / KW_MAX(r->per_epoch, 1),
        .epoch = epoch >= 0 ? epoch : (steps + r->per_epoch - 1) / KW_MAX(r->per_epoch, 1), .max_steps = r->steps,
        .steps = steps, .batches_per_epoch = kw_plan_steps(r->plan), .session = s->seed ^ 0x4b495741u,
        .started = r->started, .finished = (double)time(NULL), .pictures = kw_plan_samples(r->plan),
        .held_out = (int64_t)kw_data_count(r->data, true), .held_out_share = s->validation,
        .bucket_min = s->bucket_min, .bucket_max = s->bucket_max, .no_upscale = s->no_upscale,
    };
}

kw_status kw__save_lora(kw_run *r, kw_arena *a, const char *path, const kw_tensor *t, size_t n, int64_t epoch,
                        kw_err *e)
{
    const uint8_t *g = r->background;
    kw_lora_facts f = settings(r, epoch);
    f.background = kw_sprintf(a, "#%02x%02x%02x", g[0], g[1], g[2]);
    KW_TRY(folders(r, a, &f, e));
    KW_TRY(buckets(r, a, &f, e));
    return kw_lora_save(path, t, n, &f, (kw_metadata_level)r->s.metadata, NULL, e);
}
