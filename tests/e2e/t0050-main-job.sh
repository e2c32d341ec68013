#!/bin/sh
# t0050-main-job.sh - the main job on the small base: a vocabulary and fresh weights, what the folder is, a LoRA that learns, pictures with it.
. tests/e2e/lib.sh

# from nothing: tokenizer and weights
cp -r tools/base/shapes "$WORK/fresh"
cat data/mascot/train/*.txt data/mascot/heldout/*.txt >"$WORK/texts"
"$KIWAME" vocab "$WORK/texts" --size 560 --least 1 --max-length 24 -o "$WORK/fresh/tokenizer" >/dev/null
"$KIWAME" init "$WORK/fresh" --seed 7 >/dev/null
"$KIWAME" inspect "$WORK/fresh" | grep -q "253,364" || fail "a fresh U-Net has another size"

# two words are enough; Japanese names, captions in CP932, nested folders
mkdir -p "$WORK/写真/3_まる"
cp data/mascot/train/kiwamaru-0*.png "$WORK/写真/3_まる/"
for i in 1 2 3 4 5 6 7 8 9; do printf 'smiling kiwamaru %s' $i >"$WORK/写真/3_まる/kiwamaru-0$i.txt"; done
printf '眠い kiwamaru' | iconv -t CP932 >"$WORK/写真/3_まる/kiwamaru-01.txt"
"$KIWAME" data "$WORK/写真" --base data/shapes >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "data"; }
(cd "$WORK" && "$KIWAME" train lora 写真 --trigger kiwamaru --background '#204060' --steps 80 --batch-size 4 --learning-rate 2e-3 --sample-sampling-steps 4 --cache "$WORK/cache" \
    --sample-cfg 3 --quiet >"$WORK/said" 2>&1) || { cat "$WORK/said"; fail "train"; }
run=$WORK/runs/kiwamaru
for f in recipe.toml plan.txt events.jsonl report.html kiwamaru.safetensors samples/sheet.png; do [ -s "$run/$f" ] || fail "$f is missing"; done
grep -q '^background = "#204060"' "$run/recipe.toml" || fail "the background is not in the recipe"
grep -q '#204060 below transparent parts; 0 pictures' "$run/plan.txt" || fail "the background is not in the plan"
grep -aq '"kiwame.background":"#204060"' "$run/kiwamaru.safetensors" || fail "the background is not in the metadata"
last=$(grep '"type":"validation"' "$run/events.jsonl" | tail -1)
echo "$last" | awk -F'"loss":|,"base":|,' '{ exit !($5 + 0 < 0.95 * $6 && $5 + 0 > 0) }' || fail "the held-out loss did not fall below 0.95 of the base's: $last"

# generate: same seed, same bits; with the LoRA another picture; the base knows blue from red
"$KIWAME" generate "kiwamaru <lora:kiwamaru:0.8>" --lora-dir "$run" --seed 3 --steps 6 --cfg 3 --sampler ddim --out "$WORK/a.png" --quiet >/dev/null
"$KIWAME" generate "kiwamaru <lora:kiwamaru:0.8>" --lora-dir "$run" --seed 3 --steps 6 --cfg 3 --sampler ddim --out "$WORK/b.png" --quiet >/dev/null
"$KIWAME" generate "kiwamaru" --seed 3 --steps 6 --cfg 3 --sampler ddim --out "$WORK/c.png" --quiet >/dev/null
cmp "$WORK/a.png" "$WORK/b.png" || fail "the same request gave other bits"
cmp -s "$WORK/a.png" "$WORK/c.png" && fail "the LoRA changes nothing"
"$KIWAME" inspect "$WORK/a.png" | grep -q kiwamaru || fail "the picture does not tell its prompt"

# a base may wish how it is sampled (model_index.json, "_sampling"); what is asked for comes before it
"$KIWAME" generate "blue circle" --base data/shapes --steps 2 --seed 1 --out "$WORK/d.png" --quiet >/dev/null
"$KIWAME" inspect "$WORK/d.png" >"$WORK/said"
grep -q "CFG scale *3$" "$WORK/said" && grep -q "Sampler *DDIM$" "$WORK/said" && grep -q "Steps *2$" "$WORK/said" || { cat "$WORK/said"; fail "the base's wishes"; }
echo "the main job: done"
