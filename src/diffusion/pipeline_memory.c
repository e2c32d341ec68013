/*
 * pipeline_memory.c - what lies in memory while one part of the pipeline works.
 *
 *   text encoder ──► goes    U-Net ──► stays for the next picture, if the next parts fit beside it    decoder ──► goes
 *
 * Packed copies of weights make runs faster and may take what the memory leaves. Of the text encoder and the
 * autoencoder they are made again in a fraction of a second, and so are not kept while another part works.
 */
#include "pipeline_internal.h"

#include <string.h>

/* Everything that is neither weights nor workspace: program, libraries, tokenizer, pictures on their way. */
static const uint64_t other = 250000000;

static int part_of(int kind)
{
    return kind == KW__TEXT ? KW_PART_TEXT : kind == KW__UNET ? KW_PART_UNET : KW_PART_VAE;
}

static bool limited(const kw_pipeline *p) { return p->own && p->o.memory; }

static uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

/* The text encoders go together. */
static void let_go(kw_pipeline *p, int part)
{
    const kw_params *params = p->sd->params[part];
    for (size_t i = 0; i < kw_params_count(params); i++)
        kw_store_let_go(p->sd->store, kw_params_at(params, i)->state);
    if (part == KW_PART_TEXT)
        let_go(p, KW_PART_TEXT2);
}

void kw__pipeline_turn(kw_pipeline *p, int kind)
{
    int part = part_of(kind);
    if (p->awake >= 0 && p->awake != part && p->awake != KW_PART_UNET && limited(p))
        let_go(p, p->awake);
    p->awake = part;
}

void kw__pipeline_settle(kw_pipeline *p, const kw__program_slot *slot)
{
    if (!limited(p))
        return;
    if (slot->alone)
        let_go(p, KW_PART_UNET);
    if (kw_workspace_bytes(p->w) > kw_program_bytes(slot->p))
        kw_workspace_empty(p->w);
}

/* ---- text encoder and U-Net -------------------------------------------------------------------------------------- */

static kw_status plain(kw_pipeline *p, kw__program_slot *slot, kw_err *e)
{
    kw_graph *g;
    KW_TRY(kw__pipeline_graph(p, slot->arena, &slot->key, &g, e));
    return kw_program_new(slot->arena, g, p->sd->store, &p->o.run, &slot->p, e);
}

static size_t size_of(const kw_program *p) { return kw_program_bytes(p) + kw_program_weight_bytes(p); }

/* Programs that were promised more copies. */
static void forget_others(kw_pipeline *p, const kw__program_slot *slot)
{
    for (size_t i = 0; i < KW_LEN(p->slot); i++)
        if (&p->slot[i] != slot && p->slot[i].p && p->slot[i].key.kind == KW__UNET) {
            kw_arena_free(p->slot[i].arena);
            p->slot[i] = (kw__program_slot){ 0 };
        }
}

static size_t stays(const kw_pipeline *p)
{
    const kw_params *params = p->sd->params[KW_PART_UNET];
    size_t sum = 0;
    for (size_t i = 0; i < kw_params_count(params); i++) {
        kw_shape s = kw_params_at(params, i)->shape;
        const kw_stored *v = kw_store_at(p->sd->store, kw_params_at(params, i)->state);
        if (v->dtype == KW_I8)
            sum += kw_int8_size(s.d[0], kw_count(s) / s.d[0]);
        else if (!v->mapped && s.rank > 1)    /* a LoRA's kin merged into it */
            sum += (size_t)kw_count(s) * kw_dtype_size(v->dtype);
    }
    return sum;
}

/* With fewer and fewer copies until it fits: one that is not kept saves its size, or less where weights stay mapped. */
static kw_status make_unet(kw_pipeline *p, kw__program_slot *slot, kw_err *e)
{
    enum { TRIES = 6 };
    KW_TRY(plain(p, slot, e));
    p->unet_all = kw_program_weight_bytes(slot->p);
    uint64_t room = less(p->o.memory, other);
    for (int i = 0; i < TRIES && limited(p) && size_of(slot->p) > room && kw_store_packed_bytes(p->sd->store); i++) {
        uint64_t packed = kw_store_packed_bytes(p->sd->store), limit = less(packed, size_of(slot->p) - room);
        forget_others(p, slot);
        for (int part = 0; part < KW_N_PARTS; part++)
            let_go(p, part);
        kw_arena_free(slot->arena);
        slot->p = NULL;
        slot->arena = kw_arena_new();
        if (!slot->arena)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        kw_store_limit_packed(p->sd->store, limit);
        KW_TRY(plain(p, slot, e));
    }
    p->unet_bytes = kw_program_weight_bytes(slot->p);
    p->unet_stays = stays(p);
    return KW_OK;
}

