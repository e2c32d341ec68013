#!/bin/sh
# t0620-models.sh - SDXL and SD 2 as whole models: drawn from a folder, one file and back with the same bits; trained
# (LoRA, whole) with both text encoders' features from the cache or learning with them; what is no SDXL refuses its
# sizes.
. tests/e2e/lib.sh
GOLDEN=$PWD/tests/golden/pipeline
PICTURES=$PWD/data/mascot/train
BASE=$PWD/data/shapes
cd "$WORK"

draw() { "$KIWAME" generate "a red cat, a blue house" --base "$1" --steps 3 --seed 5 --sampler ddim --no-sheet --quiet \
         --out "$2" --save-latents "$2.safetensors" >/dev/null; }
for m in xl v2-inpaint; do
    "$KIWAME" convert "$GOLDEN/$m" $m.safetensors --quiet >/dev/null
    "$KIWAME" convert $m.safetensors $m-back --quiet >/dev/null
    draw "$GOLDEN/$m" folder-$m && draw $m.safetensors one-$m && draw $m-back back-$m
    for f in one back; do
        cmp folder-$m.safetensors $f-$m.safetensors || fail "$m draws something else from: $f"
    done
done

# Sizes are SDXL's alone, and change what is drawn.
expect 2 "only SDXL is told sizes" "$KIWAME" generate x --base "$BASE" --original-size 64x64
expect 2 "is not two numbers" "$KIWAME" generate x --base "$GOLDEN/xl" --crop 5
"$KIWAME" generate "a red cat, a blue house" --base "$GOLDEN/xl" --steps 3 --seed 5 --sampler ddim --no-sheet --quiet \
    --out sized --save-latents sized.safetensors --original-size 64x48 --crop 3,7 --target-size 16x16 >/dev/null
