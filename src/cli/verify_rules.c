/*
 * verify_rules.c - what each program does with a file: one row for each rule. Sources: the programs' own readers (A1111
 * extensions-builtin/Lora and modules/infotext_utils.py, Forge extensions-builtin/sd_forge_lora, comfy/lora.py,
 * diffusers loaders/lora_conversion_utils.py, sd-scripts networks/lora.py, InvokeAI configs/lora.py, Civitai's metadata
 * parsers).
 */
#include "verify.h"

#include <string.h>

#define P(name) (1u << KW_READER_##name)
#define WEB (P(A1111) | P(FORGE))
#define ALL ((1u << KW_N_READERS) - 1)
#define IF(name, truth) static bool name(const kw_verify_facts *f) { return truth; }
#define TELL KW_VERIFY_TELL
#define WARN KW_VERIFY_WARN
#define FAIL KW_VERIFY_FAIL
#define LORA KW_IS_LORA
#define EMB KW_IS_EMBEDDING
#define MODEL KW_IS_FILE
#define FOLDER KW_IS_FOLDER
#define PICTURE KW_IS_PICTURE

#define ONLY_LYCORIS (KW_KEYS_LOHA | KW_KEYS_LOKR | KW_KEYS_IA3 | KW_KEYS_OFT | KW_KEYS_TUCKER | KW_KEYS_DIFF \
                      | KW_KEYS_NORM | KW_KEYS_GLORA)

IF(bad_numbers, f->bad_numbers)
IF(pickle, f->pickle)
IF(other_family, f->family == KW_SD_OTHER)
IF(breaks_prompt, f->breaks_prompt)
IF(odd_stem, !f->plain_stem && !f->breaks_prompt)
IF(not_safetensors, !f->safetensors || f->pickle)

IF(diffusers_names, (f->keys & (KW_KEYS_PEFT | KW_KEYS_OLD)) != 0)
IF(lycoris, (f->keys & ONLY_LYCORIS) != 0)
IF(has_ia3, (f->keys & KW_KEYS_IA3) != 0)
IF(unknown_keys, (f->keys & KW_KEYS_UNKNOWN) != 0)
IF(bundled, (f->keys & KW_KEYS_BUNDLED) != 0)
IF(bare_peft, (f->keys & KW_KEYS_BARE_PEFT) != 0)
IF(conv_proj_v2, f->family == KW_SD_2 && f->conv_proj)
IF(scaled_peft, (f->keys & (KW_KEYS_PEFT | KW_KEYS_OLD)) && !f->adapter_metadata && !f->has_alpha)
IF(no_metadata, !f->n_meta)
IF(no_architecture, f->n_meta && !f->has_architecture && f->family == KW_SD_1)
IF(wrong_base, f->wrong_base)
IF(wrong_hash, f->wrong_hash)
IF(bad_tags, f->bad_tags)
IF(no_words, !f->has_trigger)
IF(other_name, f->other_name)
IF(no_network, !f->network && !(f->keys & (KW_KEYS_PEFT | KW_KEYS_OLD)))
IF(not_reading_text, !f->reads_text)
IF(large_header, f->header > 8u << 20)

IF(no_unet, !f->unet)
IF(no_vae, f->unet && !f->vae)
IF(no_text, f->unet && !f->text)
IF(odd_shape, f->unet && !f->standard)
IF(v_sd1, f->v_prediction && f->family == KW_SD_1)
IF(v_sd2, f->v_prediction && f->family == KW_SD_2 && f->kind == KW_IS_FILE)
IF(v_xl, f->v_prediction && f->family == KW_SD_XL && !f->v_marker)
IF(averages, f->averages)
IF(fp8, f->fp8)
IF(fp8_lycoris, f->fp8 && f->keys & ONLY_LYCORIS)
IF(wrapped, f->wrapped)
IF(no_index, !f->index)
IF(missing_part, !f->unet || !f->vae || !f->text)
IF(inpainting, f->inpainting)

IF(emb_odd, !f->emb_known)
IF(emb_xl, f->emb_two)
IF(emb_long, f->vectors > 75)

IF(no_text_at_all, !f->has_text)
IF(two_fields, f->has_text && !f->three_fields)
IF(no_steps, f->has_text && !f->steps_line)
IF(no_hashes, f->has_text && f->steps_line && !f->model_hash)
IF(odd_sampler, f->has_text && f->sampler && !f->known_sampler)
IF(odd_tag, f->bad_lora_tag)
IF(unhashed, f->unhashed_lora && f->has_text)
IF(no_workflow, f->has_text && !f->workflow)

