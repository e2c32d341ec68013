#!/bin/sh
# t0720-pictures.sh - pictures over pictures, masks, the second pass, grids, other kinds of files, and --from: each
# repeats
# to the same bytes by what its file says.
. tests/e2e/lib.sh
make_base
G=tests/golden/picture

draw() { "$KIWAME" generate --base "$WORK/base" --steps 4 --quiet "$@" >"$WORK/out" 2>"$WORK/said" || { cat "$WORK/said"; fail "generate $*"; }; }
# again FILE [INIT [MASK]]: --from gives the same bytes
again() {
    copy=$WORK/again.${1##*.}
    "$KIWAME" generate --from "$1" --model-dir "$WORK" --out "$copy" --quiet ${2:+--init "$2"} ${3:+--mask "$3"} >"$WORK/said" 2>&1 \
        || { cat "$WORK/said"; fail "--from $1"; }
    cmp "$1" "$copy" || fail "$1 does not repeat"
}
keeps() { "$KIWAME" inspect "$1" --json >"$WORK/said"; shift; for t in "$@"; do says "$t"; done; }

# three kinds of files, same settings in each
for f in png jpg webp; do
    draw "a red ball, (x:1.2)" --seed 1 --out "$WORK/a.$f"
    keeps "$WORK/a.$f" '"prompt":"a red ball, (x:1.2)"' '"Seed":"1"' '"Size":"64x64"'
    again "$WORK/a.$f"
done
keeps "$WORK/a.jpg" '"format":"JPEG"'
keeps "$WORK/a.webp" '"format":"WebP"'
draw "あか ball" --seed 1 --format webp --quality lossless --out "$WORK/many" --count 2
keeps "$WORK/many/00000-1.webp" '"prompt":"あか ball"' '"Seed":"1"'
[ -s "$WORK/many/sheet-00000.png" ] || fail "no sheet beside WebP"
expect 2 "says another format" "$KIWAME" generate x --base "$WORK/base" --out "$WORK/a.jpg" --format png
expect 2 "PNG, JPEG or WebP" "$KIWAME" generate x --base "$WORK/base" --out "$WORK/a.gif"

# over a picture: nothing of it is left at 1, all but a little at 0; of a mask what is black stays to the bit
draw "a blue ball" --seed 2 --init "$WORK/a.png" --strength 0.6 --out "$WORK/b.png"
keeps "$WORK/b.png" '"Denoising strength":"0.6"' '"Init image hash":'
again "$WORK/b.png" "$WORK/a.png"
draw "a blue ball" --seed 2 --init "$WORK/a.png" --mask $G/mask.png --mask-blur 2 --strength 0.9 --out "$WORK/c.png"
keeps "$WORK/c.png" '"Mask blur":"2"' '"Size":"64x64"'
again "$WORK/c.png" "$WORK/a.png" $G/mask.png
draw "a blue ball" --seed 2 --init "$WORK/a.png" --mask $G/mask.png --mask-blur 0 --mask-invert --out "$WORK/c0.png"
again "$WORK/c0.png" "$WORK/a.png" $G/mask.png
for fill in fill noise nothing; do
    draw "a blue ball" --seed 2 --init "$WORK/a.png" --mask $G/mask.png --mask-fill $fill --inpaint-area masked --mask-padding 4 \
        --img2img-steps exact --strength 0.8 --out "$WORK/d-$fill.png"
    again "$WORK/d-$fill.png" "$WORK/a.png" $G/mask.png
done
keeps "$WORK/d-noise.png" '"Masked content":"latent noise"' '"Inpaint area":"Only masked"' '"Masked area padding":"4"' '"Img2img steps":"exact"'
draw "a blue ball" --seed 2 --init "$WORK/a.png" --mask $G/drawn-mask.png --mask-blur 2 --strength 0.9 --out "$WORK/c2.png"
cmp "$WORK/c.png" "$WORK/c2.png" || fail "a mask in the transparency is another mask"
draw "a blue ball" --seed 2 --init $G/hole.png --strength 0.9 --sampler "Euler a" --out "$WORK/e.png"
keeps "$WORK/e.png" '"Mask blur":"4"'
again "$WORK/e.png" $G/hole.png
draw "a blue ball" --init $G/wide.jpg --resize-mode fill --height 64 --out "$WORK/f.png"
expect 2 "no picture to paint over" "$KIWAME" generate x --base "$WORK/base" --mask $G/mask.png
expect 3 "not a picture" "$KIWAME" generate x --base "$WORK/base" --init "$WORK/base/model_index.json"
expect 3 "painted over another" "$KIWAME" generate --from "$WORK/b.png" --base "$WORK/base"
expect 3 "painted with a mask" "$KIWAME" generate --from "$WORK/c.png" --base "$WORK/base" --init "$WORK/a.png"
echo iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg== | base64 -d >"$WORK/black.png"
expect 3 "nothing is left to paint" "$KIWAME" generate x --base "$WORK/base" --init $G/rgb.bmp --mask "$WORK/black.png"

# every sampler paints over, and each picture repeats
"$KIWAME" generate --sampler help --json | grep -o '"id":"[a-z0-9_]*"' | cut -d'"' -f4 >"$WORK/samplers"
[ "$(wc -l <"$WORK/samplers")" -ge 15 ] || fail "samplers are not listed"
while read -r s; do
    draw "a blue ball" --seed 2 --init "$WORK/a.png" --mask $G/mask.png --strength 0.7 --steps 5 --sampler "$s" --spacing a1111 --out "$WORK/s.png"
    again "$WORK/s.png" "$WORK/a.png" $G/mask.png
done <"$WORK/samplers"

# the second pass
draw "a blue ball" --seed 2 --hires 2 --out "$WORK/h.png"
keeps "$WORK/h.png" '"pixels":"128 x 128' '"Size":"64x64"' '"Hires upscale":"2"' '"Hires upscaler":"Latent"' '"Denoising strength":"0.7"'
again "$WORK/h.png"
draw "a blue ball" --seed 2 --hires-size 96x128 --hires-steps 3 --hires-upscaler lanczos --hires-strength 0.5 --out "$WORK/h2.png"
keeps "$WORK/h2.png" '"pixels":"96 x 128' '"Hires resize":"96x128"' '"Hires steps":"3"' '"Hires upscaler":"Lanczos"'
again "$WORK/h2.png"
expect 2 "do not go together" "$KIWAME" generate x --base "$WORK/base" --hires 2 --init "$WORK/a.png"
expect 2 "smaller than the first" "$KIWAME" generate x --base "$WORK/base" --hires-size 32x32
expect 2 "not a size" "$KIWAME" generate x --base "$WORK/base" --hires-size 32

# grids: all combinations, each what it is alone
"$KIWAME" generate "a red ball" --base "$WORK/base" --seed 5 --grid cfg=1,3 --grid steps=2-6:2 --grid "prompt=red,blue" --out "$WORK/g.png" --json \
    >"$WORK/out" 2>"$WORK/said" || fail "grid"
says "grid: 2 columns, 6 rows; 12 pictures, 48 steps"
grep -o '"file":' "$WORK/out" | wc -l | grep -qx ' *12' || fail "not 12 pictures"
[ -s "$WORK/g-sheet.png" ] || fail "no sheet of the grid"
"$KIWAME" generate "a blue ball" --base "$WORK/base" --seed 5 --cfg 3 --steps 4 --quiet --out "$WORK/alone.png" >/dev/null
cmp "$WORK/alone.png" "$WORK/g-10.png" || fail "a picture of the grid is another one alone"
again "$WORK/g-10.png"
expect 2 "did you mean steps" "$KIWAME" generate x --base "$WORK/base" --grid step=1,2
expect 2 "'7-' is not a value" "$KIWAME" generate x --base "$WORK/base" --grid cfg=7-
expect 2 "is not in the prompt" "$KIWAME" generate x --base "$WORK/base" --grid prompt=fox,cat
expect 2 "no LoRA is used" "$KIWAME" generate x --base "$WORK/base" --grid lora=0,1
expect 2 "sampler 'Eular' is not known" "$KIWAME" generate x --base "$WORK/base" --grid "sampler=Euler,Eular"

# a grid of strengths, and --from finds the LoRA by its name, or by its hash under another one
"$KIWAME" train lora data/mascot/train --base "$WORK/base" --rank 2 --alpha 2 --steps 2 --sample-prompt ball --sample-sampling-steps 1 --name kiwa \
    --threads 1 --out "$WORK/run" >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "train lora"; }
