/* verify_facts.c - what can be known of a file that a program would look at. */
#include "verify.h"

#include "diffusion/diffusion.h"
#include "inspect.h"
#include "picture/picture.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- names and metadata ------------------------------------------------------------------------------------------ */

static void look_at_name(kw_arena *a, const char *path, kw_verify_facts *f)
{
    const char *name = kw_path_name(path), *dot = strrchr(name, '.');
    f->path = path;
    f->stem = kw_strndup(a, name, dot ? (size_t)(dot - name) : strlen(name));
    f->plain_stem = true;
    for (const char *p = f->stem ? f->stem : ""; *p; p++) {
        bool plain = isalnum((unsigned char)*p) || strchr("_.-", *p);
        f->plain_stem &= plain && (unsigned char)*p < 128;
        f->breaks_prompt |= strchr(":<>,", *p) != NULL;
    }
}

static const char *meta(const kw_tensors *t, const char *key)
{
    const char *v = kw_tensors_meta(t, key);
    return v && *v && strcmp(v, "None") ? v : NULL;
}

/* A1111's own reading (network.py): sdxl_..., ss_v2, else SD 1. */
static kw_sd_family family_said(const kw_tensors *t)
{
    const char *base = meta(t, "ss_base_model_version"), *v2 = meta(t, "ss_v2"), *arch = meta(t,
                                                                                              "modelspec.architecture");
    if ((base && kw_starts_with(base, "sdxl_")) || (arch && kw_starts_with(arch, "stable-diffusion-xl")))
        return KW_SD_XL;
    bool two = v2 && !strcmp(v2, "True");
    if (two || (base && kw_starts_with(base, "sd_v2")) || (arch && kw_starts_with(arch, "stable-diffusion-v2")))
        return KW_SD_2;
    return base || arch ? KW_SD_1 : KW_SD_UNKNOWN;
}

static bool is_tag_table(const char *text)
{
    json_t *j = json_loads(text, 0, NULL), *folder;
    const char *name;
    bool good = json_is_object(j);
    json_object_foreach(j, name, folder)
        good &= json_is_object(folder);
    json_decref(j);
    return good;
}

static void look_at_metadata(const kw_tensors *t, kw_verify_facts *f)
{
    const char *tags = meta(t, "ss_tag_frequency"), *hash = meta(t, "sshs_model_hash"), *name = meta(t,
                                                                                                     "ss_output_name");
    char hex[65];
    f->n_meta = kw_tensors_n_meta(t);
    f->has_base = meta(t, "ss_base_model_version") || meta(t, "ss_v2") || meta(t, "modelspec.architecture");
    f->wrong_base = f->has_base && f->family && f->family != KW_SD_OTHER && family_said(t) != f->family;
    f->has_architecture = meta(t, "modelspec.architecture") != NULL;
    f->has_tags = tags != NULL;
    f->bad_tags = tags && !is_tag_table(tags);
    f->has_trigger = meta(t, "modelspec.trigger_phrase") || tags;
    f->has_hash = hash != NULL;
    f->wrong_hash = hash && (kw_tensors_hash(t, hex, NULL) || strcmp(hash, hex));
    f->network = meta(t, "ss_network_module") && meta(t, "ss_network_dim") && meta(t, "ss_network_alpha");
    f->other_name = name && f->stem && strcmp(name, f->stem);
    f->adapter_metadata = meta(t, "lora_adapter_metadata") != NULL;
}

static bool is_f8(kw_dtype t) { return t == KW_F8_E4M3 || t == KW_F8_E5M2; }

static bool all_finite(const kw_tensor *w)
{
    enum { PIECE = 4096 };
    float piece[PIECE];
    size_t n = (size_t)kw_tensor_count(w), size = kw_dtype_size(w->dtype);
    if (w->dtype != KW_F32 && w->dtype != KW_F16 && w->dtype != KW_BF16 && !is_f8(w->dtype))
        return true;
    for (size_t at = 0; at < n; at += PIECE) {
        size_t k = KW_MIN(n - at, (size_t)PIECE);
        kw_convert(KW_F32, piece, w->dtype, (const char *)w->data + at * size, k);
        for (size_t i = 0; i < k; i++)
            if (!isfinite(piece[i]))
                return false;
    }
    return true;
}

