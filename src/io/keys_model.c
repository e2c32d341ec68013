/*
 * keys_model.c - the spellings of Stable Diffusion's parameters, as tables.
 *
 * Sources: CompVis/latent-diffusion openaimodel.py and model.py (how LDM numbers its blocks), mlfoundations/open_clip.
 * {I} {D} {O} {U} {r} {k} are numbers that depend on levels and layers, {R} {T} {V} {A} {B} {C} leaves: see keys.c.
 */
#include "keys.h"

static const kw__rule unet[] = {
    { "time_embed.0.{w}",               "time_embedding.linear_1.{w}",               KW__SAME },
    { "time_embed.2.{w}",               "time_embedding.linear_2.{w}",               KW__SAME },
    { "label_emb.0.0.{w}",              "add_embedding.linear_1.{w}",                KW__SAME },
    { "label_emb.0.2.{w}",              "add_embedding.linear_2.{w}",                KW__SAME },
    { "input_blocks.0.0.{w}",           "conv_in.{w}",                               KW__SAME },
    { "input_blocks.{I}.0.{R}",         "down_blocks.{i}.resnets.{j}.{R}",           KW__SAME },
    { "input_blocks.{I}.1.{T}",         "down_blocks.{i}.attentions.{j}.{T}",        KW__SAME },
    { "input_blocks.{D}.0.op.{w}",      "down_blocks.{i}.downsamplers.0.conv.{w}",   KW__SAME },
    { "middle_block.0.{R}",             "mid_block.resnets.0.{R}",                   KW__SAME },
    { "middle_block.1.{T}",             "mid_block.attentions.0.{T}",                KW__SAME },
    { "middle_block.2.{R}",             "mid_block.resnets.1.{R}",                   KW__SAME },
    { "output_blocks.{O}.0.{R}",        "up_blocks.{i}.resnets.{j}.{R}",             KW__SAME },
    { "output_blocks.{O}.1.{T}",        "up_blocks.{i}.attentions.{j}.{T}",          KW__SAME },
    { "output_blocks.{U}.{k}.conv.{w}", "up_blocks.{i}.upsamplers.0.conv.{w}",       KW__SAME },
    { "out.0.{w}",                      "conv_norm_out.{w}",                         KW__SAME },
    { "out.2.{w}",                      "conv_out.{w}",                              KW__SAME },
};

static const kw__rule vae[] = {
    { "encoder.conv_in.{w}",                  "encoder.conv_in.{w}",                             KW__SAME },
    { "encoder.down.{i}.block.{j}.{V}",       "encoder.down_blocks.{i}.resnets.{j}.{V}",         KW__SAME },
    { "encoder.down.{i}.downsample.conv.{w}", "encoder.down_blocks.{i}.downsamplers.0.conv.{w}", KW__SAME },
    { "encoder.mid.block_1.{V}",              "encoder.mid_block.resnets.0.{V}",                 KW__SAME },
    { "encoder.mid.attn_1.{A}",               "encoder.mid_block.attentions.0.{A}",              KW__SAME },
    { "encoder.mid.block_2.{V}",              "encoder.mid_block.resnets.1.{V}",                 KW__SAME },
    { "encoder.norm_out.{w}",                 "encoder.conv_norm_out.{w}",                       KW__SAME },
    { "encoder.conv_out.{w}",                 "encoder.conv_out.{w}",                            KW__SAME },
    { "quant_conv.{w}",                       "quant_conv.{w}",                                  KW__SAME },
    { "post_quant_conv.{w}",                  "post_quant_conv.{w}",                             KW__SAME },
    { "decoder.conv_in.{w}",                  "decoder.conv_in.{w}",                             KW__SAME },
    { "decoder.mid.block_1.{V}",              "decoder.mid_block.resnets.0.{V}",                 KW__SAME },
    { "decoder.mid.attn_1.{A}",               "decoder.mid_block.attentions.0.{A}",              KW__SAME },
    { "decoder.mid.block_2.{V}",              "decoder.mid_block.resnets.1.{V}",                 KW__SAME },
    { "decoder.up.{r}.block.{j}.{V}",         "decoder.up_blocks.{i}.resnets.{j}.{V}",           KW__SAME },
    { "decoder.up.{r}.upsample.conv.{w}",     "decoder.up_blocks.{i}.upsamplers.0.conv.{w}",     KW__SAME },
    { "decoder.norm_out.{w}",                 "decoder.conv_norm_out.{w}",                       KW__SAME },
    { "decoder.conv_out.{w}",                 "decoder.conv_out.{w}",                            KW__SAME },
};

