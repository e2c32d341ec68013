/*
 * keys.c - the spellings of keys: which tensor (by the end), which part (by the beginning), which layer (what is left).
 *
 *   lora_unet_ down_blocks_0_attentions_0_proj_in .lora_down.weight            kohya
 *   unet.      down_blocks.0.attentions.0.proj_in .lora_A.weight               diffusers
 *
 * Sources: kohya-ss/sd-scripts, KohakuBlueleaf/LyCORIS, diffusers (utils/state_dict_utils.py), PEFT, ComfyUI
 * (comfy/lora.py).
 */
#include "keys.h"

#include <stdio.h>
#include <string.h>

enum { ANY = -1 };                        /* part by the path, dialect by the beginning */

static const struct { const char *end; kw_role role; int dialect; } ends[] = {
    { ".lora_down.weight", KW_ROLE_DOWN, ANY }, { ".lora_up.weight", KW_ROLE_UP, ANY },
    { ".lora_mid.weight", KW_ROLE_MID, ANY }, { ".lora_up.bias", KW_ROLE_UP_BIAS, ANY },
    { ".lora_A.weight", KW_ROLE_DOWN, ANY }, { ".lora_B.weight", KW_ROLE_UP, ANY },
    { ".lora_B.bias", KW_ROLE_UP_BIAS, ANY },
    { ".lora_magnitude_vector", KW_ROLE_MAGNITUDE, ANY }, { ".lora_magnitude_vector.weight", KW_ROLE_MAGNITUDE, ANY },
    { ".lora_linear_layer.down.weight", KW_ROLE_DOWN, KW_DIALECT_DIFFUSERS_OLD },
    { ".lora_linear_layer.up.weight", KW_ROLE_UP, KW_DIALECT_DIFFUSERS_OLD },
    { ".lora.down.weight", KW_ROLE_DOWN, KW_DIALECT_DIFFUSERS_OLD },
    { ".lora.up.weight", KW_ROLE_UP, KW_DIALECT_DIFFUSERS_OLD },
    { "_lora.down.weight", KW_ROLE_DOWN, KW_DIALECT_DIFFUSERS_2023 },
    { "_lora.up.weight", KW_ROLE_UP, KW_DIALECT_DIFFUSERS_2023 },
    { ".alpha", KW_ROLE_ALPHA, ANY }, { ".dora_scale", KW_ROLE_DORA, ANY },
    { ".hada_w1_a", KW_ROLE_HADA1A, ANY }, { ".hada_w1_b", KW_ROLE_HADA1B, ANY },
    { ".hada_w2_a", KW_ROLE_HADA2A, ANY }, { ".hada_w2_b", KW_ROLE_HADA2B, ANY },
    { ".hada_t1", KW_ROLE_HADAT1, ANY }, { ".hada_t2", KW_ROLE_HADAT2, ANY },
    { ".lokr_w1", KW_ROLE_KR1, ANY }, { ".lokr_w1_a", KW_ROLE_KR1A, ANY }, { ".lokr_w1_b", KW_ROLE_KR1B, ANY },
    { ".lokr_w2", KW_ROLE_KR2, ANY }, { ".lokr_w2_a", KW_ROLE_KR2A, ANY }, { ".lokr_w2_b", KW_ROLE_KR2B, ANY },
    { ".lokr_t2", KW_ROLE_KRT2, ANY },
    { ".a1.weight", KW_ROLE_A1, ANY }, { ".a2.weight", KW_ROLE_A2, ANY }, { ".b1.weight", KW_ROLE_B1, ANY },
    { ".b2.weight", KW_ROLE_B2, ANY }, { ".bm.weight", KW_ROLE_BM, ANY },
    { ".oft_blocks", KW_ROLE_OFT, ANY }, { ".rescale", KW_ROLE_RESCALE, ANY },
    { ".diff", KW_ROLE_DIFF, ANY }, { ".diff_b", KW_ROLE_DIFF_B, ANY },
    { ".w_norm", KW_ROLE_W_NORM, ANY }, { ".b_norm", KW_ROLE_B_NORM, ANY },
    { ".set_weight", KW_ROLE_SET, ANY }, { ".on_input", KW_ROLE_ON_INPUT, ANY }, { ".ia3_l", KW_ROLE_IA3_L, ANY },
    { ".weight", KW_ROLE_PLAIN, ANY }, { ".bias", KW_ROLE_PLAIN_B, ANY },          /* last: others end so too */
};