cmp -s folder-xl.safetensors sized.safetensors && fail "sizes change nothing"
grep -qa 'Original size: 64x48, Crop: "3,7", Target size: 16x16' sized/*.png ||
    fail "sizes are not in the picture's text"

# A LoRA: from a folder and from one file the same losses; in kohya's names of SDXL, and called so.
lora() { base=$1 out=$2; shift 2; "$KIWAME" train lora "$PICTURES" --base "$base" --out "$out" --name x --steps 4 --batch-size 2 \
         --rank 2 --flip --sample-sampling-steps 2 --sample-prompt "a cat" --quiet "$@" >/dev/null; }
losses() { grep -o '"loss":[^,]*' "$1/events.jsonl" | head -4; }
lora "$GOLDEN/xl" folder --cache cache --targets attention,ff
lora xl.safetensors one --targets attention,ff
losses folder >a && losses one >b
[ -s a ] && cmp a b || fail "one file trains differently from a folder"
grep -qa lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k folder/x.safetensors ||
    fail "not kohya's names of SDXL"
grep -qa '"ss_base_model_version":"sdxl_base_v1-0"' folder/x.safetensors || fail "the LoRA is not called SDXL's"
grep -qa 'lora_te' folder/x.safetensors && fail "a text encoder was trained unasked"

expect 0 "" "$KIWAME" generate "a red cat, a blue house" --base "$GOLDEN/xl" --lora folder/x.safetensors:4 --steps 3 --seed 5 --sampler ddim \
    --no-sheet --out with --save-latents with.safetensors
cmp -s folder-xl.safetensors with.safetensors && fail "the LoRA changes nothing"

# Text encoders that learn: kohya's te1 and te2; kill -9 and resume give the same bits.
train() { exec "$KIWAME" train lora "$PICTURES" --base "$GOLDEN/xl" --out "$1" --name x --steps 8 --batch-size 2 --rank 2 --flip \
          --targets attention,text --checkpoint-every 2 --sample-sampling-steps 2 --sample-prompt "a cat" --cache "$WORK/cache" --quiet; }
(train "$WORK/whole") >/dev/null || fail "training with text encoders"
for name in lora_te1_text_model_encoder_layers_0_mlp_fc1 lora_te2_text_model_encoder_layers_2_self_attn_q_proj; do
    grep -qa $name whole/x.safetensors || fail "no $name"
done
fingerprint whole >whole.txt
kills 2

one() { n=$1; shift; "$KIWAME" generate "a red cat" --base "$GOLDEN/xl" --steps 3 --seed 5 --no-sheet --quiet --out "$n" \
        --save-latents "$n.safetensors" "$@" >/dev/null; }

# Without a configuration: what the pooled text leaves is for the six sizes.
cp -r "$GOLDEN/xl" bare && rm bare/unet/config.json && "$KIWAME" convert bare bare-back --quiet >/dev/null 2>&1
grep -q '"addition_time_embed_dim": 8,' bare-back/unet/config.json || fail "numbers of a size are guessed wrong"

# PEFT's folders name no encoder in their keys: the second is known by its class.
lora "$GOLDEN/xl" words --targets text
"$KIWAME" convert words/x.safetensors peft --names peft --quiet >/dev/null
one te-one --lora words/x.safetensors:8
one te-peft --lora peft/text_encoder:8:8 --lora peft/text_encoder_2:8:8 || fail "PEFT's folders of SDXL"
cmp te-one.safetensors te-peft.safetensors || fail "PEFT's folders of SDXL draw something else"
one te-none
cmp -s te-one.safetensors te-none.safetensors && fail "the text encoders' LoRA changes nothing"

# --from repeats the sizes, the type of the computation, how LoRAs are applied; a base without sizes goes without.
from() { n=$1; shift; one "$n" "$@"
         "$KIWAME" generate --from "$n"/*.png --base "$GOLDEN/xl" --lora-dir whole --out "$n-again.png" >said 2>&1 || fail "--from $n"
         cmp "$n"/*.png "$n-again.png" || { cat said; fail "$n does not repeat"; }; grep -q "not used" said && { cat said; fail "--from $n"; }; true; }
from from-sizes --original-size 64x48 --crop 3,7 --target-size 16x16
from from-bf16 --dtype bf16 --vae-dtype bf16
from from-merge --lora whole/x.safetensors:2 --lora-apply merge
"$KIWAME" generate --from from-sizes/*.png --base "$BASE" --steps 1 --out other.png --quiet >/dev/null || fail "--from a picture of SDXL, another base"
grep -qa 'Target size' other.png && fail "sizes that nobody was told"

# Another autoencoder: found in --model-dir, or named as missing.
mkdir bases && cp -r "$GOLDEN/xl/vae" bases/other-vae
one from-vae --vae bases/other-vae
"$KIWAME" generate --from from-vae/*.png --base "$GOLDEN/xl" --out no-vae.png >said 2>&1 || fail "a missing autoencoder"
grep -q "not used: VAE: other-vae" said || { cat said; fail "a missing autoencoder is not named"; }
"$KIWAME" generate --from from-vae/*.png --base "$GOLDEN/xl" --model-dir bases --out vae.png --quiet >/dev/null
cmp from-vae/*.png vae.png || fail "an autoencoder is not found by its name"

# The whole of it: both encoders are saved, and draw something else; the autoencoder is not touched.
"$KIWAME" train full "$PICTURES" --base "$GOLDEN/xl" --part unet,text --out full --name x --steps 2 --learning-rate 1e-3 \
    --sample-sampling-steps 2 --sample-prompt "a cat" --quiet >/dev/null
draw full/x trained
cmp -s folder-xl.safetensors trained.safetensors && fail "training changed nothing"
for part in text_encoder text_encoder_2; do
    cmp -s full/x/$part/model.safetensors "$GOLDEN/xl/$part/model.safetensors" && fail "$part was not trained"
done
cmp full/x/vae/diffusion_pytorch_model.safetensors "$GOLDEN/xl/vae/diffusion_pytorch_model.safetensors" ||
    fail "the autoencoder changed"
echo "SDXL and SD 2 draw and train"