/* Hugging Face's CLIP: checkpoints before 2023 carry position_ids; some, and transformers 5, lack `text_model`. */
static const kw__rule text[] = {
    { "text_model.embeddings.position_ids", "",                               KW__DROP },
    { "embeddings.position_ids",            "",                               KW__DROP },
    { "text_model.{*}",                     "text_model.{*}",                 KW__SAME },
    { "embeddings.{*}",                     "text_model.embeddings.{*}",      KW__SAME },
    { "encoder.{*}",                        "text_model.encoder.{*}",         KW__SAME },
    { "final_layer_norm.{w}",               "text_model.final_layer_norm.{w}", KW__SAME },
    { "text_projection.{w}",                "text_projection.{w}",            KW__SAME },
    { "logit_scale",                        "",                               KW__DROP },
};

/* x·P in open_clip, x·Wᵀ in Hugging Face: text_projection is the transpose. */
static const kw__rule openclip[] = {
    { "positional_embedding",   "text_model.embeddings.position_embedding.weight", KW__SAME },
    { "token_embedding.weight", "text_model.embeddings.token_embedding.weight",    KW__SAME },
    { "transformer.resblocks.{n}.attn.in_proj_{w}", "text_model.encoder.layers.{n}.self_attn.q_proj.{w}", KW__THIRD_Q },
    { "transformer.resblocks.{n}.attn.in_proj_{w}", "text_model.encoder.layers.{n}.self_attn.k_proj.{w}", KW__THIRD_K },
    { "transformer.resblocks.{n}.attn.in_proj_{w}", "text_model.encoder.layers.{n}.self_attn.v_proj.{w}", KW__THIRD_V },
    { "transformer.resblocks.{n}.{C}", "text_model.encoder.layers.{n}.{C}",        KW__SAME },
    { "ln_final.{w}",           "text_model.final_layer_norm.{w}",                 KW__SAME },
    { "text_projection",        "text_projection.weight",                          KW__TRANSPOSED },
    { "logit_scale",            "",                                                KW__DROP },
    { "attn_mask",              "",                                                KW__DROP },
};

/* diffusers before 0.17 called the VAE's attention query, key, value, proj_attn. */
static const kw__rule old_vae[] = {
    { "encoder.mid_block.attentions.0.{B}", "encoder.mid_block.attentions.0.{B}", KW__SAME },
    { "decoder.mid_block.attentions.0.{B}", "decoder.mid_block.attentions.0.{B}", KW__SAME },
};

const kw__rules kw__rule_tables[KW_N_KEYS] = {
    [KW_KEYS_UNET] = { unet, KW_LEN(unet) },
    [KW_KEYS_VAE] = { vae, KW_LEN(vae) },
    [KW_KEYS_TEXT] = { text, KW_LEN(text) },
    [KW_KEYS_OPENCLIP] = { openclip, KW_LEN(openclip) },
    [KW_KEYS_OLD_VAE] = { old_vae, KW_LEN(old_vae) },
};

const kw__leaf kw__leaves[] = {
    { 'R', "in_layers.0",     "norm1",         KW__SAME },        /* the UNet's resnet */
    { 'R', "in_layers.2",     "conv1",         KW__SAME },
    { 'R', "emb_layers.1",    "time_emb_proj", KW__SAME },
    { 'R', "out_layers.0",    "norm2",         KW__SAME },
    { 'R', "out_layers.3",    "conv2",         KW__SAME },
    { 'R', "skip_connection", "conv_shortcut", KW__SAME },
    { 'T', "norm",            "norm",          KW__SAME },        /* its transformer: the names agree */
    { 'T', "proj_in",         "proj_in",       KW__SAME },
    { 'T', "proj_out",        "proj_out",      KW__SAME },
    { 'T', "transformer_blocks.*", "transformer_blocks.*", KW__SAME },
    { 'V', "norm1",           "norm1",         KW__SAME },        /* the VAE's resnet */
    { 'V', "conv1",           "conv1",         KW__SAME },
    { 'V', "norm2",           "norm2",         KW__SAME },
    { 'V', "conv2",           "conv2",         KW__SAME },
    { 'V', "nin_shortcut",    "conv_shortcut", KW__SAME },
    { 'A', "norm",            "group_norm",    KW__SAME },        /* its attention, made of 1x1 convolutions */
    { 'A', "q",               "to_q",          KW__LINEAR },
    { 'A', "k",               "to_k",          KW__LINEAR },
    { 'A', "v",               "to_v",          KW__LINEAR },
    { 'A', "proj_out",        "to_out.0",      KW__LINEAR },
    { 'B', "query",           "to_q",          KW__LINEAR },      /* the same in old diffusers folders */
    { 'B', "key",             "to_k",          KW__LINEAR },
    { 'B', "value",           "to_v",          KW__LINEAR },
    { 'B', "proj_attn",       "to_out.0",      KW__LINEAR },
    { 'C', "ln_1",            "layer_norm1",   KW__SAME },        /* open_clip's block */
    { 'C', "ln_2",            "layer_norm2",   KW__SAME },
    { 'C', "attn.out_proj",   "self_attn.out_proj", KW__SAME },
    { 'C', "mlp.c_fc",        "mlp.fc1",       KW__SAME },
    { 'C', "mlp.c_proj",      "mlp.fc2",       KW__SAME },
};
const size_t kw__n_leaves = KW_LEN(kw__leaves);

