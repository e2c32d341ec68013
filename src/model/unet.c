/*
 * unet.c - the denoising U-Net of Stable Diffusion 1.x, 2.x and SDXL.
 *
 *   x ─conv_in─┬─ down 0 ─┬─ down 1 ─┬─ down 2 ─┬─ down 3 ─┐
 *              │          │          │          │         mid      every block sees emb(t);
 *   ε ─conv_out┴── up 3 ──┴── up 2 ──┴── up 1 ──┴── up 0 ──┘       attention also sees the text
 *
 * Rombach et al. 2022 (arXiv:2112.10752), Podell et al. 2023 (arXiv:2307.01952).
 * Parameter names are diffusers' (UNet2DConditionModel).
 */
#include "model.h"

typedef struct {                          /* what every block sees */
    kw_net *n;
    const kw_unet_config *c;
    kw_val emb, ctx;
} unet;

static int64_t channels(const kw_net *n, kw_val x) { return kw_last(kw_shape_of(n->g, x)); }

/* Norm and activation; SiLU is fused into the norm. */
static kw_val norm_act(const unet *u, const char *name, kw_val x)
{
    kw_val h = kw_nn_group_norm(u->n, name, x, u->c->groups, u->c->eps, u->c->act == KW_SILU);
    return u->c->act == KW_SILU ? h : kw_activation(u->n->g, u->c->act, h);
}

/*  x ─ GN ─ act ─ conv ─(+ emb)─ GN ─ act ─ conv ─(+)─ y
 *  └──────────────── 1x1 conv if channels change ───┘          */
static kw_val resnet(const unet *u, kw_val x, int out)
{
    kw_net *n = u->n;
    kw_val h = kw_nn_conv(n, "conv1", norm_act(u, "norm1", x), out, 3, kw_padding(1, 1));
    h = kw_add_channels(n->g, h, kw_nn_linear(n, "time_emb_proj", kw_activation(n->g, u->c->act, u->emb), out, true));
    h = kw_nn_conv(n, "conv2", norm_act(u, "norm2", h), out, 3, kw_padding(1, 1));
    if (channels(n, x) != out)
        x = kw_nn_conv(n, "conv_shortcut", x, out, 1, kw_padding(1, 0));
    return kw_nn_keep(n, kw_add(n->g, x, h));
}

/*  softmax(q kᵀ / √d) v, with k and v taken from ctx  */
static kw_val attend(kw_net *n, kw_val x, kw_val ctx, int heads)
{
    int64_t c = channels(n, x);
    kw_val q = kw_nn_linear(n, "to_q", x, c, false);
    kw_val k = kw_nn_linear(n, "to_k", ctx, c, false);
    kw_val v = kw_nn_linear(n, "to_v", ctx, c, false);
    return kw_nn_linear(n, "to_out.0", kw_attention(n->g, q, k, v, heads, false), c, true);
}

/*  x + self-attention, + cross-attention, + GEGLU feed-forward (pre-norm)  */
static kw_val transformer_block(kw_net *n, kw_val x, kw_val ctx, int heads, bool only_cross)
{
    int64_t c = channels(n, x);
    kw_val h = kw_nn_layer_norm(n, "norm1", x, 1e-5f);
    KW_IN(n, "attn1") x = kw_add(n->g, x, attend(n, h, only_cross ? ctx : h, heads));
    h = kw_nn_layer_norm(n, "norm2", x, 1e-5f);
    KW_IN(n, "attn2") x = kw_add(n->g, x, attend(n, h, ctx, heads));
    h = kw_nn_layer_norm(n, "norm3", x, 1e-5f);
    KW_IN(n, "ff.net") {
        h = kw_geglu(n->g, kw_nn_linear(n, "0.proj", h, 8 * c, true));
        x = kw_add(n->g, x, kw_nn_linear(n, "2", h, c, true));
    }
    return kw_nn_keep(n, x);
}

static kw_val transformer(const unet *u, kw_val x, int heads, int depth, bool only_cross)
{
    kw_net *n = u->n;
    kw_shape s = kw_shape_of(n->g, x), tokens = KW_SHAPE(s.d[0], s.d[1] * s.d[2], s.d[3]);
    kw_val h = kw_nn_group_norm(n, "norm", x, u->c->groups, 1e-6f, false);
    if (u->c->linear_proj)
        h = kw_nn_linear(n, "proj_in", kw_reshape(n->g, h, tokens), s.d[3], true);
    else
        h = kw_reshape(n->g, kw_nn_conv(n, "proj_in", h, s.d[3], 1, kw_padding(1, 0)), tokens);
    for (int i = 0; i < depth; i++)
        KW_IN(n, "transformer_blocks.%d", i) h = transformer_block(n, h, u->ctx, heads, only_cross);
    if (u->c->linear_proj)
        h = kw_reshape(n->g, kw_nn_linear(n, "proj_out", h, s.d[3], true), s);
    else
        h = kw_nn_conv(n, "proj_out", kw_reshape(n->g, h, s), s.d[3], 1, kw_padding(1, 0));
    return kw_nn_keep(n, kw_add(n->g, x, h));
}

