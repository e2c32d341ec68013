/*
 * step.c - the graph of one training step.
 *
 *   x_t = a x_0 + b eps ── U-Net(x_t, t, text) ──┐
 *   target = eps, or v = a eps - b x_0 ──────────┴── mean of weight (prediction - target)²
 *
 * An inpainting base sees [ x_t | mask | latents of the masked picture ] (diffusion/inpaint.c); its target is as above.
 *
 * Ho et al. 2020 (arXiv:2006.11239), Salimans & Ho 2022 (arXiv:2202.00512).
 */
#include "step.h"

static kw_net net_of(const kw__step *s, kw_graph *g, kw_part p)
{
    kw_net n = kw_net_over(g, s->sd->params[p]);
    if (!s->adapters)
        return n;
    n.seam = kw_adapters_seam;
    n.seam_ctx = kw_adapters_of(g->arena, s->adapters, p);
    if (!n.seam_ctx)
        g->err.status = kw_fail(&g->err, KW_ENOMEM, "out of memory");
    return n;
}

/*
 * Windows of the encoder's length become samples of their own and are joined again: 77 k tokens, k windows. The pooled
 * text is that of the first.
 */
static kw_val encode_text(kw_graph *g, const kw__step *s, const kw_micro *b, bool first_alone, kw_val *pooled)
{
    static const char *const names[KW_ENCODERS] = { "ids", "ids2" };
    int most = s->sd->text.positions, window = b->tokens <= most ? b->tokens : most, windows = b->tokens / window;
    int encoders = first_alone ? 1 : kw_sd_encoders(s->sd);
    kw_sd_text_in in = { .end = KW_NONE, .clip_skip = s->c->clip_skip, .first_alone = first_alone };
    for (int i = 0; i < encoders; i++) {
        in.net[i] = net_of(s, g, kw_sd_encoder(i));
        in.ids[i] = kw_input(g, names[i], KW_SHAPE(b->n * windows, window), KW_I64);
        in.end = i ? kw_input(g, "end2", KW_SHAPE(b->n * windows), KW_I64) : KW_NONE;
    }
    kw_val h = kw_sd_text(s->sd, &in, pooled);
    if (g->err.status)
        return KW_NONE;
    if (*pooled >= 0 && windows > 1) {
        int64_t each = kw_last(kw_shape_of(g, *pooled));
        *pooled = kw_slice(g, kw_reshape(g, *pooled, KW_SHAPE(b->n, windows * each)), 0, each);
    }
    return kw_reshape(g, h, KW_SHAPE(b->n, b->tokens, kw_last(kw_shape_of(g, h))));
}

/* What the U-Net is told of the captions: encoded here, or as the caches have it. */
static kw_val context(kw_graph *g, const kw__step *s, const kw_micro *b, kw_val *pooled)
{
    int64_t pool = kw_sd_pooled_width(s->sd);
    *pooled = KW_NONE;
    if (b->ids)
        return encode_text(g, s, b, false, pooled);
    if (pool)
        *pooled = kw_cast(g, kw_input(g, "pooled", KW_SHAPE(b->n, pool), KW_F32), g->compute);
    return kw_cast(g, kw_input(g, "context", KW_SHAPE(b->n, b->tokens, s->sd->unet.context[0]), KW_F32), g->compute);
}

static kw_val diffusion(kw_graph *g, const kw__step *s, const kw_micro *b)
{
    kw_val pooled = KW_NONE, sizes = KW_NONE;
    kw_net n = net_of(s, g, KW_PART_UNET);
    int c = s->sd->unet.in - kw_sd_inpaints(s->sd) * (s->sd->vae.latent + 1);
    kw_shape shape = KW_SHAPE(b->n, b->h, b->w, c), each = KW_SHAPE(b->n);
    kw_val x0 = kw_input(g, "latents", shape, KW_F32), eps = kw_input(g, "noise", shape, KW_F32);
    kw_val xt = kw_blend(g, x0, eps, kw_input(g, "a", each, KW_F32), kw_input(g, "b", each, KW_F32));
    kw_val target = kw_blend(g, x0, eps, kw_input(g, "a_target", each, KW_F32), kw_input(g, "b_target", each, KW_F32));
    kw_val ctx = context(g, s, b, &pooled);
    if (ctx < 0)
        return KW_NONE;
    if (kw_sd_inpaints(s->sd))
        xt = kw_concat(g, xt, kw_input(g, "beside", KW_SHAPE(b->n, b->h, b->w, c + 1), KW_F32));
    if (s->sd->unet.add_dim)
        sizes = kw_input(g, "sizes", KW_SHAPE(b->n, KW_SIZES), KW_F32);
    kw_val y = kw_unet(&n, &s->sd->unet, kw_cast(g, xt, g->compute), kw_input(g, "timesteps", each, KW_F32), ctx,
                       pooled, sizes);
    return g->err.status ? KW_NONE : kw_mse(g, y, target, kw_input(g, "weight", each, KW_F32));
}

/* mean |picture - reconstruction| + kl · KL(posterior || unit Gaussian) */
static kw_val autoencoder(kw_graph *g, const kw__step *s, const kw_micro *b)
{
    const kw_vae_config *c = &s->sd->vae;
    kw_net n = net_of(s, g, KW_PART_VAE);
    int f = kw_vae_factor(c);
    kw_val image = kw_input(g, "image", KW_SHAPE(b->n, b->h, b->w, c->in), KW_F32);
    kw_val moments = kw_vae_encode(&n, c, kw_cast(g, image, g->compute)), z;
    if (g->err.status)
        return KW_NONE;
    if (b->noise)
        z = kw_gaussian(g, moments, kw_cast(g, kw_input(g, "noise",
                                                        KW_SHAPE(b->n, b->h / f, b->w / f, c->latent), KW_F32),
                                            g->compute));
    else
        z = kw_slice(g, moments, 0, c->latent);
    kw_val y = kw_vae_decode(&n, c, z);
    if (g->err.status)
        return KW_NONE;
    kw_val loss = kw_axby(g, 1, kw_l1(g, y, image), (float)s->c->kl, kw_kl(g, moments));
    return s->c->mse > 0 ? kw_axby(g, 1, loss, (float)s->c->mse, kw_mse(g, y, image, KW_NONE)) : loss;
}