const kw__spelling kw__spellings[] = {
    { KW_PART_UNET,  KW_KEYS_UNET,     "model.diffusion_model.", "input_blocks.0.0.weight" },
    { KW_PART_UNET,  KW_KEYS_UNET,     "diffusion_model.",       "input_blocks.0.0.weight" },
    { KW_PART_UNET,  KW_KEYS_UNET,     "",                       "input_blocks.0.0.weight" },
    { KW_PART_UNET,  KW__CANONICAL,    "unet.",                  "time_embedding.linear_1.weight" },
    { KW_PART_UNET,  KW__CANONICAL,    "",                       "time_embedding.linear_1.weight" },
    { KW_PART_VAE,   KW_KEYS_VAE,      "first_stage_model.",     "encoder.conv_in.weight" },
    { KW_PART_VAE,   KW_KEYS_VAE,      "first_stage_model.",     "decoder.conv_in.weight" },
    { KW_PART_VAE,   KW__CANONICAL,    "vae.",                   "decoder.up_blocks.0.resnets.0.conv1.weight" },
    { KW_PART_VAE,   KW_KEYS_VAE,      "vae.",                   "decoder.up.0.block.0.conv1.weight" },
    { KW_PART_VAE,   KW__CANONICAL,    "",                       "decoder.up_blocks.0.resnets.0.conv1.weight" },
    { KW_PART_VAE,   KW__CANONICAL,    "",                       "encoder.down_blocks.0.resnets.0.conv1.weight" },
    { KW_PART_VAE,   KW_KEYS_VAE,      "",                       "decoder.up.0.block.0.conv1.weight" },
    { KW_PART_VAE,   KW_KEYS_VAE,      "",                       "encoder.down.0.block.0.conv1.weight" },
    { KW_PART_TEXT,  KW_KEYS_TEXT,     "cond_stage_model.transformer.",
                                       "text_model.embeddings.token_embedding.weight" },
    { KW_PART_TEXT,  KW_KEYS_TEXT,     "cond_stage_model.transformer.", "embeddings.token_embedding.weight" },
    { KW_PART_TEXT,  KW_KEYS_OPENCLIP, "cond_stage_model.model.", "token_embedding.weight" },
    { KW_PART_TEXT,  KW_KEYS_TEXT,     "conditioner.embedders.0.transformer.",
                                       "text_model.embeddings.token_embedding.weight" },
    { KW_PART_TEXT,  KW_KEYS_OPENCLIP, "conditioner.embedders.0.model.", "token_embedding.weight" },
    { KW_PART_TEXT2, KW_KEYS_OPENCLIP, "conditioner.embedders.1.model.", "token_embedding.weight" },
    { KW_PART_TEXT,  KW_KEYS_OPENCLIP, "",                       "positional_embedding" },
    { KW_PART_TEXT,  KW_KEYS_TEXT,     "text_encoder.",          "text_model.embeddings.token_embedding.weight" },
    { KW_PART_TEXT,  KW_KEYS_TEXT,     "text_encoder.",          "embeddings.token_embedding.weight" },
    { KW_PART_TEXT2, KW_KEYS_TEXT,     "text_encoder_2.",        "text_model.embeddings.token_embedding.weight" },
    { KW_PART_TEXT2, KW_KEYS_TEXT,     "text_encoder_2.",        "embeddings.token_embedding.weight" },
    { KW_PART_TEXT,  KW_KEYS_TEXT,     "",                       "text_model.embeddings.token_embedding.weight" },
    { KW_PART_TEXT,  KW_KEYS_TEXT,     "",                       "embeddings.token_embedding.weight" },
};
const size_t kw__n_spellings = KW_LEN(kw__spellings);

/* Buffers of the training code, moving averages, markers. SD 2's last text layer is there but unused: the condition is
 * the layer before it. */
