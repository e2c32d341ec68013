#!/bin/sh
# t0650-lora.sh - LoRAs and their kin through the program: what inspect says, other spellings, strengths of blocks,
# refusals.
. tests/e2e/lib.sh
G=tests/golden/lora/files
BASE=tests/golden/pipeline/base
# draw NAME ...: the latents of one picture, as $WORK/NAME.st
draw() {
    name=$1
    shift
    expect 0 "" "$KIWAME" generate --base "$BASE" --width 16 --height 16 --steps 2 --seed 1 --out "$WORK/$name.png" \
        --save-latents "$WORK/$name.st" "$@"
}
same() { cmp -s "$WORK/$1.st" "$WORK/$2.st"; }

# inspect: spelling, method, ranks, for files and for PEFT's folders
expect 0 "kohya's names" "$KIWAME" inspect "$G/diffusers/kohya/file.safetensors"
expect 0 "LoKr" "$KIWAME" inspect "$G/lycoris/lokr-factor.safetensors"
expect 0 "PEFT's names" "$KIWAME" inspect "$G/peft/patterns/unet"

# one LoRA in four spellings: the same bits
K=$G/diffusers/kohya/file.safetensors
expect 0 "" "$KIWAME" convert "$K" "$WORK/d" --names diffusers
expect 0 "" "$KIWAME" convert "$WORK/d" "$WORK/k.safetensors" --names kohya
expect 0 "" "$KIWAME" convert "$K" "$WORK/p" --names peft
draw none "a red cat"
draw file "a red cat" --lora "$K"
draw diffusers "a red cat" --lora "$WORK/d"
draw kohya "a red cat" --lora "$WORK/k.safetensors:1"
draw peft "a red cat" --lora "$WORK/p/unet" --lora "$WORK/p/text_encoder:1:1"
same none file && fail "the LoRA changes nothing"
for i in diffusers kohya peft; do
    same file $i || fail "$i: another picture"
done

# blocks, by number, by name and in a tag; all of them at 0 are the base
draw zero "a red cat" --lora "$WORK/k.safetensors:1:lbw=IN=0,OUT=0,M00=0,BASE=0"
draw name "a red cat" --lora "$WORK/k.safetensors:1:lbw=OUT=0,IN=0.5"
draw list "a red cat" --lora "$WORK/k.safetensors:1:lbw=1,.5,.5,.5,.5,.5,.5,.5,.5,.5,.5,.5,.5,1,0,0,0,0,0,0,0,0,0,0,0,0"
draw tag "a red cat <lora:k:1:lbw=OUT=0,IN=0.5>" --lora-dir "$WORK"
same zero none || fail "blocks at 0 change the picture"
same name file && fail "blocks change nothing"
same name list || fail "a list of blocks is not what its names are"
same name tag || fail "a tag's blocks are not the option's"

# 8-bit floats: what PyTorch widens them to, beside the layers and in the weights; other spellings keep the bytes
for k in e4m3 e5m2; do
    for i in "" -wide; do
        draw $k$i "a red cat" --lora "$G/fp8/$k$i.safetensors"
        draw $k-in$i "a red cat" --lora "$G/fp8/$k$i.safetensors:0.7" --lora-apply merge
        expect 0 "" "$KIWAME" merge "$WORK/$k$i.safetensors" --model "$BASE" --lora "$G/fp8/$k$i.safetensors:0.7"
        draw $k-merged$i "a red cat" --base "$WORK/$k$i.safetensors"
        expect 0 "energy kept" "$KIWAME" merge "$WORK/$k-2$i.safetensors" --base "$BASE" --lora "$G/fp8/$k$i.safetensors" --rank 2
        draw $k-2$i "a red cat" --lora "$WORK/$k-2$i.safetensors"
    done
    for i in "" -in -merged -2; do
        same $k$i none && fail "$k$i changes nothing"
        same $k$i $k$i-wide || fail "$k$i: not what its numbers are"
    done