/* ---- autoencoder ------------------------------------------------------------------------------------------------- */

/* Of one half of it, packed: four bytes for each number. */
static uint64_t vae_weights(const kw_pipeline *p, bool decode)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < kw_source_n(p->sd->vae_source, KW_PART_VAE); i++) {
        const kw_tensor *t = kw_source_at(p->sd->vae_source, KW_PART_VAE, i);
        if (!kw_starts_with(t->name, decode ? "encoder." : "decoder."))
            sum += 4 * (uint64_t)kw_tensor_count(t);
    }
    return sum;
}

static kw_status choose_tile(const kw_pipeline *p, const kw_vae_work *k, int *tile, kw_err *e)
{
    uint64_t all = less(less(p->o.memory, other), vae_weights(p, k->decode)), beside = less(all, p->unet_bytes),
             room = less(all, p->unet_stays);
    size_t bytes;
    *tile = p->o.vae_tile;
    if (*tile != KW_VAE_AUTO)
        return KW_OK;
    *tile = KW_VAE_WHOLE;
    if (!limited(p))
        return KW_OK;
    KW_TRY(kw_vae_fit(p->sd, k, KW_MAX(1, beside), tile, &bytes, e));
    return bytes <= beside ? KW_OK : kw_vae_fit(p->sd, k, KW_MAX(1, room), tile, &bytes, e);
}

static kw_status make_vae(kw_pipeline *p, kw__program_slot *slot, kw_err *e)
{
    const kw__program_key *key = &slot->key;
    kw_vae_work k = { key->kind == KW__DECODE, key->n, key->h, key->w, p->o.vae_bf16 ? KW_BF16 : KW_F32 };
    KW_TRY(choose_tile(p, &k, &slot->tile, e));
    return kw_vae_program(slot->arena, p->sd, &k, slot->tile, &p->o.run, &slot->p, e);
}

kw_status kw__pipeline_make(kw_pipeline *p, kw__program_slot *slot, kw_err *e)
{
    if (limited(p))
        kw_store_limit_packed(p->sd->store, SIZE_MAX);
    if (slot->key.kind == KW__UNET)
        return make_unet(p, slot, e);
    KW_TRY(slot->key.kind == KW__TEXT ? plain(p, slot, e) : make_vae(p, slot, e));
    slot->alone = limited(p) && other + p->unet_bytes + size_of(slot->p) > p->o.memory;
    return KW_OK;
}

/* ---- forecast ---------------------------------------------------------------------------------------------------- */

static const kw__program_slot *slot_of(const kw_pipeline *p, const kw_program *program)
{
    for (size_t i = 0; i < KW_LEN(p->slot); i++)
        if (p->slot[i].p == program)
            return &p->slot[i];
    return NULL;
}

kw_status kw_pipeline_forecast(kw_pipeline *p, int n, int width, int height, size_t windows, bool guided,
                               kw_pipeline_memory *out, kw_err *e)
{
    int f = kw_pipeline_factor(p), tokens = (int)windows * kw_tokenizer_max_length(p->tokenizer[0]);
    kw_program *unet, *pixels;
    *out = (kw_pipeline_memory){ 0 };
    KW_TRY(kw__pipeline_program(p, (kw__program_key){ .kind = KW__UNET, .n = guided ? 2 * n : n, .h = height / f,
                                                      .w = width / f, .tokens = tokens }, &unet, e));
    out->sampling = (double)other + (double)size_of(unet);
    out->unpacked = 1 - (double)p->unet_bytes / (double)KW_MAX(p->unet_all, 1);
    KW_TRY(kw__pipeline_program(p, (kw__program_key){ .kind = KW__DECODE, .n = 1, .h = height / f, .w = width / f },
                                &pixels, e));
    const kw__program_slot *slot = slot_of(p, pixels);
    out->step_work = kw_forecast_work(unet);
    out->decode_work = kw_forecast_work(pixels);
    out->tile = slot->tile;
    out->away = slot->alone;
    out->pixels = (double)other + (double)size_of(pixels) + (double)(slot->alone ? p->unet_stays : p->unet_bytes);
    return KW_OK;
}