const char *const kw__ignored[] = {
    "betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "lvlb_weights", "logvar",
    "scale_factor", "global_step", "epoch", "loss.", "first_stage_model.loss.", "embedding_manager.", "v_pred", "ztsnr",
    "denoiser.sigmas", "cond_stage_model.model.transformer.resblocks.23.", "cond_stage_model.model.text_projection",
    "conditioner.embedders.0.model.transformer.resblocks.23.", "conditioner.embedders.0.model.text_projection",
    "model_ema", "__index_timestep_zero__", "edm_mean", "edm_std",
};
const size_t kw__n_ignored = KW_LEN(kw__ignored);

/* They have a U-Net's names, and mean something else. */
const kw__stranger kw__impostors[] = {
    { "controlnet_cond_embedding.",     N_("a ControlNet") },
    { "motion_modules.",                N_("an AnimateDiff motion module") },
    { "temporal_transformer_blocks.",   N_("a video model") },
    { ".time_stack.",                   N_("a video model") },
    { ".temp_convs.",                   N_("a video model") },
    { "edm_mean",                       N_("Playground v2.5, whose noise (EDM) is another") },
    { "edm_vpred.",                     N_("a CosXL model, whose noise (EDM) is another") },
    { "cc_projection.",                 N_("Stable Zero123") },
    { "encoder_hid_proj.",              N_("a Kandinsky or DeepFloyd model") },
    { "image_only_indicator",           N_("a video model") },
    { ".weight.absmax",                 N_("a model quantised by bitsandbytes, which is not supported") },
    { ".quant_state.",                  N_("a model quantised by bitsandbytes, which is not supported") },
    { "class_embedding.",               N_("a Stable Diffusion 2 model with class embeddings (unCLIP, x4 upscaler)") },
    { "label_emb.weight",               N_("Stable Diffusion's x4 upscaler") },
};
const size_t kw__n_impostors = KW_LEN(kw__impostors);

/* They have none. */
const kw__stranger kw__strangers[] = {
    { "joint_blocks.0.",                N_("a Stable Diffusion 3 model") },
    { "transformer_blocks.0.attn.add_q_proj", N_("a Stable Diffusion 3 or FLUX model") },
    { "double_blocks.0.",               N_("a FLUX model") },
    { "single_transformer_blocks.0.",   N_("a FLUX model") },
    { "lora_unet_",                     N_("a LoRA, not a base model") },
    { "lora_te",                        N_("a LoRA, not a base model") },
    { ".lora_A.",                       N_("a LoRA, not a base model") },
    { ".lora.down.",                    N_("a LoRA, not a base model") },
    { "_lora.down.",                    N_("a LoRA, not a base model") },
    { ".lora_down.",                    N_("a LoRA, not a base model") },
    { "hada_w1_a",                      N_("a LyCORIS adapter, not a base model") },
    { "lokr_w",                         N_("a LyCORIS adapter, not a base model") },
    { ".oft_",                          N_("an OFT adapter, not a base model") },
    { "control_model.",                 N_("a ControlNet") },
    { "input_hint_block.",              N_("a ControlNet") },
    { "lllite_",                        N_("a ControlNet-LLLite") },
    { "emb_params",                     N_("a textual inversion embedding") },
    { "string_to_param.",               N_("a textual inversion embedding") },
    { "adaln_single.",                  N_("a PixArt model") },
    { "t_block.1.",                     N_("a PixArt model") },
    { "clip_txt_mapper.",               N_("a Stable Cascade model") },
    { "clip_mapper.",                   N_("a Stable Cascade model") },
    { "effnet_mapper.",                 N_("a Stable Cascade model") },
    { "double_layers.0.",               N_("an AuraFlow model") },
    { "mlp_t5.",                        N_("a HunyuanDiT model") },
    { "img_mod.",                       N_("a Qwen-Image model") },
    { "noise_refiner.",                 N_("a Lumina or Z-Image model") },
    { "cap_embedder.",                  N_("a Lumina or Z-Image model") },
    { "blocks.0.cross_attn.",           N_("a Wan video model") },
    { "patchify_proj.",                 N_("a video model (LTX)") },
    { "ip_adapter.",                    N_("an IP-Adapter") },
    { "image_proj.",                    N_("an IP-Adapter") },
    { "adapter.body.",                  N_("a T2I-Adapter") },
    { "body.0.in_conv.",                N_("a T2I-Adapter") },
    { "body.0.rdb1.",                   N_("an upscaler of pictures (ESRGAN)") },
    { "RRDB_trunk.",                    N_("an upscaler of pictures (ESRGAN)") },
    { "encoder.block.0.layer.0.SelfAttention", N_("a T5 text encoder") },
    { "model.layers.0.self_attn.",      N_("a language model") },
};
const size_t kw__n_strangers = KW_LEN(kw__strangers);