/* The first that fits counts; after PEFT's the search goes on. dots: else underscores stand for them. */
static const struct { const char *start; int part; bool dots; kw_dialect dialect; } starts[] = {
    { "lora_unet_", KW_PART_UNET, false, KW_DIALECT_KOHYA },
    { "lora_te1_", KW_PART_TEXT, false, KW_DIALECT_KOHYA },
    { "lora_te2_", KW_PART_TEXT2, false, KW_DIALECT_KOHYA },
    { "lora_te_", KW_PART_TEXT, false, KW_DIALECT_KOHYA },
    { "oft_unet_", KW_PART_UNET, false, KW_DIALECT_KOHYA },
    { "oft_te1_", KW_PART_TEXT, false, KW_DIALECT_KOHYA },
    { "oft_te2_", KW_PART_TEXT2, false, KW_DIALECT_KOHYA },
    { "oft_te_", KW_PART_TEXT, false, KW_DIALECT_KOHYA },
    { "lycoris_te1_", KW_PART_TEXT, false, KW_DIALECT_LYCORIS },
    { "lycoris_te2_", KW_PART_TEXT2, false, KW_DIALECT_LYCORIS },
    { "lycoris_te_", KW_PART_TEXT, false, KW_DIALECT_LYCORIS },
    { "lycoris_unet_", KW_PART_UNET, false, KW_DIALECT_LYCORIS },
    { "lycoris_", ANY, false, KW_DIALECT_LYCORIS },
    { "unet.", KW_PART_UNET, true, KW_DIALECT_DIFFUSERS },
    { "text_encoder_2.", KW_PART_TEXT2, true, KW_DIALECT_DIFFUSERS },
    { "text_encoder.", KW_PART_TEXT, true, KW_DIALECT_DIFFUSERS },
    { "text_encoders.clip_l.transformer.", KW_PART_TEXT, true, KW_DIALECT_COMFY },
    { "text_encoders.clip_h.transformer.", KW_PART_TEXT, true, KW_DIALECT_COMFY },
    { "text_encoders.clip_g.transformer.", KW_PART_TEXT2, true, KW_DIALECT_COMFY },
    { "model.diffusion_model.", KW_PART_UNET, true, KW_DIALECT_COMFY },
    { "diffusion_model.", KW_PART_UNET, true, KW_DIALECT_COMFY },
    { "", ANY, true, KW_DIALECT_DIFFUSERS },
};

#define PEFT "base_model.model."

/* PEFT's memory has the adapter's name in it, "x.lora_A.default.weight"; files seldom do: it is cut out. */
static bool without_adapter_name(const char *key, char out[KW_KEY_ROOM])
{
    static const char *const marks[] = { ".lora_A.", ".lora_B.", ".lora_magnitude_vector." };
    if (strlen(key) >= KW_KEY_ROOM)
        return false;
    strcpy(out, key);
    for (size_t i = 0; i < KW_LEN(marks); i++) {
        char *at = strstr(out, marks[i]);
        if (!at)
            continue;
        at += strlen(marks[i]);
        char *dot = strchr(at, '.');
        if (dot && !strchr(dot + 1, '.') && dot > at)
            memmove(at, dot + 1, strlen(dot + 1) + 1);
    }
    return true;
}

static bool take_end(const char *key, kw__key *k, int *dialect)
{
    for (size_t i = 0; i < KW_LEN(ends); i++)
        if (kw_ends_with(key, ends[i].end)) {
            k->role = ends[i].role;
            k->module = strlen(key) - strlen(ends[i].end);
            *dialect = ends[i].dialect;
            return k->module > 0;
        }
    return false;
}

