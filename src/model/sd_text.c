/*
 * sd_text.c - what a U-Net is told of a text.
 *
 *   SD 1.x, 2.x   ids ── encoder ── layer -skip ── final norm ────────────────────► context (N, T, W)
 *   SDXL          ids ── encoder 1 ── layer -2 ──────────────────────┐
 *                 ids ── encoder 2 ─┬ layer -2 ──────────────────────┴ side by side ► context (N, T, W1 + W2)
 *                                   └ last ── final norm ── at the end mark ── projection ► pooled (N, P)
 *
 * Podell et al. 2023 (arXiv:2307.01952), section 2.1; diffusers' StableDiffusionXLPipeline.encode_prompt.
 */
#include "model.h"

kw_part kw_sd_encoder(int i) { return i ? KW_PART_TEXT2 : KW_PART_TEXT; }

const kw_clip_config *kw_sd_clip(const kw_sd *s, int i) { return i ? &s->text2 : &s->text; }

/* The U-Net decides: what else lies in a folder is not asked. */
int kw_sd_encoders(const kw_sd *s) { return s->unet.add_dim && s->has[KW_PART_TEXT2] ? 2 : 1; }

int kw_sd_text_width(const kw_sd *s) { return s->text.width + (kw_sd_encoders(s) > 1 ? s->text2.width : 0); }

int kw_sd_pooled_width(const kw_sd *s)
{
    return s->unet.add_dim ? s->unet.add_dim - KW_SIZES * s->unet.add_time_dim : 0;
}

int kw_sd_clip_layers(const kw_sd *s)
{
    return kw_sd_encoders(s) > 1 ? KW_MIN(s->text.layers, s->text2.layers) : s->text.layers;
}

/* ---- the graph --------------------------------------------------------------------------------------------------- */

/* hidden[layers] is the last one, before the final norm. */
static kw_val layer_of(const kw_clip_config *c, const kw_val *hidden, int skip)
{
    return hidden[KW_MAX(c->layers + 1 - skip, 0)];
}

static kw_val one_encoder(const kw_sd *s, kw_sd_text_in *in)
{
    kw_val hidden[260], last = kw_clip_with(&in->net[0], &s->text, in->ids[0], in->vectors[0], hidden);
    if (in->net[0].g->err.status)
        return KW_NONE;
    if (in->clip_skip > 1)
        last = kw_clip_final_norm(&in->net[0], &s->text, layer_of(&s->text, hidden, in->clip_skip));
    return last;
}

kw_val kw_sd_text(const kw_sd *s, const kw_sd_text_in *given, kw_val *pooled)
{
    kw_sd_text_in in = *given;
    kw_val hidden[260], side[KW_ENCODERS] = { KW_NONE, KW_NONE }, last = KW_NONE;
    *pooled = KW_NONE;
    if (kw_sd_encoders(s) == 1 || in.first_alone)
        return one_encoder(s, &in);
    for (int i = 0; i < KW_ENCODERS; i++) {
        last = kw_clip_with(&in.net[i], kw_sd_clip(s, i), in.ids[i], in.vectors[i], hidden);
        if (in.net[i].g->err.status)
            return KW_NONE;
        side[i] = layer_of(kw_sd_clip(s, i), hidden, KW_MAX(in.clip_skip, 2));
    }
    *pooled = kw_clip_pooled(&in.net[1], &s->text2, last, in.end);
    return kw_concat(in.net[0].g, side[0], side[1]);
}

/* ---- do the parts fit? ------------------------------------------------------------------------------------------- */

kw_status kw_sd_check_texts(const kw_sd *s, kw_err *e)
{
    const char *base = kw_source_path(s->source);
    if (s->unet.add_dim && !s->has[KW_PART_TEXT2]) {
        kw_status st = kw_fail(e, KW_EDATA, N_("%s has no %s"), base, kw_part_name(KW_PART_TEXT2));
        return kw_advise(e, st, N_("an SDXL U-Net needs both text encoders"));
    }
    if (s->unet.context[0] != kw_sd_text_width(s))
        return kw_fail(e, KW_EDATA, N_("%s: the text encoder gives %d numbers per token, the U-Net takes %d"), base,
                       kw_sd_text_width(s), s->unet.context[0]);
    int pooled = s->text2.projection ? s->text2.projection : s->text2.width;
    if (s->unet.add_dim && kw_sd_pooled_width(s) != pooled) {
        kw_status st = kw_fail(e, KW_EDATA,
                               N_("%s: the text encoder's pooled output has %d numbers, the U-Net takes %d"), base,
                               pooled, kw_sd_pooled_width(s));
        return kw_advise(e, st, N_("SDXL's refiner has another conditioning; it cannot be used as the base"));
    }
    return KW_OK;
}

/* ---- tokenizers -------------------------------------------------------------------------------------------------- */

static kw_status fits(const kw_sd *s, int i, const char *shown, const kw_tokenizer *t, kw_err *e)
{
    int size = kw_tokenizer_size(t), length = kw_tokenizer_max_length(t);
    const kw_clip_config *c = kw_sd_clip(s, i);
    if (size <= c->vocabulary && length <= c->positions)
        return KW_OK;
    kw_status st = kw_fail(e, KW_EDATA,
                           N_("%s: the tokenizer has %d tokens in windows of %d, the text encoder %d and %d"),
                           shown ? shown : kw_source_path(s->source), size, length, c->vocabulary, c->positions);
    return kw_advise(e, st, N_("the model needs its own tokenizer/ folder"));
}

static kw_status open_tokenizer(kw_arena *a, const kw_sd *s, int i, const char **shown, kw_tokenizer **out, kw_err *e)
{
    enum { PAD = 0 };                     /* "!", OpenCLIP's */
    const char *own = kw_source_tokenizer(s->source, kw_sd_encoder(i)),
               *first = kw_source_tokenizer(s->source, KW_PART_TEXT);
    *out = NULL;
    if (own)
        KW_TRY(kw_tokenizer_open(a, *shown = own, out, e));
    else if (i && first && kw_is_file(first))
        KW_TRY(kw_tokenizer_open_second(a, *shown = first, out, e));
    if (*out)
        return KW_OK;
    KW_TRY(kw_tokenizer_clip(a, out, e));
    return kw_sd_clip(s, i)->act == KW_GELU ? kw_tokenizer_padded(a, *out, PAD, out, e) : KW_OK;
}

kw_status kw_sd_tokenizers(kw_arena *a, const kw_sd *s, kw_tokenizer *given, kw_tokenizer *out[KW_ENCODERS], kw_err *e)
{
    out[0] = out[1] = NULL;
    for (int i = 0; i < kw_sd_encoders(s); i++) {
        const char *shown = NULL;
        out[i] = given;
        if (!given)
            KW_TRY(open_tokenizer(a, s, i, &shown, &out[i], e));
        KW_TRY(fits(s, i, shown, out[i], e));
    }
    if (!out[1] || kw_tokenizer_max_length(out[0]) == kw_tokenizer_max_length(out[1]))
        return KW_OK;
    return kw_fail(e, KW_EDATA, N_("%s: the two tokenizers have windows of %d and %d tokens"),
                   kw_source_path(s->source), kw_tokenizer_max_length(out[0]), kw_tokenizer_max_length(out[1]));
}
