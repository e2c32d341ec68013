/*
 * names.c - what a layer is called in LoRA files of kohya's programs, and back.
 *
 *   down_blocks.1.attentions.0.proj_in    lora_unet_down_blocks_1_attentions_0_proj_in     SD 1.x, 2.x: diffusers' path
 *                                         lora_unet_input_blocks_4_1_proj_in               SDXL: LDM's name
 *   text_model.encoder.layers.0.mlp.fc1   lora_te_text_model_... ; of SDXL lora_te1_..., lora_te2_...
 *
 * Source: kohya-ss/sd-scripts networks/lora.py; library/sdxl_model_util.py for the numbers in LDM's names.
 */
#include "names.h"

#include <stdio.h>
#include <string.h>

kw_lora_names kw_lora_names_of(const kw_unet_config *c)
{
    kw_lora_names n = { .xl = c->add_dim > 0, .unet = { .levels = c->levels, .layers = c->layers[0] } };
    for (int i = 0; i < c->levels; i++)
        n.unet.up_attention |= (uint32_t)c->up_attention[i] << i;
    return n;
}

kw_lora_names kw__names_usual(bool xl)
{
    return (kw_lora_names){ .xl = xl, .unet = { .levels = xl ? 3 : 4, .layers = 2, .up_attention = xl ? 3 : 14 } };
}

static const char *prefix(bool xl, kw_part p)
{
    return p == KW_PART_UNET ? "lora_unet_" : p == KW_PART_TEXT2 ? "lora_te2_" : xl ? "lora_te1_" : "lora_te_";
}

/* LDM's name of a layer: that of its weight, without ".weight". */
bool kw__ldm_path(const kw_key_shape *shape, const char *path, char ldm[KW_KEY_ROOM])
{
    char weight[KW_KEY_ROOM];
    if (snprintf(weight, sizeof weight, "%s.weight", path) >= (int)sizeof weight
        || !kw_key_to_ldm(KW_KEYS_UNET, shape, weight, ldm))
        return false;
    ldm[strlen(ldm) - strlen(".weight")] = 0;
    return true;
}

bool kw__diffusers_path(const kw_key_shape *shape, const char *ldm, char path[KW_KEY_ROOM])
{
    char weight[KW_KEY_ROOM];
    if (snprintf(weight, sizeof weight, "%s.weight", ldm) >= (int)sizeof weight
        || !kw_key_from_ldm(KW_KEYS_UNET, shape, weight, path))
        return false;
    path[strlen(path) - strlen(".weight")] = 0;
    return true;
}

bool kw_lora_name(const kw_lora_names *s, kw_part part, const char *path, char name[KW_LORA_NAME])
{
    char ldm[KW_KEY_ROOM];
    if (s->xl && part == KW_PART_UNET && kw__ldm_path(&s->unet, path, ldm))
        path = ldm;
    int n = snprintf(name, KW_LORA_NAME, "%s%s", prefix(s->xl, part), path);
    for (char *c = name; *c; c++)
        if (*c == '.')
            *c = '_';
    return n < KW_LORA_NAME;
}

/* ---- back: where underscores were dots --------------------------------------------------------------------------- */

/* Elements of paths that hold an underscore themselves, or may follow one; of two that fit the longer is meant. */
static const char *const words[] = {
    "down_blocks", "mid_block", "up_blocks", "resnets", "attentions", "downsamplers", "upsamplers",
    "transformer_blocks", "attn1", "attn2", "to_q", "to_k", "to_v", "to_out", "ff", "net", "proj", "proj_in",
    "proj_out", "norm", "norm1",
    "norm2", "norm3", "conv", "conv1", "conv2", "conv_in", "conv_out", "conv_norm_out", "conv_shortcut",
    "time_emb_proj", "time_embedding", "add_embedding", "linear_1", "linear_2", "group_norm",
    "input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers", "skip_connection", "op",
    "time_embed", "label_emb", "out",
    "text_model", "encoder", "layers", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "mlp", "fc1", "fc2",
    "layer_norm1", "layer_norm2", "final_layer_norm", "embeddings", "token_embedding", "position_embedding",
    "text_projection",
};

static size_t word_at(const char *s)
{
    size_t best = strspn(s, "0123456789");
    if (best)
        return s[best] == '_' || !s[best] ? best : 0;
    for (size_t i = 0; i < KW_LEN(words); i++) {
        size_t n = strlen(words[i]);
        if (n > best && !strncmp(s, words[i], n) && (s[n] == '_' || !s[n]))
            best = n;
    }
    return best;
}

bool kw__undo_underscores(const char *name, char path[KW_KEY_ROOM])
{
    size_t at = 0;
    if (!*name || strlen(name) >= KW_KEY_ROOM)
        return false;
    for (const char *s = name; ; s++) {
        size_t n = word_at(s);
        if (!n)
            return false;
        memcpy(path + at, s, n);
        at += n;
        s += n;
        if (!*s)
            break;
        path[at++] = '.';
    }
    path[at] = 0;
    return true;
}