static kw_val embed_mlp(const unet *u, kw_val x, int out, kw_unary act)
{
    kw_val h = kw_nn_linear(u->n, "linear_1", x, out, true);
    return kw_nn_linear(u->n, "linear_2", kw_activation(u->n->g, act, h), out, true);
}

/* Timestep and, for SDXL, pooled text with the sinusoids of six sizes. */
static kw_val embed(const unet *u, kw_val t, kw_val text, kw_val ids)
{
    const kw_unet_config *c = u->c;
    kw_graph *g = u->n->g;
    int width = 4 * c->ch[0];
    kw_val emb = KW_NONE;
    KW_IN(u->n, "time_embedding")
        emb = embed_mlp(u, kw_timestep(g, t, c->ch[0], c->flip_sin, c->freq_shift), width, c->act);
    if (!c->add_dim)
        return emb;
    int64_t batch = kw_count(kw_shape_of(g, t)), sizes = kw_last(kw_shape_of(g, ids));
    kw_val s = kw_timestep(g, kw_reshape(g, ids, KW_SHAPE(batch * sizes)), c->add_time_dim, c->flip_sin, c->freq_shift);
    s = kw_concat(g, text, kw_reshape(g, s, KW_SHAPE(batch, sizes * c->add_time_dim)));
    KW_IN(u->n, "add_embedding") emb = kw_add(g, emb, embed_mlp(u, s, width, KW_SILU));
    return emb;
}

static kw_val downsample(const unet *u, kw_val h, int out)
{
    int p = u->c->downsample_padding;     /* 0 means one row and column at the far side only */
    kw_conv_pads pads = p ? kw_padding(2, p) : (kw_conv_pads){ 2, 0, 0, 1, 1 };
    return kw_nn_keep(u->n, kw_nn_conv(u->n, "downsamplers.0.conv", h, out, 3, pads));
}

static kw_val down(const unet *u, int i, kw_val h, kw_val *skip, int *top)
{
    const kw_unet_config *c = u->c;
    KW_IN(u->n, "down_blocks.%d", i) {
        for (int j = 0; j < c->layers[i]; j++) {
            KW_IN(u->n, "resnets.%d", j) h = resnet(u, h, c->ch[i]);
            if (c->down_attention[i])
                KW_IN(u->n, "attentions.%d", j) h = transformer(u, h, c->heads[i], c->depth[i][j], c->only_cross[i]);
            skip[(*top)++] = h;
        }
        if (i < c->levels - 1)
            skip[(*top)++] = h = downsample(u, h, c->ch[i]);
    }
    return h;
}

static kw_val mid(const unet *u, kw_val h)
{
    const kw_unet_config *c = u->c;
    int last = c->levels - 1;
    KW_IN(u->n, "mid_block.resnets.0") h = resnet(u, h, c->ch[last]);
    if (c->mid == KW_MID_PLAIN)
        return h;
    KW_IN(u->n, "mid_block.attentions.0") h = transformer(u, h, c->heads[last], c->mid_depth, c->mid_only_cross);
    KW_IN(u->n, "mid_block.resnets.1") h = resnet(u, h, c->ch[last]);
    return h;
}

/* Block i works at level `levels - 1 - i`. Upsampling goes to the size of the next skip, which may be odd. */
static kw_val up(const unet *u, int i, kw_val h, const kw_val *skip, int *top)
{
    const kw_unet_config *c = u->c;
    int level = c->levels - 1 - i;
    KW_IN(u->n, "up_blocks.%d", i) {
        for (int j = 0; j <= c->layers[level]; j++) {
            h = kw_concat(u->n->g, h, skip[--*top]);
            KW_IN(u->n, "resnets.%d", j) h = resnet(u, h, c->ch[level]);
            if (c->up_attention[i])
                KW_IN(u->n, "attentions.%d", j)
                    h = transformer(u, h, c->heads[level], c->up_depth[i][j], c->only_cross[level]);
        }
        if (level > 0) {
            kw_shape s = kw_shape_of(u->n->g, skip[*top - 1]);
            h = kw_upsample(u->n->g, h, s.d[1], s.d[2]);
            h = kw_nn_keep(u->n, kw_nn_conv(u->n, "upsamplers.0.conv", h, c->ch[level], 3, kw_padding(1, 1)));
        }
    }
    return h;
}

kw_val kw_unet(kw_net *n, const kw_unet_config *c, kw_val x, kw_val t, kw_val ctx, kw_val text, kw_val ids)
{
    unet u = { .n = n, .c = c, .ctx = ctx };
    kw_val skip[KW_LEVELS * 16], h;
    int top = 0;

    u.emb = kw_nn_keep(n, embed(&u, t, text, ids));
    skip[top++] = h = kw_nn_keep(n, kw_nn_conv(n, "conv_in", x, c->ch[0], 3, kw_padding(1, 1)));
    for (int i = 0; i < c->levels; i++)
        h = down(&u, i, h, skip, &top);
    if (c->mid != KW_MID_NONE)
        h = mid(&u, h);
    for (int i = 0; i < c->levels; i++)
        h = up(&u, i, h, skip, &top);
    return kw_nn_conv(n, "conv_out", norm_act(&u, "conv_norm_out", h), c->out, 3, kw_padding(1, 1));
}