static kw_val align(kw_graph *g, const kw__step *s, const kw_micro *b)
{
    kw_val pooled, text = encode_text(g, s, b, true, &pooled);
    return text < 0 ? KW_NONE
                    : kw__align_loss(g, s->heads, text,
                                     kw_input(g, "latents", KW_SHAPE(b->n, b->h, b->w, s->sd->vae.latent), KW_F32));
}

kw_status kw__step_loss(kw_graph *g, const kw__step *s, const kw_micro *b, kw_val *loss, kw_err *e)
{
    bool unet = !s->heads && !b->image;
    if (unet && s->sd->unet.add_dim && (!b->sizes || (b->ids ? !b->ids2 || !b->end2 : !b->pooled)))
        return kw_fail(e, KW_EDATA, N_("%s is an SDXL model: a batch needs sizes and the second text encoder's part"),
                       kw_source_path(s->sd->source));
    if (unet && kw_sd_inpaints(s->sd) && !b->beside)
        return kw_fail(e, KW_EDATA, N_("%s is an inpainting model: a batch needs masks and masked pictures"),
                       kw_source_path(s->sd->source));
    *loss = s->heads ? align(g, s, b) : b->image ? autoencoder(g, s, b) : diffusion(g, s, b);
    if (g->err.status && e)
        *e = g->err;
    return g->err.status;
}

/* ---- the graph alone --------------------------------------------------------------------------------------------- */

int kw__group_of_part(kw_part p)
{
    static const int group[KW_N_PARTS] = { [KW_PART_UNET] = KW_GROUP_UNET, [KW_PART_VAE] = KW_GROUP_VAE,
                                           [KW_PART_TEXT] = KW_GROUP_TEXT, [KW_PART_TEXT2] = KW_GROUP_TEXT2 };
    return group[p];
}

kw_status kw__add_adapters(kw_arena *a, kw_sd *sd, const kw_train_config *c, bool trained, kw_adapters *out, kw_err *e)
{
    static const struct { kw_part part; unsigned targets; } rows[] = {
        { KW_PART_UNET, KW_TARGET_ATTENTION | KW_TARGET_FF | KW_TARGET_CONV }, { KW_PART_TEXT, KW_TARGET_TEXT },
        { KW_PART_TEXT2, KW_TARGET_TEXT },
    };
    for (size_t i = 0; c->lora && i < KW_LEN(rows); i++) {
        kw_lora_config one = c->adapter;
        one.trained = trained;
        one.group = kw__group_of_part(rows[i].part);
        one.names = kw_lora_names_of(&sd->unet);
        if (!(one.targets & rows[i].targets) || !sd->has[rows[i].part]
            || (rows[i].part == KW_PART_TEXT2 && kw_sd_encoders(sd) < 2))
            continue;
        KW_TRY(kw_lora_new(a, sd->store, rows[i].part, &one, c->init, &out->item[out->n], e));
        out->n++;
    }
    return KW_OK;
}

/* Gradients of all parameters of these sets become results, so that pruning keeps them. */
static kw_status want_gradients(kw_graph *g, kw_params *const *sets, int n_sets, kw_val loss, kw_err *e)
{
    size_t n = 0;
    for (int k = 0; k < n_sets; k++)
        n += kw_params_count(sets[k]);
    kw_val *wrt = kw_alloc_array(g->arena, n + 1, sizeof *wrt), *d = kw_alloc_array(g->arena, n + 1, sizeof *d);
    kw_val dloss = kw_input(g, "dloss", KW_SHAPE(1), KW_F32);
    if (!wrt || !d)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    n = 0;
    for (int k = 0; k < n_sets; k++)
        for (size_t i = 0; i < kw_params_count(sets[k]); i++) {
            const kw_param_info *one = kw_params_at(sets[k], i);
            wrt[n++] = kw_state(g, one->state, one->shape, kw_store_at(kw_params_store(sets[k]), one->state)->dtype);
        }
    KW_TRY(kw_backward(g, &loss, &dloss, 1, wrt, (int)n, d, e));
    for (size_t i = 0; i < n; i++)
        if (d[i] >= 0)
            kw_result(g, "gradient", d[i]);
    return KW_OK;
}

kw_status kw_step_graph(kw_arena *a, kw_sd *sd, const kw_train_config *c, const kw_micro *b, kw_graph **out, kw_err *e)
{
    kw_adapters *adapters = kw_alloc(a, sizeof *adapters);
    kw_graph *g = *out = kw_graph_new(a, c->compute);
    kw_params *sets[KW_N_PARTS + 16];
    kw_val loss = KW_NONE;
    int n = 0;
    if (!adapters || !g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw__add_adapters(a, sd, c, false, adapters, e));
    kw__step s = { .sd = sd, .c = c, .adapters = adapters };
    KW_TRY(kw__step_loss(g, &s, b, &loss, e));
    kw_result(g, "loss", loss);
    for (int i = 0; i < adapters->n; i++)
        sets[n++] = kw_lora_params(adapters->item[i]);
    for (int p = 0; !c->lora && p < KW_N_PARTS; p++)
        if (c->parts & 1u << p)
            sets[n++] = sd->params[p];
    KW_TRY(want_gradients(g, sets, n, loss, e));
    return kw_prune(g, e);
}