static void look_at_numbers(const kw_tensors *t, kw_verify_facts *f)
{
    for (size_t i = 0; i < kw_tensors_n(t) && !f->bad_numbers; i++)
        if (!all_finite(kw_tensors_at(t, i))) {
            f->bad_numbers = true;
            f->bad_name = kw_tensors_at(t, i)->name;
        }
}

static kw_status look_at_file(kw_arena *a, const char *path, kw_verify_facts *f, kw_err *e)
{
    const void *p;
    size_t n;
    KW_TRY(kw_file_map(a, path, &p, &n, e));
    f->safetensors = kw_ends_with(path, ".safetensors");
    f->pickle = n > 4 && (!memcmp(p, "PK\3\4", 4) || ((const unsigned char *)p)[0] == 0x80);
    f->header = n >= 8 && !f->pickle ? *(const uint64_t *)p : 0;
    return KW_OK;
}

/* ---- LoRA -------------------------------------------------------------------------------------------------------- */

/* Where a tensor's name says what it is: peers-and-formats.md 2.1, 2.4, 2.6. */
static const struct { const char *piece; bool at_end; unsigned keys; } signs[] = {
    { ".lora_down.weight", true, KW_KEYS_KOHYA }, { ".lora_up.weight", true, KW_KEYS_KOHYA }, { ".lora_mid.weight",
                                                                                                true, KW_KEYS_TUCKER },
    { ".lora_A.", false, KW_KEYS_PEFT }, { ".lora_B.", false, KW_KEYS_PEFT }, { ".lora_magnitude_vector", false,
                                                                                KW_KEYS_PEFT | KW_KEYS_DORA },
    { "lora.down.weight", true, KW_KEYS_OLD }, { "lora.up.weight", true, KW_KEYS_OLD }, { ".lora_linear_layer.", false,
                                                                                          KW_KEYS_OLD },
    { ".hada_", false, KW_KEYS_LOHA }, { ".lokr_", false, KW_KEYS_LOKR }, { ".on_input", true, KW_KEYS_IA3 },
        { ".oft_", false, KW_KEYS_OFT },
    { ".rescale", true, KW_KEYS_OFT }, { ".dora_scale", true, KW_KEYS_DORA }, { ".diff", true, KW_KEYS_DIFF },
        { ".diff_b", true, KW_KEYS_DIFF },
    { ".w_norm", true, KW_KEYS_NORM }, { ".b_norm", true, KW_KEYS_NORM }, { ".a1.weight", true, KW_KEYS_GLORA },
    { ".a2.weight", true, KW_KEYS_GLORA }, { ".b1.weight", true, KW_KEYS_GLORA }, { ".b2.weight", true, KW_KEYS_GLORA },
    { "bundle_emb.", false, KW_KEYS_BUNDLED }, { ".alpha", true, 0 }, { ".scale", true, 0 },
};

/* (IA)^3 has LAYER.weight beside LAYER.on_input. */
static bool beside_on_input(const kw_tensors *t, const char *name)
{
    char other[KW_MAX_TENSOR_NAME + 16];
    size_t n = strlen(name);
    if (!kw_ends_with(name, ".weight") || n > KW_MAX_TENSOR_NAME)
        return false;
    snprintf(other, sizeof other, "%.*s.on_input", (int)(n - 7), name);
    return kw_tensors_find(t, other) != NULL;
}

static bool read_sign(const kw_tensors *t, const char *name, unsigned *keys)
{
    for (size_t i = 0; i < KW_LEN(signs); i++)
        if (signs[i].at_end ? kw_ends_with(name, signs[i].piece) : strstr(name, signs[i].piece) != NULL) {
            *keys |= signs[i].keys;
            return true;
        }
    return beside_on_input(t, name);
}

static bool is_down(const char *name)
{
    return strstr(name, "lora_down") || strstr(name, "lora_A") || strstr(name, "lora.down") || strstr(name, "hada_w1_b")
        || strstr(name, "layer.down");
}

