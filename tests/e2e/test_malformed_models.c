/*
 * test_malformed_models.c - LoRAs, numbers, pairs of models and runs that are wrong in one way each, likewise (C10,
 * C12, C13, C19, C20, C22); and files that change while they are read.
 */
#include "malformed.h"

/* ---- LoRAs ------------------------------------------------------------------------------------------------------- */

#define M "lora_unet_mid_block_attentions_0_"
#define Q M "transformer_blocks_0_attn2_to_q"
#define L(id, says, text, data, fill) { id, says, HEADER, text, sizeof text - 1, data, LORA, 0, fill, NULL, NULL }
#define E(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"
#define F(name, shape, from, to) E(name, "F32", shape, from, to)
#define DOWN(module) F(module ".lora_down.weight", "[1,32]", "0", "128")
#define UP(module) F(module ".lora_up.weight", "[32,1]", "128", "256")
#define ALPHA(shape, to) F(Q ".alpha", shape, "256", to)
#define NONE "2 of 2 keys fit no layer of this base"
#define APART "do not fit each other"
#define LORA_OF(module) DOWN(module) "," UP(module)
/* A folder of PEFT's with this configuration. */
#define PEFT(says, config) \
    { "C10", says, SHELL, "mkdir f; cp -r \"$TESTS/golden/lora/files/peft/patterns/unet/.\" f;" \
      "echo '" config "' >f/adapter_config.json", 0, 0, LORA, 0, 0, NULL, NULL }

/* ---- models ------------------------------------------------------------------------------------------------------ */

#define UNET "f/unet/diffusion_pytorch_model.safetensors "
#define VAE "f/vae/diffusion_pytorch_model.safetensors "
#define TEXT "f/text_encoder/model.safetensors "
#define COPY "cp -r \"$BASE\" f"
/* A base in which a number (or all of a tensor) has these bits; f16: 7e00 NaN, 7c00 infinite, 0001 the least. */
#define B(id, says, use, patch, code) { id, says, SHELL, COPY, 0, 0, use, code, 0, patch, NULL }
#define BR(id, says, patch, run, code) { id, says, SHELL, COPY, 0, 0, RUN, code, 0, patch, run }
#define W(id, says, make, run, code) { id, says, SHELL, make, 0, 0, RUN, code, 0, NULL, run }
#define MERGE(says, make) W("C20", says, make, "exec \"$KIWAME\" merge new --model \"$BASE\" --model f --quiet", 0)
#define SCHEDULER "f/scheduler/scheduler_config.json"

/* Waits until the program has mapped the file, then takes its bytes away, and ends as the program does. */
#define SHRINK(command, file) \
    command " & p=$!; while kill -0 $p 2>/dev/null && ! grep -qs '" file "$' /proc/$p/maps; do :; done;" \
    " for i in $(find ./f -type f | grep '" file "$'); do : >$i; done; wait $p"
/* One tensor of 900 MB, a hole. */
#define SPARSE \
    "printf '\\105\\0\\0\\0\\0\\0\\0\\0{\"a\":{\"dtype\":\"U8\",\"shape\":[900000000]," \
    "\"data_offsets\":[0,900000000]}}' >f; truncate -s 900000077 f"

/* ---- runs -------------------------------------------------------------------------------------------------------- */

#define RUN_COPY "cp -r \"$RUN_MADE\" f"
#define MANIFEST "f/checkpoints/step-00000002/manifest.json"
#define RESUME(says, make) W("C22", says, RUN_COPY "; " make, "exec \"$KIWAME\" resume f --quiet", 0)

/*
 * tests/golden/train/run-N: a checkpoint of version N, at step 2 of 3, by the program that wrote it first: "train lora
 * few --base tests/golden/pipeline/base --steps 3 --rank 1 --targets attention --checkpoint-every 2 --threads 1" in
 * scalar code. Every later program must go on with it.
 */
#define GOLDEN_RUN(n) \
    W("C22", "lora.safetensors", \
      "g=\"$TESTS/golden\" r=\"$TESTS/golden/train/run-" n "\" c=f/checkpoints/step-00000002;" \
      " mkdir -p few $c; cp -r \"$g/pipeline/base\" base; cp \"$g/picture/hole.png\" few/1.png;" \
      " cp \"$g/picture/mask.png\" few/2.png; cp \"$r/events.jsonl\" f; cp \"$r/manifest.json\" $c;" \
      " cp \"$r/state.safetensors\" $c; sed \"s|@HERE@|$PWD|\" \"$r/recipe.toml\" >f/recipe.toml", \
      "exec \"$KIWAME\" resume f --quiet", FINE)

