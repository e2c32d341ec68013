/* Names of layers in kohya's files; the pairs are those of kohya-ss/sd-scripts (networks/lora.py,
   sdxl_model_util.py). */
#include "adapter/adapter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static const struct { kw_part part; const char *path, *sd, *xl; } rows[] = {
    { KW_PART_UNET, "down_blocks.1.attentions.0.proj_in", "lora_unet_down_blocks_1_attentions_0_proj_in",
      "lora_unet_input_blocks_4_1_proj_in" },
    { KW_PART_UNET, "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
      "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj",
      "lora_unet_input_blocks_4_1_transformer_blocks_0_ff_net_0_proj" },
    { KW_PART_UNET, "mid_block.attentions.0.transformer_blocks.9.attn2.to_out.0",
      "lora_unet_mid_block_attentions_0_transformer_blocks_9_attn2_to_out_0",
      "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_out_0" },
    { KW_PART_UNET, "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
      "lora_unet_up_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
      "lora_unet_output_blocks_0_1_transformer_blocks_0_attn1_to_q" },
    { KW_PART_UNET, "down_blocks.0.resnets.0.conv1", "lora_unet_down_blocks_0_resnets_0_conv1",
      "lora_unet_input_blocks_1_0_in_layers_2" },
    { KW_PART_UNET, "down_blocks.0.resnets.0.conv2", "lora_unet_down_blocks_0_resnets_0_conv2",
      "lora_unet_input_blocks_1_0_out_layers_3" },
    { KW_PART_UNET, "down_blocks.0.resnets.0.time_emb_proj", "lora_unet_down_blocks_0_resnets_0_time_emb_proj",
      "lora_unet_input_blocks_1_0_emb_layers_1" },
    { KW_PART_UNET, "down_blocks.1.resnets.0.conv_shortcut", "lora_unet_down_blocks_1_resnets_0_conv_shortcut",
      "lora_unet_input_blocks_4_0_skip_connection" },
    { KW_PART_UNET, "down_blocks.0.downsamplers.0.conv", "lora_unet_down_blocks_0_downsamplers_0_conv",
      "lora_unet_input_blocks_3_0_op" },
    { KW_PART_UNET, "up_blocks.0.upsamplers.0.conv", "lora_unet_up_blocks_0_upsamplers_0_conv",
      "lora_unet_output_blocks_2_2_conv" },
    { KW_PART_UNET, "time_embedding.linear_1", "lora_unet_time_embedding_linear_1", "lora_unet_time_embed_0" },
    { KW_PART_UNET, "add_embedding.linear_2", "lora_unet_add_embedding_linear_2", "lora_unet_label_emb_0_2" },
    { KW_PART_UNET, "conv_out", "lora_unet_conv_out", "lora_unet_out_2" },
    { KW_PART_TEXT, "text_model.encoder.layers.11.self_attn.q_proj",
      "lora_te_text_model_encoder_layers_11_self_attn_q_proj",
      "lora_te1_text_model_encoder_layers_11_self_attn_q_proj" },
    { KW_PART_TEXT2, "text_model.encoder.layers.31.mlp.fc2", "lora_te2_text_model_encoder_layers_31_mlp_fc2",
      "lora_te2_text_model_encoder_layers_31_mlp_fc2" },
};

static void names(void **state)
{
    (void)state;
    kw_unet_config sdxl = { .levels = 3, .layers = { 2, 2, 2 }, .up_attention = { true, true, false },
                            .add_dim = 2816 };
    kw_lora_names xl = kw_lora_names_of(&sdxl), sd = { .xl = false };
    assert_true(xl.xl);
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        char name[KW_LORA_NAME];
        assert_true(kw_lora_name(&sd, rows[i].part, rows[i].path, name));
        assert_string_equal(name, rows[i].sd);
        assert_true(kw_lora_name(&xl, rows[i].part, rows[i].path, name));
        assert_string_equal(name, rows[i].xl);
    }
}

static void too_long(void **state)
{
    (void)state;
    char path[600], name[KW_LORA_NAME];
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    assert_false(kw_lora_name(&(kw_lora_names){ .xl = true }, KW_PART_UNET, path, name));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(names), cmocka_unit_test(too_long) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