static kw_sd_family family_of_width(int64_t n)
{
    return n == 768 ? KW_SD_1 : n == 1024 ? KW_SD_2 : n == 2048 || n == 1280 ? KW_SD_XL : KW_SD_OTHER;
}

static void look_at_module(const kw_tensors *t, const kw_tensor *w, kw_verify_facts *f)
{
    const char *name = w->name;
    bool text_in = strstr(name, "attn2") && (strstr(name, "to_k") || strstr(name, "to_v"));
    if (strstr(name, "lora_te2_") || strstr(name, "text_encoder_2"))
        f->family = KW_SD_XL;
    if (strstr(name, "double_blocks") || strstr(name, "single_blocks") || strstr(name, "joint_blocks"))
        f->family = KW_SD_OTHER;
    if (text_in && is_down(name) && w->rank >= 2) {
        f->reads_text |= strstr(name, "to_k") != NULL;
        if (!f->family)
            f->family = family_of_width(w->shape[1]);
    }
    f->conv_proj |= w->rank == 4 && strstr(name, "proj_in") && is_down(name);
    if (kw_ends_with(name, ".alpha") && kw_tensor_count(w) == 1) {
        char down[KW_MAX_TENSOR_NAME + 32];
        double v;
        kw_convert(KW_F64, &v, w->dtype, w->data, 1);
        snprintf(down, sizeof down, "%.*s.lora_down.weight", (int)(strlen(name) - 6), name);
        const kw_tensor *d = kw_tensors_find(t, down);
        f->has_alpha = true;
        f->scaled |= d && d->rank && (double)d->shape[0] != v;
    }
}

static void look_at_lora(const kw_tensors *t, kw_verify_facts *f)
{
    f->kind = KW_IS_LORA;
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const kw_tensor *w = kw_tensors_at(t, i);
        f->fp8 |= is_f8(w->dtype);
        if (!read_sign(t, w->name, &f->keys)) {
            f->keys |= KW_KEYS_UNKNOWN;
            f->n_unknown++;
            f->unknown = f->unknown ? f->unknown : w->name;
        }
        if (kw_starts_with(w->name, "base_model.model."))
            f->keys |= KW_KEYS_BARE_PEFT;
        look_at_module(t, w, f);
    }
    look_at_metadata(t, f);
    look_at_numbers(t, f);
}

/* ---- embeddings -------------------------------------------------------------------------------------------------- */

static bool is_embedding(const kw_tensors *t)
{
    size_t n = kw_tensors_n(t);
    bool all = n >= 1 && n <= 4;
    for (size_t i = 0; i < n && all; i++) {
        const kw_tensor *w = kw_tensors_at(t, i);
        int64_t width = w->rank ? w->shape[w->rank - 1] : 0;
        bool known = width == 768 || width == 1024 || width == 1280;
        all = known && (w->rank == 1 || (w->rank == 2 && w->shape[0] <= 1024));
    }
    return all;
}