static const row rows[] = {
    /* C10: LoRAs that belong elsewhere, or nowhere */
    L("C10", NONE, "{" LORA_OF("lora_te2_text_model_encoder_layers_0_mlp_fc1") "}", 256, 1),
    L("C10", NONE, "{" LORA_OF("lora_unet_double_blocks_0_img_attn_qkv") "}", 256, 1),
    L("C10", NONE, "{" LORA_OF("lora_unet_mid_block_attentions_7_proj_in") "}", 256, 1),
    L("C10", "changes a weight of 32 x 768", "{" F(Q ".lora_down.weight", "[1,768]", "0", "3072") ","
      F(Q ".lora_up.weight", "[32,1]", "3072", "3200") "}", 3200, 1),
    L("C10", "has the size [0, 32]", "{" F(Q ".lora_down.weight", "[0,32]", "0", "0") ","
      F(Q ".lora_up.weight", "[32,0]", "0", "0") "}", 0, 0),
    L("C10", "rank 1 with alpha", "{" LORA_OF(Q) "," ALPHA("[]", "260") "}", 260, 0xff),      /* NaN */
    L("C10", "rank 1 with alpha 3.39", "{" LORA_OF(Q) "," ALPHA("[]", "260") "}", 260, 0x7f),
    L("C10", "alpha has the size [2]", "{" LORA_OF(Q) "," ALPHA("[2]", "264") "}", 264, 1),
    L("C10", "alpha has the size [0]", "{" LORA_OF(Q) "," ALPHA("[0]", "256") "}", 256, 1),
    L("C10", "key", "{" DOWN(Q) "}", 128, 1),
    L("C10", "key", "{" F(Q ".lora_up.weight", "[32,1]", "0", "128") "}", 128, 1),
    L("C10", APART, "{" F(Q ".lora_down.weight", "[2,32]", "0", "256") ","
      F(Q ".lora_up.weight", "[32,3]", "256", "640") "}", 640, 1),
    L("C10", APART, "{" LORA_OF(Q) "," F(Q ".dora_scale", "[5,1]", "256", "276") "}", 276, 1),
    L("C10", APART, "{" LORA_OF(Q) "," F(Q ".lora_mid.weight", "[3,3,1,1]", "256", "292") "}", 292, 1),
    L("C10", "key", "{" F(Q ".hada_w1_a", "[32,1]", "0", "128") "," F(Q ".hada_w1_b", "[1,32]", "128", "256") ","
      F(Q ".hada_w2_a", "[32,1]", "256", "384") "}", 384, 1),
    L("C10", APART, "{" F(Q ".hada_w1_a", "[32,1]", "0", "128") ","
      F(Q ".hada_w1_b", "[2,16]", "128", "256") "," F(Q ".hada_w2_a", "[32,1]", "256", "384") ","
      F(Q ".hada_w2_b", "[1,32]", "384", "512") "}", 512, 1),
    L("C10", "key", "{" F(Q ".lokr_w1", "[2,2]", "0", "16") "}", 16, 1),
    L("C10", APART, "{" F(Q ".lokr_w1", "[2,2]", "0", "16") "," F(Q ".lokr_w2_a", "[16,2]", "16", "144")
      "," F(Q ".lokr_w2_b", "[3,16]", "144", "336") "}", 336, 1),
    L("C10", APART, "{" F(Q ".oft_blocks", "[4,8,7]", "0", "896") "}", 896, 1),
    L("C10", "changes a weight of 40", "{" F(Q ".oft_blocks", "[5,8,8]", "0", "1280") "}", 1280, 1),
    L("C10", "has the size [2]", "{" F(Q ".weight", "[32]", "0", "128") "," F(Q ".on_input", "[2]", "128", "136") "}",
      136, 1),
    L("C10", "weights of type I32", "{" E(Q ".lora_down.weight", "I32", "[1,32]", "0", "128") "," UP(Q) "}", 256, 1),
    L("C10", "key", "{" LORA_OF(Q) ","
      F("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.lora_A.weight", "[1,32]", "256", "384") "}",
      384, 1),
    L("C10", "hold NaN or infinity", "{" LORA_OF(Q) "}", 256, 0xff),
    L("C10", "hold NaN or infinity", "{" E(Q ".lora_down.weight", "F8_E4M3", "[1,32]", "0", "32") ","
      E(Q ".lora_up.weight", "F8_E4M3", "[32,1]", "32", "64") "}", 64, 0x7f),
    { "C10", "fit no layer", HEADER, "{" LORA_OF(Q) ",\"a\":" T("[1]", "256", "260") "}",
      sizeof "{" LORA_OF(Q) ",\"a\":" T("[1]", "256", "260") "}" - 1, 260, RUN, FINE, 1, NULL,
      "exec \"$KIWAME\" generate x --base \"$BASE\" --lora ./f --out never --steps 1 --allow-partial" },
    { "C10", NONE, HEADER, "{" LORA_OF("lora_unet_double_blocks_0_img_attn_qkv") "}",
      sizeof "{" LORA_OF("lora_unet_double_blocks_0_img_attn_qkv") "}" - 1, 256, RUN, 0, 1, NULL,
      "exec \"$KIWAME\" generate x --base \"$BASE\" --lora ./f --out never --steps 1 --allow-partial" },
    S("C10", "a folder without a LoRA", LORA, COPY),
    S("C10", "not a safetensors file", LORA, "echo 'this is some text, and no LoRA' >f"),
    PEFT("method VERA is not known", "{\"peft_type\":\"VERA\"}"), PEFT("not an object", "[1]"),
    PEFT("with alpha 1e+308", "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1e308}"),
    PEFT("regular expression", "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":4,\"alpha_pattern\":{\"(a|b).*\":2}}"),

    /* C12: numbers that are none, and odd ones */
    B("C12", "\"mid_block.resnets.0.conv1.weight\"", GENERATE, UNET "mid_block.resnets.0.conv1.weight 7e00", 0),
    B("C12", "\"mid_block.resnets.0.conv1.bias\"", GENERATE, UNET "mid_block.resnets.0.conv1.bias 7c00", 0),
    B("C12", "\"conv_out.weight\"", GENERATE, UNET "conv_out.weight fc00 all", 0),
    B("C12", "of the vae", GENERATE, VAE "decoder.conv_in.weight 7e00", 0),
    B("C12", "of the vae", GENERATE, VAE "decoder.conv_norm_out.weight 7c00", 0),
    B("C12", "of the text_encoder", GENERATE, TEXT "text_model.encoder.layers.0.mlp.fc1.weight 7e00", 0),
    BR("C12", "of the unet hold NaN", UNET "mid_block.resnets.0.conv1.weight 7e00",
       "exec \"$KIWAME\" train lora \"$TESTS/../data/mascot/train\" --base f --out new --steps 1 --rank 1", 0),
    BR("C12", "holds NaN or infinity", UNET "mid_block.resnets.0.conv1.weight 7e00",
       "exec \"$KIWAME\" verify f --for diffusers", 0),
    B("C12", "unet: 1 tensors hold NaN or infinity", INSPECT, UNET "mid_block.resnets.0.conv1.weight 7e00", FINE),
    B("C12", "vae: 1 tensors hold NaN or infinity", INSPECT, VAE "encoder.conv_in.weight 7e00", FINE),
    B("C12", "matrices are zero altogether", INSPECT, UNET "mid_block.resnets.0.conv1.weight 0 all", FINE),
    B("C12", "numbers of 10000 and more", INSPECT, UNET "mid_block.resnets.0.conv1.weight 7200 all", FINE),

    /* C13: an autoencoder whose values f16 does not hold (diffusers: all NaN); f32 and bf16 have room for them */
    BR("C13", "a picture", VAE "decoder.conv_in.weight x20000", "\"$KIWAME\" generate x --base f --out p.png --steps 2"
       " && test $(wc -c <p.png) -gt 3000 && echo a picture", FINE),
    BR("C13", "a picture", VAE "decoder.conv_in.weight x20000", "\"$KIWAME\" generate x --base f --out p.png --steps 2"
       " --dtype bf16 --vae-dtype bf16 && test $(wc -c <p.png) -gt 3000 && echo a picture", FINE),

    /* C19: files that become shorter, or others, while they are read */
    W("C19", "became shorter", SPARSE, SHRINK("\"$KIWAME\" inspect f", "/f"), 0),
    W("C19", "became shorter", SPARSE, SHRINK("\"$KIWAME\" convert f new.safetensors --dtype f32", "/f"), 0),
    W("C19", "became shorter", COPY, SHRINK("\"$KIWAME\" generate x --base f --steps 400 --out left",
      "/unet/diffusion_pytorch_model.safetensors"), 0),

    /* C20: models that mean different things */
    MERGE("its prediction_type is epsilon", COPY "; sed -i s/v_prediction/epsilon/ " SCHEDULER),
    MERGE("its prediction_type is sample", COPY "; sed -i s/v_prediction/sample/ " SCHEDULER),
    MERGE("its scaling_factor is 0.13025", COPY "; sed -i 's/factor\": 1.0/factor\": 0.13025/' f/vae/config.json"),
    MERGE("stand for other words", COPY "; sed -i 's|^\"A\": 32|\"A\": 33|; s|^\"B\": 33|\"B\": 32|'"
          " f/tokenizer/vocab.json"),
    MERGE("has the size", "cp -r \"$TESTS/golden/pipeline/base\" f"),
    W("C20", "one model predicts noise", COPY "; sed -i s/v_prediction/epsilon/ " SCHEDULER,
      "exec \"$KIWAME\" merge --report --model \"$BASE\" --model f --quiet", FINE),
    W("C20", "merging", COPY "; sed -i s/v_prediction/epsilon/ " SCHEDULER,
      "exec \"$KIWAME\" merge new --method add-difference --base \"$BASE\" --model \"$BASE\" --model f", FINE),
    W("C20", "is not for the models", "cp \"$TESTS/golden/lora/files/diffusers/kohya/file.safetensors\" f",
      "exec \"$KIWAME\" merge new.safetensors --lora f --rank 2 --quiet"
      " --lora \"$TESTS/golden/lora/files/lycoris/lokr-factor.safetensors\"", 0),
    W("C20", "the autoencoder has 8",
      COPY "; cp -r f g; sed -i 's/latent_channels\": 4/latent_channels\": 8/' g/vae/config.json",
      "exec \"$KIWAME\" generate x --base f --vae g --out never --steps 1", 0),

    /* C22: checkpoints of another version */
    GOLDEN_RUN("1"),
    RESUME("written by a newer kiwame", "sed -i 's/\"version\": 1/\"version\": 2/' " MANIFEST),
    RESUME("written by a newer kiwame", "sed -i 's/\"version\": 1/\"version\": 4000000000/' " MANIFEST),
    RESUME("not a manifest", "sed -i 's/\"version\": 1/\"version\": 0/' f/checkpoints/*/manifest.json"),
    RESUME("not a manifest", "sed -i 's/\"version\": 1/\"version\": \"1\"/' f/checkpoints/*/manifest.json"),
    RESUME("not a manifest", "sed -i '/\"version\"/d' f/checkpoints/*/manifest.json"),
    RESUME("not a manifest", "sed -i '/\"state_sha256\"/d' f/checkpoints/*/manifest.json"),
    RESUME("manifest.json", "for m in f/checkpoints/*/manifest.json; do echo '[' >$m; done"),
    RESUME("other layers are trained", "sed -i 's/\"trained\": [0-9]*/\"trained\": 5/' f/checkpoints/*/manifest.json"),
};

static int make_run(void **state)
{
    char here[4096], path[4200];
    if (set_up(state) || !realpath(".", here))
        return -1;
    snprintf(path, sizeof path, "%s/made", here);
    setenv("RUN_MADE", path, 1);
    return system("mkdir few && cp \"$TESTS\"/../data/mascot/train/*-0[1-4].* few && \"$KIWAME\" train lora few --base"
                  " \"$BASE\" --out made --steps 4 --rank 1 --targets attention --checkpoint-every 2 --quiet >log 2>&1"
                  " && rm -r made/checkpoints/step-00000004 && sed -i '/\"type\":\"end\"/d' made/events.jsonl");
}

static void each_is_refused_by_name(void **state)
{
    (void)state;
    try_all(rows, KW_LEN(rows));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_is_refused_by_name) };
    return find_program(argc, argv) ? cmocka_run_group_tests(tests, make_run, tear_down) : 2;
}
