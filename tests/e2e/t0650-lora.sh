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

# refusals: a method that diffusers lacks, a list of blocks that is none, a name that is taken, a folder without a LoRA
expect 3 "LoKr" "$KIWAME" convert "$G/lycoris/lokr-factor.safetensors" "$WORK/never" --names diffusers
expect 2 "each block" "$KIWAME" generate "x" --base "$BASE" --lora "$WORK/k.safetensors:1:lbw=1,2" --out "$WORK/x.png"
expect 2 "already there" "$KIWAME" convert "$WORK/d" "$WORK/k.safetensors" --names kohya
expect 3 "without a LoRA" "$KIWAME" generate "x" --base "$BASE" --lora tests/golden --out "$WORK/x.png"
