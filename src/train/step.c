/*
 * step.c - the graph of one training step.
 *
 *   x_t = a x_0 + b eps ── U-Net(x_t, t, text) ──┐
 *   target = eps, or v = a eps - b x_0 ──────────┴── mean of weight (prediction - target)²
 *
 * Ho et al. 2020 (arXiv:2006.11239), Salimans & Ho 2022 (arXiv:2202.00512).
 */
#include "step.h"

static kw_net net_of(const kw__step *s, kw_graph *g, kw_part p)
{
    kw_net n = kw_net_over(g, s->sd->params[p]);
    if (s->adapters) {
        n.seam = kw_adapters_seam;
        n.seam_ctx = s->adapters;
    }
    return n;
}

/* Windows of the encoder's length become samples of their own and are joined again: 77 k tokens, k windows. */
static kw_val encode_text(kw_graph *g, const kw__step *s, const kw_micro *b)
{
    const kw_clip_config *c = &s->sd->text;
    kw_net n = net_of(s, g, KW_PART_TEXT);
    int window = b->tokens <= c->positions ? b->tokens : c->positions, windows = b->tokens / window;
    kw_val hidden[260], ids = kw_input(g, "ids", KW_SHAPE(b->n * windows, window), KW_I64);
    kw_val h = kw_clip(&n, c, ids, hidden);
    if (s->c->clip_skip > 1)
        h = kw_clip_final_norm(&n, c, hidden[KW_MAX(c->layers - (s->c->clip_skip - 1), 0)]);
    return g->err.status ? KW_NONE : kw_reshape(g, h, KW_SHAPE(b->n, b->tokens, c->width));
}

static kw_val context(kw_graph *g, const kw__step *s, const kw_micro *b)
{
    if (b->ids)
        return encode_text(g, s, b);
    return kw_cast(g, kw_input(g, "context", KW_SHAPE(b->n, b->tokens, s->sd->unet.context[0]), KW_F32), g->compute);
}

static kw_val diffusion(kw_graph *g, const kw__step *s, const kw_micro *b)
{
    kw_net n = net_of(s, g, KW_PART_UNET);
    kw_shape shape = KW_SHAPE(b->n, b->h, b->w, s->sd->unet.in), each = KW_SHAPE(b->n);
    kw_val x0 = kw_input(g, "latents", shape, KW_F32), eps = kw_input(g, "noise", shape, KW_F32);
    kw_val xt = kw_blend(g, x0, eps, kw_input(g, "a", each, KW_F32), kw_input(g, "b", each, KW_F32));
    kw_val target = kw_blend(g, x0, eps, kw_input(g, "a_target", each, KW_F32), kw_input(g, "b_target", each, KW_F32));
    kw_val ctx = context(g, s, b);
    if (ctx < 0)
        return KW_NONE;
    kw_val y = kw_unet(&n, &s->sd->unet, kw_cast(g, xt, g->compute), kw_input(g, "timesteps", each, KW_F32), ctx,
                       KW_NONE, KW_NONE);
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
    kw_val text = encode_text(g, s, b);
    return text < 0 ? KW_NONE
                    : kw__align_loss(g, s->heads, text,
                                     kw_input(g, "latents", KW_SHAPE(b->n, b->h, b->w, s->sd->vae.latent), KW_F32));
}

kw_val kw__step_loss(kw_graph *g, const kw__step *s, const kw_micro *b)
{
    if (s->heads)
        return align(g, s, b);
    return b->image ? autoencoder(g, s, b) : diffusion(g, s, b);
}