const kw_verify_rule kw_verify_rules[] = {
    /* ---- any file with numbers */
    { ALL & ~P(CIVITAI), LORA | EMB | MODEL | FOLDER, bad_numbers, FAIL,
      N_("holds NaN or infinity: pictures become black or noise"),
      N_("take an earlier checkpoint; in training, a lower rate") },
    { P(CIVITAI), LORA | EMB | MODEL, bad_numbers, WARN,
      N_("holds NaN or infinity: it is accepted, but its users get black pictures"), NULL },
    { WEB | P(DIFFUSERS) | P(KOHYA), LORA | EMB | MODEL, pickle, TELL,
      N_("a pickle: read, but it could carry programs"),
      N_("kiwame convert FILE NAME.safetensors") },
    { P(COMFYUI) | P(INVOKEAI), LORA | EMB | MODEL, pickle, WARN,
      N_("a pickle: read under restrictions, with a warning"),
      N_("kiwame convert FILE NAME.safetensors") },
    { P(CIVITAI), LORA | EMB | MODEL, not_safetensors, WARN, N_("shown with a warning: not a safetensors file"),
      N_("kiwame convert FILE NAME.safetensors") },
    { ALL, LORA, other_family, WARN, N_("its widths are those of no published Stable Diffusion 1.x, 2.x or XL"),
      N_("it fits only the base that it was made with") },

    /* ---- LoRA: names of tensors */
    { WEB | P(KOHYA), LORA, diffusers_names, FAIL,
      N_("the tensors have diffusers' or PEFT's names, which it does not read"),
      N_("write it in kohya's names: kiwame convert") },
    { P(COMFYUI), LORA, has_ia3, FAIL, N_("(IA)^3 is not read: its layers are passed over (ComfyUI #6381)"),
      N_("merge it into a base") },
    { P(DIFFUSERS), LORA, lycoris, FAIL, N_("LoHa, LoKr, (IA)^3, OFT, Tucker and full differences are not read"),
      N_("merge it into a base, or extract a LoRA from the difference") },
    { P(DIFFUSERS), LORA, unknown_keys, FAIL,
      N_("load_lora_weights ends with an error where tensors mean nothing to it"), NULL },
    { P(DIFFUSERS), LORA, bundled, FAIL, N_("load_lora_weights ends with an error at the embeddings packed into it"),
      NULL },
    { P(DIFFUSERS), LORA, bare_peft, WARN, N_("PEFT's own file: load it with PEFT, not with load_lora_weights"), NULL },
    { P(DIFFUSERS), LORA, conv_proj_v2, WARN,
      N_("proj_in and proj_out are written as convolutions; SD 2's are linear in diffusers"), NULL },
    { P(DIFFUSERS), LORA, scaled_peft, TELL, N_("no alpha is in it: taken as the rank, so the scale is 1"), NULL },
    { P(KOHYA), LORA, lycoris, TELL, N_("read by --network_module lycoris.kohya, not by networks.lora"), NULL },
    { P(INVOKEAI), LORA, not_reading_text, FAIL,
      N_("it tells the base by the width of attn2.to_k, which is not in the file"), NULL },
    { WEB | P(COMFYUI) | P(INVOKEAI), LORA, unknown_keys, WARN,
      N_("some tensors mean nothing to it and are passed over"), NULL },

    { P(DIFFUSERS) | P(KOHYA), LORA, fp8, TELL, N_("fp8 numbers: widened when it is loaded"), NULL },
    { P(A1111), LORA, fp8_lycoris, WARN,
      N_("fp8 numbers: LyCORIS' methods compute in the file's type, which may fail in this one"), NULL },

    /* ---- LoRA: metadata (Forge: network.py, ui_edit_user_metadata.py) */
    { WEB, LORA, wrong_base, WARN, N_("the metadata name another base than the tensors fit: it is hidden in the list"),
      N_("correct ss_base_model_version, ss_v2 and modelspec.architecture") },
    { P(A1111), LORA, no_metadata, TELL, N_("no metadata: listed for every base, without words, size or date"), NULL },
    { P(FORGE), LORA, no_metadata, WARN, N_("no metadata: its base counts as unknown"), NULL },
    { P(FORGE), LORA, no_architecture, WARN, N_("no modelspec.architecture: its base counts as unknown"), NULL },
    { WEB | P(CIVITAI), LORA, wrong_hash, WARN,
      N_("sshs_model_hash is not that of the tensors: pictures do not lead back to it"), NULL },
    { WEB, LORA, other_name, TELL, N_("it also answers to the name in ss_output_name"), NULL },
    { WEB | P(CIVITAI), LORA, bad_tags, WARN, N_("ss_tag_frequency is no table of tags: no trained words are shown"),
      NULL },
    { P(CIVITAI), LORA, no_words, TELL,
      N_("no trained words in it: the form wants them, or a tick that none are needed"), NULL },
    { P(KOHYA), LORA, no_network, WARN,
      N_("ss_network_module, _dim or _alpha are missing: its tools for resizing and merging want them"), NULL },
    { P(COMFYUI), LORA, large_header, WARN, N_("the header is above 8 MiB: no cover picture is read from it"), NULL },

    /* ---- names of files */
    { WEB, LORA, breaks_prompt, FAIL, N_("the file's name has ':', ',', '<' or '>': no <lora:...> can name it"),
      N_("rename the file") },
    { P(CIVITAI), LORA, breaks_prompt, WARN, N_("the file's name has ':', ',', '<' or '>': no <lora:...> can name it"),
      N_("rename the file") },
    { P(CIVITAI), LORA, odd_stem, WARN,
      N_("the file's name has signs other than A-Z a-z 0-9 _ . -: pictures made with it are not linked to it"),
      N_("rename the file; a Japanese title belongs in modelspec.title") },

    /* ---- embeddings */
    { ALL & ~P(CIVITAI), EMB, emb_odd, FAIL, N_("several tensors of unknown names: not known as an embedding"), NULL },
    { P(DIFFUSERS), EMB, emb_xl, WARN,
      N_("load_textual_inversion is to be called twice, with clip_l and clip_g and their encoders"), NULL },
    { WEB | P(COMFYUI), EMB, emb_long, WARN, N_("more vectors than a window of 75 tokens holds"), NULL },
    { WEB, EMB, NULL, TELL, N_("the word in prompts is the file's name"), NULL },
    { P(COMFYUI), EMB, NULL, TELL, N_("the word in prompts is embedding: and the file's name"), NULL },

    /* ---- models */
    { P(CIVITAI), MODEL, odd_shape, TELL, N_("none of the bases in its form: choose Other"), NULL },
    { ALL & ~P(DIFFUSERS) & ~P(CIVITAI), MODEL, odd_shape, FAIL,
      N_("only published shapes are built from weights alone; this is none of them"),
      N_("as a diffusers folder its configuration goes along: kiwame convert FILE FOLDER") },
    { P(DIFFUSERS), MODEL, odd_shape, FAIL, N_("from_single_file knows published shapes only"),
      N_("kiwame convert FILE FOLDER") },
    { ALL & ~P(CIVITAI), MODEL, no_unet, FAIL, N_("has no U-Net: a part of a model, not a checkpoint"), NULL },
    { WEB | P(KOHYA) | P(INVOKEAI) | P(DIFFUSERS), MODEL, no_text, FAIL, N_("has no text encoder"),
      N_("put it together with one: kiwame convert") },
    { P(COMFYUI), MODEL, no_text, WARN, N_("has no text encoder: one must be loaded beside it"), NULL },
    { WEB | P(COMFYUI), MODEL, no_vae, WARN, N_("has no autoencoder: one must be chosen beside it"), NULL },
    { P(DIFFUSERS) | P(KOHYA) | P(INVOKEAI), MODEL, no_vae, FAIL, N_("has no autoencoder"), NULL },
    { WEB, MODEL, v_sd1, FAIL,
      N_("v-prediction with SD 1's shape: needs NAME.yaml beside it (parameterization: \"v\")"), NULL },
    { P(COMFYUI), MODEL, v_sd1, WARN, N_("v-prediction with SD 1's shape: needs the node ModelSamplingDiscrete"),
      NULL },
    { P(DIFFUSERS), MODEL, v_sd1, WARN, N_("v-prediction: say prediction_type=\"v_prediction\" to its scheduler"),
      NULL },
    { P(A1111), MODEL, v_sd2, TELL, N_("v-prediction is found out by a trial"), NULL },
    { WEB | P(COMFYUI), MODEL, v_xl, WARN,
      N_("v-prediction without the marker v_pred: taken for epsilon, pictures become noise"), NULL },
    { P(KOHYA), MODEL | FOLDER, v_sd1, TELL, N_("needs --v_parameterization"), NULL },
    { WEB | P(COMFYUI) | P(CIVITAI), MODEL, averages, TELL, N_("holds averaged weights too: larger than needed"),
      N_("kiwame convert FILE FOLDER leaves them behind") },
    { P(DIFFUSERS) | P(KOHYA), MODEL | FOLDER, fp8, WARN, N_("fp8 weights: to be widened when loading"), NULL },
    { P(A1111) | P(DIFFUSERS) | P(KOHYA) | P(INVOKEAI), MODEL | FOLDER, wrapped, FAIL,
      N_("the weights lie within dictionaries or behind heads of names that it does not take off"),
      N_("kiwame convert FILE NAME.safetensors writes plain names") },
    { P(FORGE) | P(COMFYUI), MODEL, wrapped, WARN,
      N_("the weights lie within dictionaries or behind heads of names: no more than one dictionary is taken off"),
      N_("kiwame convert FILE NAME.safetensors writes plain names") },
    { WEB | P(COMFYUI), MODEL, inpainting, TELL, N_("an inpainting model: only for img2img with a mask"), NULL },
    { WEB | P(CIVITAI), FOLDER, NULL, FAIL, N_("folders are not read"), N_("kiwame convert FOLDER NAME.safetensors") },
    { P(COMFYUI), FOLDER, NULL, WARN, N_("read by the old node DiffusersLoader only, from models/diffusers"),
      N_("kiwame convert FOLDER NAME.safetensors") },
    { P(DIFFUSERS) | P(INVOKEAI) | P(KOHYA), FOLDER, no_index, FAIL, N_("has no model_index.json"), NULL },
    { P(DIFFUSERS) | P(INVOKEAI) | P(KOHYA), FOLDER, missing_part, FAIL,
      N_("U-Net, autoencoder or text encoder is missing"), NULL },
    { P(KOHYA) | P(INVOKEAI), FOLDER, odd_shape, FAIL, N_("only published shapes are known"), NULL },

    /* ---- pictures (A1111: infotext_utils.py; Civitai: automatic.metadata.ts) */
    { WEB | P(CIVITAI), PICTURE, no_text_at_all, FAIL, N_("has no 'parameters': nothing is shown of how it was made"),
      NULL },
    { WEB, PICTURE, two_fields, FAIL, N_("fewer than three settings in the last line: all of it counts as the prompt"),
      NULL },
    { P(CIVITAI), PICTURE, no_steps, FAIL, N_("no line starts with 'Steps: ': nothing is read"), NULL },
    { P(CIVITAI), PICTURE, no_hashes, WARN, N_("no hash of the model: the picture is not linked to it"), NULL },
    { P(CIVITAI), PICTURE, odd_sampler, TELL, N_("the sampler's name is none of those it knows: shown as it is"),
      NULL },
    { P(CIVITAI), PICTURE, odd_tag, WARN,
      N_("a <lora:...> with signs other than A-Z a-z 0-9 _ . -, without a weight or with a negative one is not read"),
      NULL },
    { P(CIVITAI), PICTURE, unhashed, WARN, N_("a LoRA of the prompt has no hash: the picture is not linked to it"),
      NULL },
    { P(COMFYUI), PICTURE, no_text_at_all, FAIL, N_("has neither a workflow nor 'parameters'"), NULL },
    { P(COMFYUI), PICTURE, no_workflow, TELL, N_("has no workflow: one is made from A1111's 'parameters'"), NULL },
    { .programs = 0 },
};

bool kw_verify_applies(const kw_verify_rule *r, const kw_verify_facts *f, kw_reader p)
{
    return r->programs >> p & 1 && r->kinds & f->kind && (!r->when || r->when(f));
}

bool kw_verify_concerns(kw_reader p, kw_verify_kind kind)
{
    if (kind == KW_IS_PICTURE)
        return p == KW_READER_A1111 || p == KW_READER_FORGE || p == KW_READER_COMFYUI || p == KW_READER_CIVITAI;
    return p != KW_READER_KOHYA || kind != KW_IS_EMBEDDING;
}

const char *kw_reader_name(kw_reader p)
{
    static const char *const names[] = {
#define X(name, text) text,
        KW_READER_MAP(X)
#undef X
    };
    return names[p];
}
