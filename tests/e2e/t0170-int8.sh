#!/bin/sh
# t0170-int8.sh - --base-dtype int8: pictures and a LoRA over a base in one byte a number; the files say so, the pictures
# stay near, a run is resumed only with the same; what trains its weights, or has numbers that are none, refuses it.
. tests/e2e/lib.sh
make_base
draw() { "$KIWAME" generate "a red circle" --base "$WORK/base" --steps 4 --seed 3 --quiet "$@" || fail "generate $*"; }
lora() {
    "$KIWAME" train lora data/mascot/train --base "$WORK/base" --rank 2 --sample-prompt ball --sample-sampling-steps 1 \
        --cache "$WORK/cache" --validation 0 "$@"
}

draw --out "$WORK/f32.png" --save-latents "$WORK/f32.st" >"$WORK/said"
draw --out "$WORK/int8.png" --save-latents "$WORK/int8.st" --base-dtype int8 >"$WORK/said"
draw --out "$WORK/again.png" --save-latents "$WORK/again.st" --base-dtype int8 >"$WORK/said"
cmp "$WORK/int8.st" "$WORK/again.st" || fail "not the same bits twice"
cmp -s "$WORK/int8.st" "$WORK/f32.st" && fail "nothing was rounded"
"$KIWAME" inspect "$WORK/int8.png" | grep -q "Base dtype *int8" || fail "the picture does not say it"
"$KIWAME" inspect "$WORK/f32.png" | grep -q "Base dtype" && fail "the picture says too much"

lora --steps 4 --base-dtype int8 --out "$WORK/r1" >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "train lora"; }
says "in one byte a number"
lora --steps 4 --base-dtype int8 --out "$WORK/r2" >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "train lora again"; }
"$KIWAME" inspect "$WORK/r1/lora.safetensors" --json >"$WORK/said"
says '"kiwame.base_dtype":"int8"'
[ "$(fingerprint "$WORK/r1")" = "$(fingerprint "$WORK/r2")" ] || fail "training: not the same bits twice"
lora --steps 4 --out "$WORK/r3" >"$WORK/said" 2>&1 || fail "train lora on f32"
"$KIWAME" inspect "$WORK/r3/lora.safetensors" --json | grep -q 'base_dtype' && fail "an f32 base is called int8"
losses() { grep -o '"type":"step".*' "$1/events.jsonl" | grep -o '"loss":[0-9.e-]*' | cut -d: -f2; }
losses "$WORK/r1" >"$WORK/a" && losses "$WORK/r3" >"$WORK/b"
[ -s "$WORK/a" ] || fail "no losses"
paste "$WORK/a" "$WORK/b" | awk '{ d = $1 / $2 - 1; if (d < 0) d = -d; if (d > 0.05) exit 1; if (d) some = 1 } END { exit !some }' \
    || { paste "$WORK/a" "$WORK/b"; fail "the losses are not near those of f32, or the same"; }

expect 2 "--base-dtype means nothing" "$KIWAME" train full data/mascot/train --base "$WORK/base" --steps 1 --base-dtype int8 --out "$WORK/r4"
says "train lora"

# a weight that is no number: the first of a tensor becomes NaN, whatever its type
file=$(ls "$WORK"/base/unet/*.safetensors)
n=$(($(od -An -tu8 -N8 "$file")))
at=$(head -c $((8 + n)) "$file" | tail -c +9 | grep -ao '"[^"]*to_q.weight":{[^}]*}' | head -1 | grep -o '"data_offsets":\[[0-9]*' | grep -o '[0-9]*$')
printf '\377\377\377\377' | dd of="$file" bs=1 seek=$((8 + n + at)) conv=notrunc 2>/dev/null
expect 3 "in one byte a number" "$KIWAME" generate x --base "$WORK/base" --steps 1 --base-dtype int8 --out "$WORK/nan.png"