draw "a ball" --seed 3 --lora "$WORK/run/kiwa.safetensors:0.5" --grid lora=0,1 --out "$WORK/l.png"
keeps "$WORK/l-2.png" '"prompt":"a ball <lora:kiwa:1>"' '"Lora hashes":"kiwa: '
mkdir "$WORK/loras"
cp "$WORK/run/kiwa.safetensors" "$WORK/loras/kiwa.safetensors"
lora_again() {
    "$KIWAME" generate --from "$WORK/l-2.png" --base "$WORK/base" --lora-dir "$WORK/loras" --out "$WORK/again.png" >/dev/null 2>"$WORK/said" \
        || { cat "$WORK/said"; fail "--from with a LoRA"; }
}
lora_again
cmp "$WORK/l-2.png" "$WORK/again.png" || fail "a picture with a LoRA does not repeat"
"$KIWAME" train lora data/mascot/train --base "$WORK/base" --rank 2 --alpha 2 --steps 1 --sample-prompt ball --sample-sampling-steps 1 --name other \
    --threads 1 --out "$WORK/run2" >"$WORK/said" 2>&1 || fail "train lora"
mv "$WORK/loras/kiwa.safetensors" "$WORK/loras/renamed.safetensors"
cp "$WORK/run2/other.safetensors" "$WORK/loras/"
lora_again
cmp "$WORK/l-2.png" "$WORK/again.png" || fail "a LoRA is not found by its hash"
cp "$WORK/run2/other.safetensors" "$WORK/loras/kiwa.safetensors"
lora_again
says "kiwa: another file than the picture was made with"

