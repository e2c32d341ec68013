#!/bin/sh
# t0710-verify.sh - which programs read a file: files written here byte by byte, each with one thing that some reader
# minds.
. tests/e2e/lib.sh
cd "$WORK"

# tensors FILE 'JSON of tensors and metadata' BYTES [octal byte]: a safetensors file of that many equal bytes
tensors() {
    n=$(printf %s "$2" | wc -c)
    printf "\\$(printf %03o $((n % 256)))\\$(printf %03o $((n / 256 % 256)))\\$(printf %03o $((n / 65536)))\0\0\0\0\0%s" "$2" >"$1"
    head -c "$3" /dev/zero | tr '\0' "\\${4:-000}" >>"$1"
}
META='"ss_base_model_version":"sd_v1","ss_v2":"False","ss_output_name":"kiwa","ss_network_module":"networks.lora","ss_network_dim":"1","ss_network_alpha":"1.0","ss_tag_frequency":"{\"1_kiwa\":{\"kiwa\":3}}","modelspec.architecture":"stable-diffusion-v1/lora","modelspec.trigger_phrase":"kiwa"'
K=lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k
pair() { printf '"%s.%s":{"dtype":"F32","shape":[1,%s],"data_offsets":[0,%s]},"%s.%s":{"dtype":"F32","shape":[320,1],"data_offsets":[%s,%s]}' \
    "$1" "$2" "$4" $((4 * $4)) "$1" "$3" $((4 * $4)) $((4 * $4 + 1280)); }
DOWN="$(pair $K lora_down.weight lora_up.weight 768)"
size=$((4 * 768 + 1280))
verify() { "$KIWAME" verify "$@"; }
reads() { grep -q "^  $1.* reads it" said || { cat said; fail "$1 should read it"; }; }
refuses() { grep -q "^  $1.* does not read it" said || { cat said; fail "$1 should not read it"; }; }

tensors kiwa.safetensors "{\"__metadata__\":{$META},$DOWN}" $size
expect 0 "LoRA, Stable Diffusion 1.x" verify kiwa.safetensors
for p in A1111 Forge ComfyUI diffusers Civitai kohya InvokeAI; do reads $p; done
[ "$(wc -l <said)" = 8 ] || { cat said; fail "a remark about a file without fault"; }
expect 0 '"A1111":{"reads":true,"remarks":[]}' verify kiwa.safetensors --json

tensors kiwa.safetensors "{\"__metadata__\":{$META},$(pair unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k lora_A.weight lora_B.weight 768)}" $size
expect 3 "diffusers' or PEFT's names" verify kiwa.safetensors; refuses A1111; refuses Forge; refuses kohya; reads diffusers; reads ComfyUI
expect 0 "no alpha is in it" verify kiwa.safetensors --for diffusers --for ComfyUI
tensors kiwa.safetensors "{\"__metadata__\":{$META},$(pair $K hada_w1_b hada_w1_a 768)}" $size
expect 3 "LoHa, LoKr" verify kiwa.safetensors; refuses diffusers; reads A1111; reads ComfyUI
tensors kiwa.safetensors "{\"__metadata__\":{$META},\"$K.weight\":{\"dtype\":\"F32\",\"shape\":[320],\"data_offsets\":[0,1280]},\"$K.on_input\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[1280,1281]}}" 1281
expect 3 "(IA)^3 is not read" verify kiwa.safetensors; refuses ComfyUI; refuses diffusers; reads A1111
tensors kiwa.safetensors "{\"__metadata__\":{$META},$DOWN}" $size 377
expect 3 "NaN or infinity" verify kiwa.safetensors; refuses A1111; refuses InvokeAI; reads Civitai
F8="$(printf %s "$DOWN" | sed 's/F32/F8_E4M3/g; s/3072,4352/768,1088/; s/0,3072/0,768/')"
tensors kiwa.safetensors "{\"__metadata__\":{$META},$F8}" 1088
expect 0 "fp8 numbers: widened" verify kiwa.safetensors; reads A1111; reads diffusers; reads kohya
tensors kiwa.safetensors "{\"__metadata__\":{$META},$F8}" 1088 177
expect 3 "NaN or infinity" verify kiwa.safetensors
tensors kiwa.safetensors "{\"__metadata__\":{$META},$DOWN,\"odd.tensor\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[$size,$((size + 4))]}}" $((size + 4))
expect 3 "tensors mean nothing to it" verify kiwa.safetensors; refuses diffusers; reads A1111
tensors kiwa.safetensors "{\"__metadata__\":{$META},$(pair $K lora_down.weight lora_up.weight 1024)}" $((4 * 1024 + 1280))
expect 0 "hidden in the list" verify kiwa.safetensors --for a1111
tensors kiwa.safetensors "{$DOWN}" $size
expect 0 "its base counts as unknown" verify kiwa.safetensors --for forge
says "no metadata"
expect 0 "the form wants them" verify kiwa.safetensors --for civitai
expect 0 "its tools for resizing" verify kiwa.safetensors --for kohya
tensors kiwa.safetensors "{\"__metadata__\":{\"ss_tag_frequency\":\"kiwa\",\"sshs_model_hash\":\"00\"},$DOWN}" $size
expect 0 "no table of tags" verify kiwa.safetensors --for civitai
says "not that of the tensors"
tensors kiwa.safetensors "{$(pair lora_te_text_model_encoder_layers_0_mlp_fc1 lora_down.weight lora_up.weight 768)}" $size
expect 3 "attn2.to_k" verify kiwa.safetensors; refuses InvokeAI; reads A1111
tensors "き わ.safetensors" "{\"__metadata__\":{$META},$DOWN}" $size
expect 0 "signs other than" verify "き わ.safetensors"
tensors "a:b.safetensors" "{\"__metadata__\":{$META},$DOWN}" $size
expect 3 "can name it" verify "a:b.safetensors"; refuses A1111; reads diffusers

tensors word.safetensors '{"emb_params":{"dtype":"F32","shape":[2,768],"data_offsets":[0,6144]}}' 6144
expect 0 "embedding, Stable Diffusion 1.x" verify word.safetensors
tensors word.safetensors '{"clip_l":{"dtype":"F32","shape":[2,768],"data_offsets":[0,6144]},"clip_g":{"dtype":"F32","shape":[2,1280],"data_offsets":[6144,16384]}}' 16384
expect 0 "clip_l and clip_g" verify word.safetensors

cd "$OLDPWD"
expect 3 "published shapes" verify tests/golden/io/v1.safetensors
expect 3 "behind heads of names" verify tests/golden/io/torch/wrapped.pt
expect 3 "folders are not read" verify data/shapes
expect 0 "diffusers" verify data/shapes --for diffusers
"$KIWAME" generate "a red circle" --base data/shapes --steps 1 --out "$WORK/pictures" --quiet >/dev/null
expect 0 "no hash of the model" verify "$WORK"/pictures/*.png
expect 3 "has no 'parameters'" verify docs/pictures/mascot.png
expect 2 "none of the programs" verify data/shapes --for a111x
expect 3 "no such file" verify nowhere
echo "which programs read it: as their readers do"
