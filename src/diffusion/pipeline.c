/*
 * pipeline.c - opening a model for generation, and its programs by shape.
 *
 *   words ─ text encoder ─► (N, T, D) ─┐
 *   noise ─────────────────► U-Net, once per step ─► latents / scaling + shift ─ decoder ─► pixels
 */
#include "pipeline_internal.h"

#include <string.h>

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

static kw_net net_of(const kw_pipeline *p, kw_graph *g, kw_part part)
{
    kw_net n = kw_net_over(g, p->sd->params[part]);
    if (p->adapters.n && part != KW_PART_VAE) {
        n.seam = kw_adapters_seam;
        n.seam_ctx = kw_adapters_of(g->arena, &p->adapters, part);
        if (!n.seam_ctx)
            g->err.status = kw_fail(&g->err, KW_ENOMEM, "out of memory");
    }
    if (p->hypernets.n && part == KW_PART_UNET) {
        n.before = kw_hypernets_before;
        n.before_ctx = (void *)(uintptr_t)&p->hypernets;
    }
    return n;
}

static kw_val text(const kw_pipeline *p, kw_graph *g, const kw__program_key *k)
{
    static const char *const names[KW_ENCODERS] = { "ids", "ids2" };
    kw_sd_text_in in = { .end = KW_NONE, .clip_skip = k->skip };
    kw_clip_vectors vectors[KW_ENCODERS];
    kw_val pooled;
    for (int i = 0; i < kw_sd_encoders(p->sd); i++) {
        in.net[i] = net_of(p, g, kw_sd_encoder(i));
        in.vectors[i] = kw__inversion_inputs(p, g, k, i, &vectors[i]);
        in.ids[i] = kw_input(g, names[i], KW_SHAPE(k->n, k->tokens), KW_I64);
        in.end = i ? kw_input(g, "end", KW_SHAPE(k->n), KW_I64) : KW_NONE;
    }
    kw_val y = kw_sd_text(p->sd, &in, &pooled);
    if (pooled >= 0 && !g->err.status)
        kw_result(g, "pooled", kw_cast(g, pooled, KW_F32));
    return y;
}

static kw_val unet(const kw_pipeline *p, kw_graph *g, const kw__program_key *k)
{
    const kw_unet_config *c = &p->sd->unet;
    kw_net n = net_of(p, g, KW_PART_UNET);
    kw_val x = kw_cast(g, kw_input(g, "x", KW_SHAPE(k->n, k->h, k->w, c->in), KW_F32), g->compute);
    kw_val ctx = kw_cast(g, kw_input(g, "context", KW_SHAPE(k->n, k->tokens, c->context[0]), KW_F32), g->compute);
    kw_val t = kw_input(g, "t", KW_SHAPE(k->n), KW_F32), pooled = KW_NONE, sizes = KW_NONE;
    if (c->add_dim) {
        pooled = kw_cast(g, kw_input(g, "pooled", KW_SHAPE(k->n, kw_sd_pooled_width(p->sd)), KW_F32), g->compute);
        sizes = kw_input(g, "sizes", KW_SHAPE(k->n, KW_SIZES), KW_F32);
    }
    return kw_unet(&n, c, x, t, ctx, pooled, sizes);
}