# --from: options come first; strangers' keys are named; what is not at hand is refused
"$KIWAME" generate --from "$WORK/a.png" --base "$WORK/base" --seed 9 --steps 3 --out "$WORK/i.png" --quiet >/dev/null ||
    fail "--from with options"
keeps "$WORK/i.png" '"Seed":"9"' '"Steps":"3"' '"prompt":"a red ball, (x:1.2)"'
expect 3 "which is not at hand" "$KIWAME" generate --from "$WORK/a.png"
expect 3 "no settings are kept" "$KIWAME" generate --from $G/rgb.bmp
"$KIWAME" generate --from $G/text-late.png --base "$WORK/base" --steps 2 --width 64 --height 64 --out "$WORK/k.png" >/dev/null 2>"$WORK/said" || true
"$KIWAME" generate --from "$WORK/a.png" --base tests/golden/pipeline/base --steps 2 --out "$WORK/k.png" >/dev/null 2>"$WORK/said" || { cat "$WORK/said"; fail "another base"; }
says "another file than the picture was made with"

# stopped half-way: what is there is whole
"$KIWAME" generate "a red ball" --base "$WORK/base" --seed 1 --grid seed=1-200 --steps 100 --out "$WORK/cut" >/dev/null 2>&1 &
pid=$!
sleep 2
kill -TERM $pid 2>/dev/null || true
wait $pid 2>/dev/null || true
for f in "$WORK"/cut/*-[0-9]*.png; do
    [ -e "$f" ] || continue
    "$KIWAME" inspect "$f" --json >"$WORK/said" || fail "$f is not whole"
    says '"Seed":'
done
[ -z "$(find "$WORK/cut" -name '*tmp*' 2>/dev/null)" ] || fail "a half file is left"
