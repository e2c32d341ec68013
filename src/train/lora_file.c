/* lora_file.c - what a run knows about its LoRA, for the metadata of the file. */
#include "run_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Does the picture lie in the folder itself? Names are relative to the root, which is called ".". */
static bool lies_in(const kw_item *t, const kw_folder *f)
{
    const char *file = kw_path_name(t->name);
    size_t n = (size_t)(file - t->name);
    return n ? strlen(f->name) == n - 1 && !memcmp(t->name, f->name, n - 1) : !strcmp(f->name, ".");
}

/* One entry per folder of pictures, with the captions of what is trained on. */
static kw_status folders(const kw_run *r, kw_arena *a, kw_lora_facts *f, kw_err *e)
{
    const kw_dataset *d = r->data;
    kw_lora_folder *out = kw_alloc_array(a, d->n_folders + 1, sizeof *out);
    const char **captions = kw_alloc_array(a, d->n + 1, sizeof *captions);
    if (!out || !captions)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < d->n_folders; i++) {
        out[i] = (kw_lora_folder){ .name = d->folders[i].name, .repeats = d->folders[i].repeats, .captions = captions };
        for (size_t k = 0; k < d->n; k++)
            if (!d->items[k].bad && !d->items[k].held_out && lies_in(&d->items[k], &d->folders[i]))
                captions[out[i].n_captions++] = d->items[k].captions[0];
        out[i].pictures = (int64_t)out[i].n_captions;
        captions += out[i].n_captions;
    }
    f->folders = out;
    f->n_folders = d->n_folders;
    return KW_OK;
}

/* Rank and alpha as the layers have them: those of a LoRA that training started from are its own. */
static void ranks(const kw_run *r, kw_lora_facts *f)
{
    const kw_adapters *all = kw_trainer_adapters(r->trainer);
    f->rank = f->conv_rank = 0;
    for (int i = 0; i < all->n; i++)
        for (size_t k = 0; k < kw_lora_n_modules(all->item[i]); k++) {
            const kw_lora_module *m = kw_lora_at(all->item[i], k);
            bool wide = m->geometry.kh > 1;
            *(wide ? &f->conv_rank : &f->rank) = m->rank;
            *(wide ? &f->conv_alpha : &f->alpha) = (double)m->alpha;
        }
    f->rank = f->rank ? f->rank : f->conv_rank;
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

/* Of single files, as other programs take them; read once, when the first result is saved. */
static kw_status base_hashes(kw_run *r, kw_arena *a, kw_lora_facts *f, kw_err *e)
{
    const kw_sd *sd = kw_trainer_base(r->trainer);
    if (r->s.metadata != KW_METADATA_FULL || !kw_source_is_single(sd->source))
        return KW_OK;
    if (!r->file_hash[0]) {
        KW_TRY(kw_sha256_file(kw_source_path(sd->source), r->file_hash, e));
        if (kw_sha256_short(kw_source_path(sd->source), r->file_short_hash, NULL))
            r->file_short_hash[0] = 0;    /* a file too short to have one */
    }
    f->base_hash = kw_strdup(a, r->file_hash);
    f->base_short_hash = r->file_short_hash[0] ? kw_strdup(a, r->file_short_hash) : NULL;
    return f->base_hash ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

static kw_lora_facts settings(const kw_run *r, int64_t epoch)
{
    static const char *const schedulers[] = { "constant", "cosine", "linear" };
    const kw_settings *s = &r->s;
    const kw_noise *z = kw_trainer_noise(r->trainer);
    const kw_unet_config *u = &kw_trainer_base(r->trainer)->unet;
    bool sdxl = u->add_dim > 0, v2 = !sdxl && u->context[0] == 1024;
    int64_t steps = kw_trainer_steps(r->trainer);
    return (kw_lora_facts){
        .name = s->name, .title = r->title, .trigger = s->trigger && *s->trigger ? s->trigger : NULL,
        .v2 = v2, .sdxl = sdxl, .v_prediction = z->spec.predict == KW_PREDICT_V,
        .resolution_w = r->resolution, .resolution_h = r->resolution, .base_name = kw_path_name(s->base),
        .vae_name = s->vae ? kw_path_name(s->vae) : NULL,
        .learning_rate = s->learning_rate, .unet_rate = s->learning_rate,
        .text_rate = r->learns_text ? r->tc.rate[KW_GROUP_TEXT] : -1, .scheduler = schedulers[s->scheduler],
        .warmup = s->warmup, .optimizer = r->tc.optimizer->spelled, .weight_decay = s->weight_decay, .beta1 = s->beta1,
        .beta2 = s->beta2, .eps = s->eps, .accumulation = s->accumulation, .batch = s->batch, .max_norm = s->max_norm,
        .min_snr = s->min_snr, .noise_offset = s->noise_offset, .caption_dropout = s->caption_dropout,
        .recompute = s->memory > 0, .flip = s->flip, .random_crop = s->random_crop, .shuffle = s->shuffle,
        .cache_latents = true, .zero_terminal_snr = z->spec.zero_snr, .keep_tokens = KW_MAX(s->keep_tokens, 0),
        .token_length = s->token_length, .clip_skip = s->clip_skip, .bf16 = r->tc.compute == KW_BF16,
        .base_dtype = r->tc.int8 ? "int8" : NULL, .seed = s->seed,
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
    ranks(r, &f);
    KW_TRY(base_hashes(r, a, &f, e));
    KW_TRY(folders(r, a, &f, e));
    KW_TRY(buckets(r, a, &f, e));
    return kw_lora_save(path, t, n, &f, (kw_metadata_level)r->s.metadata, NULL, e);
}
