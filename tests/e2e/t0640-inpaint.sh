#!/bin/sh
# t0640-inpaint.sh - training on inpainting bases, whose U-Net sees a mask and a masked picture: LoRA and whole, with the
# cache and without, killed and resumed with the same bits; masks beside the pictures; held-out losses, samples, and
# what a LoRA of it draws. The numbers of a step: tools/golden/train_parity.py, of its inputs: tests/unit/data/test_masked.c.
. tests/e2e/lib.sh
BASE=$PWD/tests/golden/pipeline/v2-inpaint
PICTURES=$PWD/data/mascot/train
ONE=$PWD/data/mascot/train/kiwamaru-01.png
cd "$WORK"

lora() { out=$1; shift; expect 0 "" "$KIWAME" train lora "$PICTURES" --base "$BASE" --out "$out" --name x --steps 6 --batch-size 2 --rank 2 --flip \
         --learning-rate 1e-3 --sample-sampling-steps 2 --sample-prompt "a cat" --quiet "$@"; }
losses() { grep -o '"loss":[^,]*' "$1/events.jsonl"; }
same() { losses "$1" >a; losses "$2" >b; [ -s a ] && cmp -s a b || fail "$1 and $2 are not trained alike"; }
other() { losses "$1" >a; losses "$2" >b; cmp -s a b && fail "$1 and $2 are trained alike"; true; }

# Masked pictures from the cache, and all made anew: the same losses. Other masks: others, held out too.
lora first --cache cache
lora again --cache cache
lora bare --cache bare-cache
same first again
same first bare
grep -q '"validation"' first/events.jsonl || fail "no held-out loss"
ls first/samples/*.png >/dev/null || fail "no samples"
lora two --cache cache --masks 2
lora new --cache cache --masks new
grep -q "masks:       2 for each picture; about .* masked pictures are encoded once and kept" two/plan.txt || fail "masks are not in the plan"
grep -q "masks:       another each time; about .* masked pictures are encoded" new/plan.txt || fail "new masks are not in the plan"
[ "$(losses first | head -2)" = "$(losses new | head -2)" ] || fail "the first masks are not the first"

# What it draws: words alone, and painting over a picture with a mask.
draw() { n=$1; shift; expect 0 "" "$KIWAME" generate "a cat" --base "$BASE" --steps 3 --seed 5 --sampler ddim --no-sheet --out "$n.png" \
         --save-latents "$n.safetensors" "$@"; }
draw plain
draw with --lora first/x.safetensors:8
cmp -s plain.safetensors with.safetensors && fail "the LoRA changes nothing"
draw over --init "$ONE" --mask "$ONE"
draw over-with --init "$ONE" --mask "$ONE" --lora first/x.safetensors:8
cmp -s over.safetensors over-with.safetensors && fail "the LoRA changes nothing below a mask"

# kill -9 and resume: the same bits.
train() { exec "$KIWAME" train lora "$PICTURES" --base "$BASE" --out "$1" --name x --steps 8 --batch-size 2 --rank 2 --flip --masks 3 \
          --checkpoint-every 2 --sample-sampling-steps 2 --sample-prompt "a cat" --quiet; }
(train "$WORK/whole") >/dev/null || fail "the uninterrupted run"
fingerprint whole >whole.txt
kills 2

# Masks beside the pictures: they are no pictures, and they change what is learned.
mkdir masked && cp "$PICTURES"/*.png "$PICTURES"/*.txt masked
PICTURES=$WORK/masked
lora before --no-flip
for n in 02 04 05 06 07 08 09 10; do cp "$ONE" masked/kiwamaru-$n.mask.png; done
cp "$ONE" masked/kiwamaru-03-masklabel.png
cp "$ONE" masked/nobody.mask.png
expect 0 "14 to train on, 2 held out" "$KIWAME" train lora masked --base "$BASE" --out user --name x --steps 6 --batch-size 2 --rank 2 --no-flip \
    --learning-rate 1e-3 --sample-sampling-steps 2 --sample-prompt "a cat"
says "mask without a picture of its own: nobody.mask.png"
other before user
rm masked/*mask.png masked/*masklabel.png
lora after --no-flip
same before after

# The whole U-Net: the channels of the mask learn too; the file is an inpainting model again.
expect 0 "" "$KIWAME" train full masked --base "$BASE" --out full --name x --steps 2 --learning-rate 1e-3 --sample-sampling-steps 2 \
    --sample-prompt "a cat" --quiet
grep -q '"in_channels": 9' full/x/unet/config.json || fail "no inpainting model any more"
expect 0 "" "$KIWAME" merge --report --model "$BASE" --model full/x --json
says "GOOD"
expect 0 "" "$KIWAME" generate "a cat" --base full/x --steps 3 --seed 5 --sampler ddim --no-sheet --out full.png --save-latents full.safetensors
cmp -s plain.safetensors full.safetensors && fail "training changed nothing"

# SDXL's; and a base with other channels still (SD 2's depth model has five) is refused.
cp -r "$OLDPWD/tests/golden/pipeline/xl" xl
sed -i 's/"in_channels": 4/"in_channels": 9/' xl/unet/config.json
expect 0 "" "$KIWAME" init xl --seed 1 --overwrite
expect 0 "" "$KIWAME" train lora masked --base xl --out xl-run --name x --steps 2 --rank 2 --targets attention,text --sample-sampling-steps 2 \
    --sample-prompt "a cat" --quiet
cp -r "$BASE" depth
sed -i 's/"in_channels": 9/"in_channels": 5/' depth/unet/config.json
expect 0 "" "$KIWAME" init depth --seed 1 --overwrite
expect 3 "the U-Net takes 5" "$KIWAME" train lora masked --base depth --out depth-run
echo "inpainting bases train"