static bool is_text(const char *path)
{
    return kw_starts_with(path, "text_model.") || kw_starts_with(path, "encoder.layers.")
        || kw_starts_with(path, "embeddings.") || kw_starts_with(path, "final_layer_norm")
        || !strcmp(path, "text_projection");
}

static bool is_ldm(const char *path)
{
    static const char *const heads[] = { "input_blocks.", "middle_block.", "output_blocks.",
                                         "time_embed.",   "label_emb.",    "out." };
    for (size_t i = 0; i < KW_LEN(heads); i++)
        if (kw_starts_with(path, heads[i]))
            return true;
    return false;
}

/* Attention processors of 2023 lay between a layer and its path: "attn1.processor.to_out" is attn1.to_out.0. */
static void mend_unet(char path[KW_KEY_ROOM])
{
    static const char inner[] = ".processor";
    char *at = strstr(path, inner);
    if (at)
        memmove(at, at + strlen(inner), strlen(at + strlen(inner)) + 1);
    if (kw_ends_with(path, ".to_out") && strlen(path) + 3 < KW_KEY_ROOM)
        strcat(path, ".0");
}

/* The text encoder's attention had the U-Net's words for a while: "self_attn.to_q" is self_attn.q_proj. */
static void mend_text(char path[KW_KEY_ROOM])
{
    static const struct { const char *old, *now; } rows[] = {
        { ".to_q", ".q_proj" }, { ".to_k", ".k_proj" }, { ".to_v", ".v_proj" }, { ".to_out", ".out_proj" },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        size_t n = strlen(path);
        if (kw_ends_with(path, rows[i].old) && n + 4 < KW_KEY_ROOM) {
            strcpy(path + n - strlen(rows[i].old), rows[i].now);
            return;
        }
    }
}

/* What is left in the middle, to diffusers' path. */
static bool finish_path(const kw_lora_names *names, int part, kw__key *k)
{
    char ldm[KW_KEY_ROOM];
    k->part = part != ANY ? (kw_part)part : is_text(k->path) ? KW_PART_TEXT : KW_PART_UNET;
    k->guessed = part == ANY && k->part == KW_PART_TEXT;
    if (k->part != KW_PART_UNET) {
        mend_text(k->path);
        if (kw_starts_with(k->path, "text_model.") || !strcmp(k->path, "text_projection"))
            return true;
        snprintf(ldm, sizeof ldm, "%s", k->path);
        return is_text(ldm) && snprintf(k->path, sizeof k->path, "text_model.%s", ldm) < (int)sizeof k->path;
    }
    if (is_ldm(k->path)) {
        strcpy(ldm, k->path);
        if (!kw__diffusers_path(&names->unet, ldm, k->path))
            return false;
    }
    mend_unet(k->path);
    return true;
}

bool kw__key_read(const char *key, const kw_lora_names *names, kw__key *k)
{
    char clean[KW_KEY_ROOM], middle[KW_KEY_ROOM];
    int dialect;
    if (!without_adapter_name(key, clean) || !take_end(clean, k, &dialect))
        return false;
    clean[k->module] = 0;
    const char *at = clean;
    bool peft = kw_starts_with(at, PEFT);
    at += peft ? strlen(PEFT) : 0;
    size_t i = 0;
    while (!kw_starts_with(at, starts[i].start))
        i++;
    at += strlen(starts[i].start);
    k->dialect = peft ? KW_DIALECT_PEFT : dialect != ANY ? (kw_dialect)dialect : starts[i].dialect;
    strcpy(middle, at);
    if (starts[i].dots)
        strcpy(k->path, middle);
    else if (!kw__undo_underscores(middle, k->path))
        return false;
    return *k->path && finish_path(names, starts[i].part, k);
}

bool kw__key_is_xl(const char *key)
{
    static const char *const signs[] = {
        "lora_te2_", "lora_te1_",     "oft_te1_",  "lycoris_te2_",          "text_encoder_2.",
        "clip_g.",   "add_embedding", "label_emb", "transformer_blocks_1_", "transformer_blocks.1."
    };
    for (size_t i = 0; i < KW_LEN(signs); i++)
        if (strstr(key, signs[i]))
            return true;
    return false;
}