done
expect 0 "F8_E4M3 ×108" "$KIWAME" inspect "$G/fp8/e4m3.safetensors"
expect 0 "" "$KIWAME" convert "$G/fp8/e4m3.safetensors" "$WORK/f8" --names diffusers
expect 0 "F8_E4M3 ×72" "$KIWAME" inspect "$WORK/f8"
draw f8 "a red cat" --lora "$WORK/f8"
same f8 e4m3 || fail "fp8 in diffusers' names: another picture"

# SDXL's blocks have numbers in kohya's names, which depend on the layers of a block: of unusual models they are told by
# the keys, else by the model; where nothing tells, a wrong name would be silent
expect 0 "" "$KIWAME" convert "$K" "$WORK/ldm.safetensors" --names kohya
grep -aq lora_unet_input_blocks_3_1_proj_in "$WORK/ldm.safetensors" || fail "other numbers than the model has"
draw ldm "a red cat" --lora "$WORK/ldm.safetensors"
same file ldm || fail "kohya's names of a model with one layer in a block: another picture"
BASE=tests/golden/pipeline/xl
mkdir "$WORK/few" && cp tests/golden/picture/hole.png tests/golden/picture/mask.png "$WORK/few"
expect 0 "" "$KIWAME" train lora "$WORK/few" --base "$BASE" --out "$WORK/run" --steps 1 --rank 2 --targets attention --learning-rate 0.1 --quiet
X=$WORK/run/lora.safetensors
draw xl "a red cat" --lora "$X"
draw xl-none "a red cat"
same xl xl-none && fail "the LoRA of SDXL changes nothing"
for with in "" "--base $BASE"; do
    for names in diffusers kohya; do
        expect 0 "" "$KIWAME" convert "$X" "$WORK/x.safetensors" --names $names --overwrite $with
        draw x "a red cat" --lora "$WORK/x.safetensors"
        same xl x || fail "SDXL in $names' names $with: another picture"
    done
    expect 0 "" "$KIWAME" convert "$WORK/x.safetensors" "$WORK/y.safetensors" --names diffusers --overwrite $with
    draw y "a red cat" --lora "$WORK/y.safetensors"
    same xl y || fail "SDXL there and back $with: another picture"
done
D=lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn2_to_k.lora_
H='{"'$D'down.weight":{"dtype":"F32","shape":[1,40],"data_offsets":[0,160]},"'$D'up.weight":{"dtype":"F32","shape":[16,1],"data_offsets":[160,224]}}'
printf "\\$(printf %03o $((${#H} % 256)))\\$(printf %03o $((${#H} / 256)))\0\0\0\0\0\0%s" "$H" >"$WORK/few.safetensors"
head -c 224 /dev/zero | tr '\0' '\074' >>"$WORK/few.safetensors"
expect 3 "--base MODEL" "$KIWAME" convert "$WORK/few.safetensors" "$WORK/never.safetensors" --names kohya
expect 0 "" "$KIWAME" convert "$WORK/few.safetensors" "$WORK/one.safetensors" --names kohya --base "$BASE"
grep -aq lora_unet_input_blocks_3_1_transformer_blocks_1_attn2 "$WORK/one.safetensors" || fail "not the numbers of the base"
expect 2 "with --names" "$KIWAME" convert "$BASE" "$WORK/never" --base "$BASE"
BASE=tests/golden/pipeline/base

# refusals: a method that diffusers lacks, a list of blocks that is none, a name that is taken, a folder without a LoRA
expect 3 "LoKr" "$KIWAME" convert "$G/lycoris/lokr-factor.safetensors" "$WORK/never" --names diffusers
expect 2 "each block" "$KIWAME" generate "x" --base "$BASE" --lora "$WORK/k.safetensors:1:lbw=1,2" --out "$WORK/x.png"
expect 2 "already there" "$KIWAME" convert "$WORK/d" "$WORK/k.safetensors" --names kohya
expect 3 "without a LoRA" "$KIWAME" generate "x" --base "$BASE" --lora tests/golden --out "$WORK/x.png"