static void look_at_embedding(const kw_tensors *t, kw_verify_facts *f)
{
    const kw_tensor *w = kw_tensors_at(t, 0);
    f->kind = KW_IS_EMBEDDING;
    f->vectors = w->rank == 2 ? (size_t)w->shape[0] : 1;
    f->emb_two = kw_tensors_find(t, "clip_l") && kw_tensors_find(t, "clip_g");
    f->emb_known = f->emb_two || kw_tensors_n(t) == 1 || f->pickle;
    f->family = f->emb_two ? KW_SD_XL : family_of_width(w->shape[w->rank - 1]);
    look_at_numbers(t, f);
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

/* The channels and context widths of published U-Nets; all else no other program builds from weights alone. */
static bool is_standard(const json_t *u)
{
    static const int wide[] = { 320, 640, 1280, 1280 };
    const json_t *blocks = json_object_get(u, "block_out_channels");
    json_int_t context = json_integer_value(json_object_get(u, "cross_attention_dim"));
    size_t n = json_array_size(blocks);
    bool same = n == 3 || n == 4;
    for (size_t i = 0; i < n && same; i++)
        same = json_integer_value(json_array_get(blocks, i)) == wide[i];
    return same && ((context == 2048 && n == 3) || ((context == 768 || context == 1024) && n == 4));
}

static void look_at_part_numbers(const kw_source *s, kw_verify_facts *f)
{
    kw_numbers n;
    for (int p = 0; p < KW_N_PARTS && !f->bad_numbers; p++) {
        kw_source_numbers(s, (kw_part)p, &n);
        f->bad_numbers = n.bad.n;
        f->bad_name = n.bad.first;
    }
}

static void look_at_parts(kw_source *s, kw_verify_facts *f)
{
    const json_t *u = kw_source_has(s, KW_PART_UNET) ? kw_source_config(s, KW_PART_UNET) : NULL;
    const kw_noise_config *noise = kw_source_noise(s);
    json_int_t width = json_integer_value(json_object_get(u, "cross_attention_dim"));
    f->unet = u != NULL;
    f->vae = kw_source_has(s, KW_PART_VAE);
    f->text = kw_source_has(s, KW_PART_TEXT) || kw_source_has(s, KW_PART_TEXT2);
    f->standard = u && is_standard(u);
    f->family = width == 2048 ? KW_SD_XL : width ? family_of_width(width) : KW_SD_UNKNOWN;
    f->v_prediction = !strcmp(noise->prediction_type, "v_prediction");
    f->guessed_prediction = noise->is_guess;
    f->wrapped = kw_source_is_wrapped(s);
    look_at_part_numbers(s, f);
    f->inpainting = json_integer_value(json_object_get(u, "in_channels")) == 9;
    for (size_t i = 0; f->unet && i < kw_source_n(s, KW_PART_UNET); i++)
        f->fp8 |= is_f8(kw_source_raw(s, KW_PART_UNET, i)->dtype);
}

static void look_at_model_file(const kw_tensors *t, kw_verify_facts *f)
{
    f->v_marker = kw_tensors_find(t, "v_pred") != NULL;
    for (size_t i = 0; i < kw_tensors_n(t) && !f->averages; i++)
        f->averages = kw_starts_with(kw_tensors_at(t, i)->name, "model_ema.");
    f->n_meta = kw_tensors_n_meta(t);
}

static kw_status look_at_tensors(kw_cli *c, const char *path, kw_verify_facts *f, kw_err *e)
{
    kw_tensors *t;
    kw_source *s;
    KW_TRY(kw_tensors_open(c->arena, path, &t, e));
    KW_TRY(look_at_file(c->arena, path, f, e));
    unsigned none = 0;
    size_t signed_ = 0;
    for (size_t i = 0; i < kw_tensors_n(t); i++)
        signed_ += read_sign(t, kw_tensors_at(t, i)->name, &none);
    if (signed_ * 2 > kw_tensors_n(t) && none) {
        look_at_lora(t, f);
    } else if (is_embedding(t)) {
        look_at_embedding(t, f);
    } else {
        f->kind = KW_IS_FILE;
        KW_TRY(kw_source_open(c->arena, path, &s, e));
        look_at_parts(s, f);
        look_at_model_file(t, f);
    }
    return KW_OK;
}

static kw_status look_at_folder(kw_cli *c, const char *path, kw_verify_facts *f, kw_err *e)
{
    kw_source *s;
    char *peft = kw_path_join(c->arena, path, "adapter_model.safetensors"), *index = kw_path_join(c->arena, path,
                                                                                                  "model_index.json");
    if (!peft || !index)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (kw_is_file(peft))
        return look_at_tensors(c, peft, f, e);
    f->kind = KW_IS_FOLDER;
    f->index = kw_is_file(index);
    KW_TRY(kw_source_open(c->arena, path, &s, e));
    look_at_parts(s, f);
    return KW_OK;
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

/* Civitai's names (constants.ts). */
static bool civitai_knows(const char *sampler)
{
    static const char *const names[] = {
        "Euler a", "Euler", "LMS", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE",
            "DPM++ 3M SDE",
        "DPM fast", "DPM adaptive", "LMS Karras", "DPM2 Karras", "DPM2 a Karras", "DPM++ 2S a Karras",
            "DPM++ 2M Karras",
        "DPM++ SDE Karras", "DPM++ 2M SDE Karras", "DPM++ 3M SDE Karras", "DPM++ 3M SDE Exponential", "DDIM", "PLMS",
            "UniPC", "LCM",
    };
    for (size_t i = 0; i < KW_LEN(names); i++)
        if (!strcmp(sampler, names[i]))
            return true;
    return false;
}

/* Civitai reads <(lora|hypernet):([a-zA-Z0-9_\.\-]+):([0-9.]+)> and nothing else. */
static bool tag_fits(const char *p, size_t n)
{
    const char *end = p + n, *name = p;
    while (p < end && (isalnum((unsigned char)*p) || strchr("_.-", *p)))
        p++;
    if (p == name || p == end || *p != ':')
        return false;
    const char *weight = ++p;
    while (p < end && (isdigit((unsigned char)*p) || *p == '.'))
        p++;
    return p > weight && p == end;
}

static void look_at_tags(kw_arena *a, const char *prompt, const char *hashes, kw_verify_facts *f)
{
    for (const char *p = prompt; (p = strstr(p, "<lora:")); p++) {
        size_t n = strcspn(p + 6, ">"), name = strcspn(p + 6, ":>");
        char *one = kw_strndup(a, p + 6, name);
        if (!tag_fits(p + 6, n)) {
            f->bad_lora_tag = true;
            f->lora_tag = kw_strndup(a, p, n + 7);
        }
        f->unhashed_lora |= !hashes || !one || !strstr(hashes, one);
    }
}

static kw_status look_at_infotext(kw_arena *a, const char *text, kw_verify_facts *f, kw_err *e)
{
    kw_infotext_read t;
    KW_TRY(kw_infotext_parse(a, text, &t, e));
    const char *json = kw_infotext_get(&t, "Hashes"), *lora = kw_infotext_get(&t, "Lora hashes");
    json_t *hashes = json ? json_loads(json, 0, NULL) : NULL;
    f->has_text = true;
    f->three_fields = t.n >= 3;
    f->steps_line = kw_starts_with(text, "Steps: ") || strstr(text, "\nSteps: ");
    f->hashes = json_is_object(hashes);
    f->model_hash = kw_infotext_get(&t, "Model hash") || json_object_get(hashes, "model");
    f->sampler = kw_infotext_get(&t, "Sampler");
    f->known_sampler = f->sampler && civitai_knows(f->sampler);
    look_at_tags(a, t.prompt, json ? json : lora, f);
    json_decref(hashes);
    return KW_OK;
}

static kw_status look_at_picture(kw_cli *c, const char *path, kw_picture_format format, kw_verify_facts *f, kw_err *e)
{
    const void *data;
    size_t n;
    bool found = false, flow = false;
    kw_str text = { 0 }, workflow = { 0 };
    f->kind = KW_IS_PICTURE;
    f->png = format == KW_PICTURE_PNG;
    KW_TRY(kw_file_map(c->arena, path, &data, &n, e));
    kw_status s = kw_picture_text(data, n, "parameters", &text, &found, e);
    if (!s && f->png)
        s = kw_picture_text(data, n, "workflow", &workflow, &flow, e);
    f->workflow = flow;
    if (!s && found && text.s)
        s = look_at_infotext(c->arena, text.s, f, e);
    kw_str_free(&text);
    kw_str_free(&workflow);
    return s;
}

kw_status kw_verify_look(kw_cli *c, const char *path, kw_verify_facts *f, kw_err *e)
{
    const void *data;
    size_t n;
    *f = (kw_verify_facts){ 0 };
    look_at_name(c->arena, path, f);
    if (kw_is_dir(path))
        return look_at_folder(c, path, f, e);
    KW_TRY(kw_file_map(c->arena, path, &data, &n, e));
    kw_picture_format format = kw_picture_sniff(data, n);
    return format != KW_PICTURE_UNKNOWN ? look_at_picture(c, path, format, f, e) : look_at_tensors(c, path, f, e);
}
