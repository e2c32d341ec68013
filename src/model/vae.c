/*
 * vae.c - the KL autoencoder.
 *
 *   picture ─conv_in─ down 0 ─ ... ─ down L ─ mid ─ norm ─ conv_out ─ quant_conv ─ moments [mean, log variance]
 *   latent ─ post_quant_conv ─ conv_in ─ mid ─ up 0 ─ ... ─ up L ─ norm ─ conv_out ─ picture
 *
 * Rombach et al. 2022 (arXiv:2112.10752). Parameter names are diffusers' (AutoencoderKL).
 */
#include "model.h"

static const float eps = 1e-6f;

static int64_t channels(const kw_net *n, kw_val x) { return kw_last(kw_shape_of(n->g, x)); }

static kw_val norm_act(kw_net *n, const kw_vae_config *c, const char *name, kw_val x)
{
    kw_val h = kw_nn_group_norm(n, name, x, c->groups, eps, c->act == KW_SILU);
    return c->act == KW_SILU ? h : kw_activation(n->g, c->act, h);
}

/* The last activation is SiLU whatever the configuration says (so it is in diffusers). */
static kw_val norm_silu(kw_net *n, const kw_vae_config *c, const char *name, kw_val x)
{
    return kw_nn_group_norm(n, name, x, c->groups, eps, true);
}

static kw_val resnet(kw_net *n, const kw_vae_config *c, kw_val x, int out)
{
    kw_val h = kw_nn_conv(n, "conv1", norm_act(n, c, "norm1", x), out, 3, kw_padding(1, 1));
    h = kw_nn_conv(n, "conv2", norm_act(n, c, "norm2", h), out, 3, kw_padding(1, 1));
    if (channels(n, x) != out)
        x = kw_nn_conv(n, "conv_shortcut", x, out, 1, kw_padding(1, 0));
    return kw_nn_keep(n, kw_add(n->g, x, h));
}

/*  x + attention over all pixels with one head  */
static kw_val attention(kw_net *n, const kw_vae_config *c, kw_val x)
{
    kw_shape s = kw_shape_of(n->g, x);
    kw_val h = kw_nn_group_norm(n, "group_norm", x, c->groups, eps, false);
    h = kw_reshape(n->g, h, KW_SHAPE(s.d[0], s.d[1] * s.d[2], s.d[3]));
    kw_val q = kw_nn_linear(n, "to_q", h, s.d[3], true);
    kw_val k = kw_nn_linear(n, "to_k", h, s.d[3], true);
    kw_val v = kw_nn_linear(n, "to_v", h, s.d[3], true);
    h = kw_nn_linear(n, "to_out.0", kw_attention(n->g, q, k, v, 1, false), s.d[3], true);
    return kw_nn_keep(n, kw_add(n->g, x, kw_reshape(n->g, h, s)));
}

static kw_val mid(kw_net *n, const kw_vae_config *c, kw_val h)
{
    int ch = c->ch[c->levels - 1];
    KW_IN(n, "mid_block") {
        KW_IN(n, "resnets.0") h = resnet(n, c, h, ch);
        if (c->mid_attention)
            KW_IN(n, "attentions.0") h = attention(n, c, h);
        KW_IN(n, "resnets.1") h = resnet(n, c, h, ch);
    }
    return h;
}

kw_val kw_vae_encode(kw_net *n, const kw_vae_config *c, kw_val x)
{
    kw_val h = KW_NONE;
    KW_IN(n, "encoder") {
        h = kw_nn_conv(n, "conv_in", x, c->ch[0], 3, kw_padding(1, 1));
        for (int i = 0; i < c->levels; i++)
            KW_IN(n, "down_blocks.%d", i) {
                for (int j = 0; j < c->layers; j++)
                    KW_IN(n, "resnets.%d", j) h = resnet(n, c, h, c->ch[i]);
                if (i < c->levels - 1)    /* the far row and column alone are padded */
                    h = kw_nn_conv(n, "downsamplers.0.conv", h, c->ch[i], 3, (kw_conv_pads){ 2, 0, 0, 1, 1 });
            }
        h = norm_silu(n, c, "conv_norm_out", mid(n, c, h));
        h = kw_nn_conv(n, "conv_out", h, 2 * c->latent, 3, kw_padding(1, 1));
    }
    return c->quant ? kw_nn_conv(n, "quant_conv", h, 2 * c->latent, 1, kw_padding(1, 0)) : h;
}

kw_val kw_vae_decode(kw_net *n, const kw_vae_config *c, kw_val z)
{
    kw_val h = c->post_quant ? kw_nn_conv(n, "post_quant_conv", z, c->latent, 1, kw_padding(1, 0)) : z;
    KW_IN(n, "decoder") {
        h = mid(n, c, kw_nn_conv(n, "conv_in", h, c->ch[c->levels - 1], 3, kw_padding(1, 1)));
        for (int i = c->levels - 1; i >= 0; i--)
            KW_IN(n, "up_blocks.%d", c->levels - 1 - i) {
                for (int j = 0; j <= c->layers; j++)
                    KW_IN(n, "resnets.%d", j) h = resnet(n, c, h, c->ch[i]);
                if (i > 0) {
                    kw_shape s = kw_shape_of(n->g, h);
                    h = kw_nn_conv(n, "upsamplers.0.conv", kw_upsample(n->g, h, 2 * s.d[1], 2 * s.d[2]), c->ch[i], 3,
                                   kw_padding(1, 1));
                }
            }
        h = kw_nn_conv(n, "conv_out", norm_silu(n, c, "conv_norm_out", h), c->out, 3, kw_padding(1, 1));
    }
    return h;
}

int kw_vae_factor(const kw_vae_config *c) { return 1 << (c->levels - 1); }
