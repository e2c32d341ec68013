/* batches.c - what a step is fed with: latents, noise, timesteps, texts, each a pure function
 * of the seed and its place. */
#include "run_internal.h"

#include <string.h>

static const kw_sd *base(const kw_run *r) { return kw_trainer_base(r->trainer); }

static kw_rng stream(const kw_run *r, kw_rng_stream what, int64_t m, int sample)
{
    return (kw_rng){ .seed = r->s.seed, .stream = what, .step = (uint32_t)m, .sample = (uint32_t)sample };
}

/* ---- the frozen autoencoder: one picture to its moments ---------------------------------------------------------- */

/* In stripes where the whole would not keep to --memory, or where they are asked for. */
static kw_status build_encoder(kw_run *r, int w, int h, kw_err *e)
{
    const kw_sd *sd = base(r);
    int f = kw_vae_factor(&sd->vae), tile = r->s.vae_tile;
    kw_vae_work k = { .n = 1, .h = h / f, .w = w / f, .compute = KW_F32 };
    size_t bytes;
    kw_arena_free(r->encoder_arena);
    r->encoder = NULL;
    r->encoder_arena = kw_arena_new();
    if (!r->encoder_arena)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (tile == KW_VAE_AUTO)
        KW_TRY(kw_vae_fit(sd, &k, r->s.memory, &tile, &bytes, e));
    KW_TRY(kw_vae_program(r->encoder_arena, sd, &k, tile, NULL, &r->encoder, e));
    r->encoder_w = w;
    r->encoder_h = h;
    return KW_OK;
}

static kw_status encode(void *user, const float *image, int w, int h, float *moments, kw_err *e)
{
    kw_run *r = user;
    if (!r->encoder || r->encoder_w != w || r->encoder_h != h)
        KW_TRY(build_encoder(r, w, h, e));
    kw_program_set(r->encoder, "image", image);
    KW_TRY(kw_program_run(r->encoder, kw_trainer_workspace(r->trainer), e));
    memcpy(moments, kw_program_result(r->encoder, "y"),
           sizeof(float) * (size_t)kw_count(kw_program_result_shape(r->encoder, "y")));
    return KW_OK;
}

kw_status kw__run_encoder_work(kw_run *r, int w, int h, double *work, kw_err *e)
{
    KW_TRY(build_encoder(r, w, h, e));
    *work = kw_forecast_work(r->encoder);
    return KW_OK;
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static kw_status picture_micro(kw_run *r, kw_arena *a, kw_batch *b, int64_t m, kw_micro *out, kw_err *e)
{
    const kw_vae_config *v = &base(r)->vae;
    int64_t pixels = (int64_t)b->h * b->w, latent = pixels / kw_vae_factor(v) / kw_vae_factor(v) * v->latent;
    float *image = kw_alloc_array(a, b->n * (size_t)pixels * 3, sizeof *image),
          *noise = kw_alloc_array(a, b->n * (size_t)latent, sizeof *noise);
    if (!image || !noise)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_loader_images(r->loader, b, image, e));
    for (size_t i = 0; i < b->n; i++)
        kw_rng_normals(stream(r, KW_RNG_LATENT, m, (int)i), 0, noise + i * (size_t)latent, (size_t)latent);
    *out = (kw_micro){ .n = (int)b->n, .h = b->h, .w = b->w, .image = image, .noise = noise };
    return KW_OK;
}

/*
 * A picture's masks come one after another as it is seen again and again, and then from the first on; without a number
 * of them each is another one. Held out: by the timestep, so that the loss is over the same ones each time.
 */
static kw_status mask_numbers(const kw_run *r, kw_arena *a, const kw_batch *b, int held_out, const uint32_t **out,
                              kw_err *e)
{
    uint32_t *number = kw_alloc_array(a, b->n, sizeof *number), of = (uint32_t)r->s.masks;
    if (!number)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < b->n; i++) {
        const kw_sample *s = &b->samples[i];
        uint32_t seen = s->epoch * (uint32_t)r->data->items[s->item].repeats + s->repeat;
        number[i] = held_out >= 0 ? (uint32_t)held_out : of ? seen % of : seen;
    }
    *out = number;
    return KW_OK;
}

/* held_out: number of the timestep, below 0: none is. */
static kw_status latent_micro(kw_run *r, kw_arena *a, kw_batch *b, int64_t m, int held_out, kw_micro *out, kw_err *e)
{
    const kw_vae_config *v = &base(r)->vae;
    const kw_chance chance = {
        .seed = r->s.seed, .noise_offset = r->s.noise_offset, .stratified = r->s.stratified, .mean = r->align
    };
    *out = (kw_micro){ .n = (int)b->n, .h = b->h / kw_vae_factor(v), .w = b->w / kw_vae_factor(v) };
    size_t pixels = b->n * (size_t)out->h * (size_t)out->w, n = pixels * 2 * (size_t)v->latent;
    bool inpaints = kw_sd_inpaints(base(r)) && !r->align;
    float *moments = kw_alloc_array(a, n, sizeof *moments),
          *masked = inpaints ? kw_alloc_array(a, n, sizeof *masked) : NULL,
          *mask = inpaints ? kw_alloc_array(a, pixels, sizeof *mask) : NULL;
    kw_masking k = { .seed = r->s.seed, .keep = r->s.masks || held_out >= 0 };
    if (!moments || (inpaints && (!masked || !mask)))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (inpaints) {
        KW_TRY(mask_numbers(r, a, b, held_out, &k.number, e));
        KW_TRY(kw_latents_masked(r->latents, b, &k, moments, mask, masked, e));
        KW_TRY(kw_chance_beside(a, &chance, v, mask, masked, m, out, e));
    } else {
        KW_TRY(kw_latents_get(r->latents, b, moments, e));
    }
    return kw_chance_micro(a, &chance, v, kw_trainer_noise(r->trainer)->n, moments, m, out, e);
}

