/*
 * clip.c - CLIP's text encoder: a causal transformer (Radford et al. 2021, arXiv:2103.00020).
 * Parameter names are transformers' (CLIPTextModel).
 */
#include "model.h"

static kw_val attend(kw_net *n, const kw_clip_config *c, kw_val x)
{
    kw_val q = kw_nn_linear(n, "q_proj", x, c->width, true);
    kw_val k = kw_nn_linear(n, "k_proj", x, c->width, true);
    kw_val v = kw_nn_linear(n, "v_proj", x, c->width, true);
    return kw_nn_linear(n, "out_proj", kw_attention(n->g, q, k, v, c->heads, true), c->width, true);
}

static kw_val layer(kw_net *n, const kw_clip_config *c, kw_val x)
{
    kw_val h = kw_nn_layer_norm(n, "layer_norm1", x, c->eps);
    KW_IN(n, "self_attn") x = kw_add(n->g, x, attend(n, c, h));
    h = kw_nn_layer_norm(n, "layer_norm2", x, c->eps);
    KW_IN(n, "mlp") {
        h = kw_activation(n->g, c->act, kw_nn_linear(n, "fc1", h, c->mlp, true));
        x = kw_add(n->g, x, kw_nn_linear(n, "fc2", h, c->width, true));
    }
    return kw_nn_keep(n, x);
}

/* The first rows of the position table: shorter texts are allowed. */
static kw_val positions(kw_net *n, const kw_clip_config *c, int64_t tokens)
{
    kw_val table = KW_NONE;
    KW_IN(n, "position_embedding") table = kw_nn_param(n, "weight", KW_SHAPE(c->positions, c->width));
    if (table < 0 || tokens == c->positions)
        return table;
    kw_val flat = kw_reshape(n->g, table, KW_SHAPE(c->positions * c->width));
    return kw_reshape(n->g, kw_slice(n->g, flat, 0, tokens * c->width), KW_SHAPE(tokens, c->width));
}

kw_val kw_clip_final_norm(kw_net *n, const kw_clip_config *c, kw_val h)
{
    kw_val y = KW_NONE;
    KW_IN(n, "text_model") y = kw_nn_layer_norm(n, "final_layer_norm", h, c->eps);
    return y;
}

kw_val kw_clip_pooled(kw_net *n, const kw_clip_config *c, kw_val last, kw_val end)
{
    kw_val h = kw_pick(n->g, last, end);
    return c->projection ? kw_nn_linear(n, "text_projection", h, c->projection, false) : h;
}

int64_t kw_clip_end(const kw_clip_config *c, const int64_t *ids, int n)
{
    enum { OLD = 2 };                     /* what configurations said before transformers 4.25: the largest id then */
    int64_t at = 0;
    for (int i = 0; i < n; i++) {
        if (c->eos != OLD && ids[i] == c->eos)
            return i;
        at = c->eos == OLD && ids[i] > ids[at] ? i : at;
    }
    return at;
}

kw_val kw_clip(kw_net *n, const kw_clip_config *c, kw_val ids, kw_val *hidden)
{
    return kw_clip_with(n, c, ids, NULL, hidden);
}

kw_val kw_clip_with(kw_net *n, const kw_clip_config *c, kw_val ids, const kw_clip_vectors *v, kw_val *hidden)
{
    kw_val h = KW_NONE;
    KW_IN(n, "text_model") {
        KW_IN(n, "embeddings") {
            h = kw_nn_embedding(n, "token_embedding", ids, c->vocabulary, c->width);
            if (v && h >= 0)
                h = kw_add(n->g, kw_mul(n->g, h, kw_cast(n->g, v->keep, n->g->compute)),
                           kw_cast(n->g, v->put, n->g->compute));
            kw_val table = positions(n, c, kw_last(kw_shape_of(n->g, ids)));
            if (table >= 0)
                h = kw_nn_keep(n, kw_add_rows(n->g, h, kw_cast(n->g, table, kw_sum_type(n->g->compute))));
        }
        for (int i = 0; i < c->layers; i++) {
            if (hidden)
                hidden[i] = h;
            KW_IN(n, "encoder.layers.%d", i) h = layer(n, c, h);
        }
    }
    if (hidden)
        hidden[c->layers] = h;
    return kw_clip_final_norm(n, c, h);
}