kw_status kw__pipeline_graph(const kw_pipeline *p, kw_arena *a, const kw__program_key *k, kw_graph **out, kw_err *e)
{
    kw_graph *g = kw_graph_new(a, p->o.compute);
    if (!g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_val y = k->kind == KW__TEXT ? text(p, g, k) : unet(p, g, k);
    if (!g->err.status)
        kw_result(g, "y", kw_cast(g, y, KW_F32));
    if (g->err.status && e)
        *e = g->err;
    *out = g;
    return g->err.status;
}

kw_status kw__pipeline_dry(kw_pipeline *p, kw_err *e)
{
    int side = 1 << p->sd->unet.levels, tokens = kw_tokenizer_max_length(p->tokenizer[0]);
    kw__program_key keys[] = { { .kind = KW__TEXT, .n = 1, .tokens = tokens, .skip = 1 },
                               { .kind = KW__UNET, .n = 1, .h = side, .w = side, .tokens = tokens } };
    kw_arena *a = kw_arena_new();
    kw_status s = a ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_graph *g;
    for (size_t i = 0; !s && i < KW_LEN(keys); i++)
        s = kw__pipeline_graph(p, a, &keys[i], &g, e);
    kw_arena_free(a);
    return s;
}

/* ---- programs ---------------------------------------------------------------------------------------------------- */

static kw__program_slot *find(kw_pipeline *p, const kw__program_key *key)
{
    for (size_t i = 0; i < KW_LEN(p->slot); i++)
        if (p->slot[i].p && !memcmp(&p->slot[i].key, key, sizeof *key))
            return &p->slot[i];
    return NULL;
}

static kw_status replace_oldest(kw_pipeline *p, const kw__program_key *key, kw__program_slot **out, kw_err *e)
{
    kw__program_slot *oldest = &p->slot[0];
    for (size_t i = 1; i < KW_LEN(p->slot); i++)
        if (p->slot[i].used < oldest->used)
            oldest = &p->slot[i];
    kw_arena_free(oldest->arena);
    *oldest = (kw__program_slot){ .key = *key, .arena = kw_arena_new() };
    kw_status s = oldest->arena ? kw__pipeline_make(p, oldest, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    if (s)
        oldest->p = NULL;
    *out = oldest;
    return s;
}

kw_status kw__pipeline_program(kw_pipeline *p, kw__program_key key, kw_program **out, kw_err *e)
{
    KW_TRY(kw__pipeline_merge(p, e));
    kw__program_slot *slot = find(p, &key);
    kw__pipeline_turn(p, key.kind);
    if (!slot)
        KW_TRY(replace_oldest(p, &key, &slot, e));
    slot->used = ++p->clock;
    for (int i = 0; i < p->n_strengths; i++)
        kw_program_set(slot->p, p->strength[i].name, &p->strength[i].value);
    kw__pipeline_settle(p, slot);
    *out = slot->p;
    return KW_OK;
}

static void release(void *pipeline)
{
    kw_pipeline *p = pipeline;
    for (size_t i = 0; i < KW_LEN(p->slot); i++)
        kw_arena_free(p->slot[i].arena);
    for (size_t i = 0; i < KW_LEN(p->encoding); i++)
        kw__encodings_drop(&p->encoding[i]);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static kw_status check_parts(const kw_sd *sd, kw_err *e)
{
    static const kw_part needed[] = { KW_PART_UNET, KW_PART_TEXT, KW_PART_VAE };
    for (size_t i = 0; i < KW_LEN(needed); i++)
        if (!sd->has[needed[i]]) {
            kw_status s = kw_fail(e, KW_EDATA, N_("%s has no %s"), kw_source_path(sd->source), kw_part_name(needed[i]));
            return needed[i] == KW_PART_VAE ? kw_advise(e, s, N_("give an autoencoder with --vae FILE"))
                                            : kw_advise(e, s,
                                                        N_("pictures need a U-Net, a text encoder and an autoencoder"));
        }
    const char *base = kw_source_path(sd->source);
    if ((sd->unet.in != sd->vae.latent && !kw_sd_inpaints(sd)) || sd->unet.out != sd->vae.latent)
        return kw_fail(e, KW_EDATA,
                       N_("%s: the U-Net takes %d channels and gives %d, the autoencoder has %d"),
                       base, sd->unet.in, sd->unet.out, sd->vae.latent);
    return kw_sd_check_texts(sd, e);
}

kw_status kw_pipeline_over(kw_arena *a, const kw_sd *sd, const kw_adapters *adapters, kw_workspace *w,
                           const kw_pipeline_options *o,
                           kw_pipeline **out, kw_err *e)
{
    kw_noise_spec spec;
    kw_pipeline *p = kw_alloc(a, sizeof *p);
    if (!p || kw_defer(a, release, p))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *p = (kw_pipeline){ .arena = a, .o = *o, .sd = sd, .w = w ? w : kw_workspace_new(a), .awake = KW_NONE };
    if (!p->w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (adapters)
        p->adapters = *adapters;
    KW_TRY(check_parts(sd, e));
    KW_TRY(kw_sd_tokenizers(a, sd, o->tokenizer, p->tokenizer, e));
    p->zeros = sd->unet.add_dim && kw_source_says(sd->source, "force_zeros_for_empty_prompt", true);
    KW_TRY(kw_noise_spec_of(kw_source_noise(sd->source), &spec, e));
    spec.clip = 0;                        /* whatever an old file says: so does diffusers' StableDiffusionPipeline */
    spec.steps_offset = 1;
    spec.sdxl = sd->unet.add_dim > 0;
    KW_TRY(kw_noise_build(a, &spec, &p->noise, e));
    *out = p;
    return KW_OK;
}

kw_status kw_pipeline_open(kw_arena *a, const char *base, const char *vae, const kw_pipeline_lora *lora, size_t n_lora,
                           const kw_pipeline_options *o, kw_pipeline **out, kw_err *e)
{
    kw_store *store = kw_store_new(a);
    kw_sd *sd;
    if (!store)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_sd_open(a, base, vae, store, KW_F32, NULL, NULL, &sd, e));
    if (o->int8)
        kw_sd_int8(sd);
    KW_TRY(kw_pipeline_over(a, sd, NULL, NULL, o, out, e));
    (*out)->own = true;
    return kw__pipeline_loras(*out, lora, n_lora, e);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

const kw_sd *kw_pipeline_base(const kw_pipeline *p) { return p->sd; }
const kw_noise *kw_pipeline_noise(const kw_pipeline *p) { return p->noise; }
const kw_tokenizer *kw_pipeline_tokenizer(const kw_pipeline *p) { return p->tokenizer[0]; }
kw_program *kw_pipeline_program(const kw_pipeline *p, int i)
{
    for (size_t k = 0; k < KW_LEN(p->slot); k++)
        if (p->slot[k].p && !i--)
            return p->slot[k].p;
    return NULL;
}

size_t kw_pipeline_encoded(const kw_pipeline *p) { return p->n_encoded; }
int kw_pipeline_factor(const kw_pipeline *p) { return kw_vae_factor(&p->sd->vae); }

int kw_pipeline_native(const kw_pipeline *p)
{
    return p->sd->unet.sample_size ? p->sd->unet.sample_size * kw_pipeline_factor(p) : 512;
}