static kw_status captions_of(kw_run *r, kw_arena *a, const kw_batch *b, bool plain, const char **texts, kw_err *e)
{
    kw_caption_config c = { .seed = r->s.seed, .any_line = r->s.any_line, .shuffle = r->s.shuffle,
                            .keep_tokens = r->s.keep_tokens, .dropout = r->s.caption_dropout };
    if (plain)
        c = (kw_caption_config){ .seed = r->s.seed };
    for (size_t i = 0; i < b->n; i++)
        KW_TRY(kw_caption_make(a, r->data, &c, &b->samples[i], &texts[i], e));
    return KW_OK;
}

kw_status kw__run_micro(kw_run *r, kw_arena *a, int64_t m, kw_micro *out, kw_err *e)
{
    kw_batch b;
    KW_TRY(kw_plan_batch(r->plan, a, m, &b, e));
    if (r->vae) {
        KW_TRY(picture_micro(r, a, &b, m, out, e));
        kw_batch next;
        KW_TRY(kw_plan_batch(r->plan, a, m + 1, &next, e));
        kw_loader_prefetch(r->loader, &next);
        return KW_OK;
    }
    const char **texts = kw_alloc_array(a, b.n, sizeof *texts);
    if (!texts)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(latent_micro(r, a, &b, m, KW_NONE, out, e));
    KW_TRY(captions_of(r, a, &b, false, texts, e));
    KW_TRY(kw__run_sizes(r, a, &b, out, e));
    return kw__run_texts(r, a, texts, (int)b.n, out, e);
}

/* Held-out picture i at one of a few fixed timesteps, with noise of its own that never changes; the mean latent. */
kw_status kw__run_validation_micro(kw_run *r, kw_arena *a, int64_t i, int time, kw_micro *out, kw_err *e)
{
    kw_batch b;
    KW_TRY(kw_plan_batch(r->held_out, a, i, &b, e));
    if (r->vae) {
        KW_TRY(picture_micro(r, a, &b, i, out, e));
        out->noise = NULL;
        return KW_OK;
    }
    const char *text = "";
    KW_TRY(latent_micro(r, a, &b, i, time, out, e));
    KW_TRY(captions_of(r, a, &b, true, &text, e));
    KW_TRY(kw__run_sizes(r, a, &b, out, e));
    KW_TRY(kw__run_texts(r, a, &text, 1, out, e));
    int64_t *t = kw_alloc(a, sizeof *t);
    float *noise = kw_alloc_array(a, (size_t)(out->h * out->w * base(r)->vae.latent), sizeof *noise);
    if (!t || !noise)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *t = (int64_t)((time + 0.5) / KW__VALIDATE_TIMES * kw_trainer_noise(r->trainer)->n);
    kw_rng_normals(stream(r, KW_RNG_VALIDATE, i, time), 0, noise, (size_t)(out->h * out->w * base(r)->vae.latent));
    out->timesteps = t;
    out->noise = noise;
    return KW_OK;
}

static bool filled(void *user, size_t done, size_t n)
{
    return kw__run_tell(user, KW_PHASE_LATENTS, done, n);
}

/* Everything that the bits of an encoder depend on: what another number of threads has cached is another's. */
static const char *made_by(const kw_run *r, const char *hash)
{
    return kw_sprintf(r->arena, "%s %s %s %d", hash, KW_VERSION, kw_kern_get()->isa, kw_threads());
}

kw_status kw__run_fill_caches(kw_run *r, kw_err *e)
{
    const kw_sd *sd = base(r);
    r->vae_made_by = made_by(r, r->vae_hash);
    const char *texts = *r->text_hash[1] ? kw_sprintf(r->arena, "%s %s", r->text_hash[0], r->text_hash[1])
                                         : r->text_hash[0];
    r->text_made_by = texts ? made_by(r, texts) : NULL;
    if (!r->vae_made_by || !r->text_made_by)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (r->vae)
        return KW_OK;
    kw_latents_config c = { .cache = r->cache, .loader = r->loader, .vae_hash = r->vae_made_by,
                            .factor = kw_vae_factor(&sd->vae), .channels = 2 * sd->vae.latent,
                            .background = { r->background[0], r->background[1], r->background[2] }, .encode = encode,
                            .user = r };
    KW_TRY(kw_latents_new(r->arena, r->data, &c, &r->latents, e));
    KW_TRY(kw_latents_fill(r->latents, r->plan, filled, r, e));
    return r->held_out ? kw_latents_fill(r->latents, r->held_out, filled, r, e) : KW_OK;
}
