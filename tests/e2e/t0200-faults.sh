#!/bin/sh
# t0200-faults.sh - what goes wrong is said clearly, with its exit code, and nothing is lost.
. tests/e2e/lib.sh
make_base

lora() { "$KIWAME" train lora --base "$WORK/base" --rank 2 --batch-size 2 --sample-sampling-steps 2 --cache "$WORK/cache" --quiet "$@"; }

# folders
mkdir "$WORK/empty"
expect 3 "no picture" lora "$WORK/empty" --out "$WORK/r0" --steps 2
expect 3 "$WORK/nowhere" lora "$WORK/nowhere" --out "$WORK/r0" --steps 2
[ ! -e "$WORK/r0" ] || fail "a refused run left a folder"

# one bad picture among many is listed with its reason before the first step, and the rest is trained on
cp -r data/mascot/train "$WORK/photos"
head -c 900 data/mascot/train/kiwamaru-01.png >"$WORK/photos/kiwamaru-01.png"
lora "$WORK/photos" --out "$WORK/r1" --steps 2 --no-quiet >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "one bad picture stopped the run"; }
grep -q "not used: kiwamaru-01.png: damaged" "$WORK/said" || { cat "$WORK/said"; fail "the bad picture is not named with its reason"; }
"$KIWAME" data "$WORK/photos" --json >"$WORK/said" 2>&1 || true
grep -q kiwamaru-01 "$WORK/said" || fail "the bad picture is not named"

# a run is not overwritten
expect 2 "holds a run already" lora data/mascot/train --out "$WORK/r1" --steps 2
expect 2 "not the folder of a run" "$KIWAME" resume "$WORK/empty"

# a damaged newest checkpoint gives way to the one before; as if the run had been stopped there
unfinish() { sed -i '/"type":"end"/d' "$1/events.jsonl"; }
lora data/mascot/train --out "$WORK/r2" --steps 6 --checkpoint-every 2 >/dev/null 2>&1
(cd "$WORK/r2" && grep -ao '"sshs_model_hash":"[0-9a-f]*"' ./*.safetensors | sort) >"$WORK/before"
newest=$(ls -d "$WORK"/r2/checkpoints/step-* | tail -1)
unfinish "$WORK/r2"
head -c 1000 "$newest/state.safetensors" >"$WORK/cut" && cp "$WORK/cut" "$newest/state.safetensors"
"$KIWAME" resume "$WORK/r2" >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "a damaged checkpoint was not passed over"; }
grep -q "passed over" "$WORK/said" || { cat "$WORK/said"; fail "the damage was not told"; }
(cd "$WORK/r2" && grep -ao '"sshs_model_hash":"[0-9a-f]*"' ./*.safetensors | sort) >"$WORK/after"
cmp "$WORK/before" "$WORK/after" || fail "the result is another one after the damage"
unfinish "$WORK/r2"
for s in "$WORK"/r2/checkpoints/step-*; do echo x >"$s/state.safetensors"; done
expect 3 "checksum" "$KIWAME" resume "$WORK/r2" --quiet

# no room for a file: the storage error, and what was there stays
expect 5 "r3" sh -c "ulimit -f 200; exec '$KIWAME' train lora data/mascot/train --base '$WORK/base' --rank 8 --out '$WORK/r3' --steps 2 --cache '$WORK/cache' --quiet"
[ -z "$(find "$WORK/r3" -name '.tmp-*')" ] || fail "a torn file was left"

# a LoRA for another base
"$KIWAME" inspect "$WORK/r2/lora.safetensors" >/dev/null
cp -r "$WORK/base" "$WORK/other"
sed -i 's/"cross_attention_dim": 32/"cross_attention_dim": 48/' "$WORK/other/unet/config.json"
sed -i 's/"hidden_size": 32/"hidden_size": 48/' "$WORK/other/text_encoder/config.json"
"$KIWAME" init "$WORK/other" --overwrite >/dev/null
expect 3 "lora_unet" "$KIWAME" generate "a ball" --base "$WORK/other" --lora "$WORK/r2/lora.safetensors" --steps 2 --out "$WORK/x.png"
[ ! -e "$WORK/x.png" ] || fail "a picture was made with a LoRA of another base"

# settings
expect 2 "rank" lora data/mascot/train --out "$WORK/r4" --rank 0
expect 2 "learning-rate" lora data/mascot/train --out "$WORK/r4" --learning-rat 1
expect 2 "did you mean 'black'" lora data/mascot/train --out "$WORK/r4" --background blakc

# transparent parts are counted, and on which colour they are laid is said
mkdir "$WORK/clear" && cp tests/golden/picture/rgba.png "$WORK/clear/a.png" && cp data/mascot/train/kiwamaru-01.png "$WORK/clear/b.png"
expect 0 "in 1 pictures, laid on #102030" "$KIWAME" data "$WORK/clear" --base "$WORK/base" --background '#102030'
expect 0 '"background":"#000000","transparent":1,' "$KIWAME" data "$WORK/clear" --base "$WORK/base" --background black --json

# what means nothing to a method is not taken silently, and the answer says whose it is
F=data/mascot/train
expect 2 "it is for kiwame train lora" "$KIWAME" train full $F --base "$WORK/base" --out "$WORK/r5" --rank 4
expect 2 "it is for kiwame train lora" "$KIWAME" train full $F --base "$WORK/base" --out "$WORK/r5" --preset style
expect 2 "--part chooses what is trained" "$KIWAME" train full $F --base "$WORK/base" --out "$WORK/r5" --targets ff
expect 2 "it is for kiwame train lora" "$KIWAME" train align $F --base "$WORK/base" --out "$WORK/r5" --network_alpha 4
expect 2 "it is for kiwame train full; --targets" "$KIWAME" train lora $F --base "$WORK/base" --out "$WORK/r5" --part text
expect 2 "kiwame train full --part vae" "$KIWAME" train full $F --base "$WORK/base" --out "$WORK/r5" --part unet --kl-weight 1
expect 2 "kiwame train full --part unet" "$KIWAME" train full $F --base "$WORK/base" --out "$WORK/r5" --part vae --min-snr-gamma 5
expect 2 "it is for --method lora" "$KIWAME" debug train --method full --base "$WORK/base" --batches x --steps 1 --out x --rank 4
expect 2 "it is for --method full" "$KIWAME" debug train --method lora --base "$WORK/base" --batches x --steps 1 --out x --part text
"$KIWAME" train full --help | grep -q -- --rank && fail "train full shows --rank"
"$KIWAME" train lora --help | grep -q -- --part && fail "train lora shows --part"
[ ! -e "$WORK/r5" ] || fail "a refused run left a folder"

# a recipe may hold more than its method needs: those of before did
"$KIWAME" train full $F --base "$WORK/base" --part text --out "$WORK/r6" --steps 1 --sample-sampling-steps 1 --cache "$WORK/cache" --quiet >/dev/null 2>&1
grep -q '^rank' "$WORK/r6/recipe.toml" && fail "a full run's recipe has a rank"
printf 'rank = 16\npreset = "character"\nmetadata = "full"\n' >>"$WORK/r6/recipe.toml"
"$KIWAME" resume "$WORK/r6" --quiet >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "a recipe with further fields is refused"; }
echo "faults: all answered"
