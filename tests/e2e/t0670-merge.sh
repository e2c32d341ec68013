#!/bin/sh
# t0670-merge.sh - models into one, LoRAs into models and into each other, LoRAs out of models: what the program says,
# writes and refuses. The numbers themselves: tests/unit/merge, tools/golden/merge.py.
. tests/e2e/lib.sh
BASE=tests/golden/pipeline/base
L=tests/golden/lora/files
K=$L/diffusers/kohya/file.safetensors
draw() {                                  # NAME BASE ...: the latents of one picture, as $WORK/NAME.st
    name=$1 from=$2
    shift 2
    expect 0 "" "$KIWAME" generate "a red cat" --base "$from" --width 16 --height 16 --steps 2 --seed 1 \
        --out "$WORK/$name.png" --save-latents "$WORK/$name.st" "$@"
}
same() { cmp -s "$WORK/$1" "$WORK/$2"; }

# LoRA into the model, and out of it again: as the LoRA itself
expect 0 "" "$KIWAME" merge "$WORK/a" --model "$BASE" --lora "$K" --dtype f32
expect 0 "" "$KIWAME" merge "$WORK/b.safetensors" --model "$BASE" --lora "$K:-0.5:0.25" --dtype f32
expect 0 "energy kept: 100.00 %" "$KIWAME" extract "$WORK/a" --base "$BASE" --rank 64 --dtype f32 -o "$WORK/out.safetensors"
expect 0 "" "$KIWAME" inspect "$WORK/out.safetensors"
draw merged "$WORK/a"
draw beside "$BASE" --lora "$K" --lora-apply merge
draw extracted "$BASE" --lora "$WORK/out.safetensors" --lora-apply merge
draw plain "$BASE"
same merged.st plain.st && fail "the LoRA changes nothing"
same merged.st beside.st || fail "merged and applied are not the same"

# the report alone writes nothing; what belongs together and what does not
expect 0 "have one ancestor" "$KIWAME" merge --report --model "$WORK/a" --model "$WORK/b.safetensors" --base "$BASE" --all
says "OUT"
expect 0 "SAME" "$KIWAME" merge --dry-run --model "$WORK/a" --model "$WORK/a" --json
cp -r "$BASE" "$WORK/stranger"
expect 0 "" "$KIWAME" init "$WORK/stranger" --seed 7 --overwrite
expect 0 "no ancestor in common" "$KIWAME" merge --report --model "$WORK/a" --model "$WORK/stranger"

# every method, a file and a folder: the same numbers; the recipe is kept
for m in sum add-difference slerp ties dare dare-ties; do
    expect 0 "" "$KIWAME" merge "$WORK/$m" --model "$WORK/a" --model "$WORK/b.safetensors" --base "$BASE" --method $m --dtype f32
    expect 0 "" "$KIWAME" merge "$WORK/$m.safetensors" --model "$WORK/a" --model "$WORK/b.safetensors" --base "$BASE" --method $m \
        --dtype f32
    expect 0 "" "$KIWAME" convert "$WORK/$m.safetensors" "$WORK/$m-back"
    same "$m/unet/diffusion_pytorch_model.safetensors" "$m-back/unet/diffusion_pytorch_model.safetensors" || \
        "$KIWAME" merge --report --model "$WORK/$m" --model "$WORK/$m-back" --json | grep -q SAME ||
            fail "$m: file and folder differ"
    grep -q "\"method\":\"$m\"" "$WORK/$m/kiwame-merge.json" || fail "$m: no recipe"
    head -c 100000 "$WORK/$m.safetensors" | grep -aq "modelspec.merged_from" || fail "$m: no merged_from"
done

# blocks: all of them at x is the plain sum, at 0 the first model, by name as by number
expect 0 "" "$KIWAME" merge "$WORK/half" --model "$WORK/a" --model "$WORK/b.safetensors" --blocks "IN=0.5,OUT=0.5" --dtype f32
expect 0 "SAME" "$KIWAME" merge --report --model "$WORK/half" --model "$WORK/sum" --json
expect 0 "" "$KIWAME" merge "$WORK/none" --model "$WORK/a" --model "$WORK/b.safetensors" --dtype f32 \
    --blocks 0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0
expect 0 "SAME" "$KIWAME" merge --report --model "$WORK/none" --model "$WORK/a" --json
expect 0 "" "$KIWAME" merge "$WORK/in" --model "$WORK/a" --model "$WORK/b.safetensors:0" --dtype f32 --blocks IN=1
expect 0 "GOOD" "$KIWAME" merge --report --model "$WORK/in" --model "$WORK/a" --json

# LoRAs: concatenated and by singular values; both together draw what one of them draws
expect 0 "" "$KIWAME" merge "$WORK/sum2.safetensors" --lora "$K:0.5" --lora "$K:0.5"
expect 0 "" "$KIWAME" extract --resize "$WORK/sum2.safetensors" --rank 4 --dtype f32 -o "$WORK/small.safetensors"
expect 0 "" "$KIWAME" merge "$WORK/svd.safetensors" --lora "$K:0.5" --lora "$K:0.5" --rank 64 --dtype f32
expect 0 "" "$KIWAME" extract --resize "$WORK/sum2.safetensors" --dynamic sv_fro --dynamic-param 0.9 -o "$WORK/dyn.safetensors"
expect 0 "" "$KIWAME" merge "$WORK/lokr.safetensors" --lora "$L/lycoris/lokr-factor.safetensors" --rank 8

# an inpainting model out of any other: inpainting + (custom - base); its mask's channels stay, and it comes first
NINE=tests/golden/pipeline/v2-inpaint
for m in plain custom; do
    cp -r "$NINE" "$WORK/$m"
    sed -i 's/"in_channels": 9/"in_channels": 4/' "$WORK/$m/unet/config.json"
    expect 0 "" "$KIWAME" init "$WORK/$m" --seed 1 --overwrite
done
expect 0 "the first 4 of 9 input channels take part; the others stay as they are in v2-inpaint" \
    "$KIWAME" merge "$WORK/nothing" --model "$NINE" --model "$WORK/custom" --base "$WORK/plain" --method add-difference --dtype f32
expect 0 "SAME" "$KIWAME" merge --report --model "$WORK/nothing" --model "$NINE" --json
expect 0 "" "$KIWAME" init "$WORK/custom" --seed 2 --overwrite
expect 0 '"channels":{"merged":4,"of":9}' "$KIWAME" merge "$WORK/nine" --model "$NINE" --model "$WORK/custom" --base "$WORK/plain" \
    --method add-difference --dtype f32 --json
grep -q '"in_channels": 9' "$WORK/nine/unet/config.json" || fail "the mask is lost"
expect 0 "" "$KIWAME" merge "$WORK/nine.safetensors" --model "$NINE" --model "$WORK/custom:0.3"
draw nine "$WORK/nine"
draw one "$WORK/nine.safetensors"
draw mask "$NINE"
same nine.st mask.st && fail "the custom model changes nothing"
same one.st mask.st && fail "the sum changes nothing"
expect 3 "name the inpainting model first" "$KIWAME" merge "$WORK/x" --model "$WORK/custom" --model "$NINE"

# refusals
expect 2 "needs --base" "$KIWAME" merge "$WORK/x" --model "$WORK/a" --model "$WORK/b.safetensors" --method ties
expect 2 "nothing to merge" "$KIWAME" merge "$WORK/x" --model "$WORK/a"
expect 2 "is already there" "$KIWAME" merge "$WORK/a" --model "$BASE" --lora "$K"
expect 2 "numbers" "$KIWAME" merge "$WORK/x" --model "$WORK/a" --model "$BASE" --blocks 1,2,3
expect 3 "singular values" "$KIWAME" merge "$WORK/x.safetensors" --lora "$L/lycoris/lokr-factor.safetensors" --lora "$K"
expect 3 "do not differ" "$KIWAME" extract "$BASE" --base "$BASE" -o "$WORK/x.safetensors"
expect 2 "needs --base" "$KIWAME" extract "$BASE" -o "$WORK/x.safetensors"
expect 2 "--dynamic-param" "$KIWAME" extract --resize "$K" --dynamic sv_ratio -o "$WORK/x.safetensors"
expect 3 "" "$KIWAME" merge "$WORK/x" --model "$WORK/a" --model tests/golden/models/unet-sdxl-tiny
[ ! -e "$WORK/x" ] && [ ! -e "$WORK/x.safetensors" ] || fail "something was written"
ls "$WORK"/.tmp-* >/dev/null 2>&1 && fail "something unfinished lies there"
exit 0
