#!/bin/sh
# t0720-export.sh - what a run has made, for each program: names, sidecars, pictures whose text repeats them; nothing
# replaced.
. tests/e2e/lib.sh
P=data/mascot/train
RUN=$WORK/runs/kiwa
"$KIWAME" train lora "$P" --base data/shapes --trigger kiwamaru --steps 3 --batch-size 2 --rank 4 --sample-sampling-steps 4 --sample-cfg 2 \
    --sample-prompt "kiwamaru, smiling" --sample-prompt "a red circle" --save-every-steps 2 --save-dtype f32 --name kiwa --out "$RUN" --quiet >/dev/null
BASE=$PWD/data/shapes
cd "$WORK"
export_() { "$KIWAME" export "$@"; }

expect 0 "webui/models/Lora/kiwa.safetensors" sh -c "mkdir -p webui/models && \"$KIWAME\" export runs/kiwa --to a1111:webui --weight 0.8"
cmp runs/kiwa/kiwa.safetensors webui/models/Lora/kiwa.safetensors || fail "another file"
grep -q '"activation text": "kiwamaru"' webui/models/Lora/kiwa.json &&
    grep -q '"preferred weight": 0.8,' webui/models/Lora/kiwa.json || fail "the sidecar"
[ "$(ls webui/models/Lora | tr '\n' ' ')" = "kiwa.json kiwa.preview.png kiwa.safetensors " ] || fail "other files"

# the preview's text draws the preview: a wrong seed or sampler would not
expect 0 "kiwamaru, smiling <lora:kiwa:1>" "$KIWAME" inspect webui/models/Lora/kiwa.preview.png --no-hashes
field() { sed -n "s/^    $1  *//p" said; }
"$KIWAME" generate "$(sed -n 's/^  prompt  *//p' said)" --seed "$(field Seed)" --rng kiwame --sampler "$(field Sampler)" --steps "$(field Steps)" \
    --cfg "$(field 'CFG scale')" --width 64 --height 64 --base "$BASE" --lora-dir webui/models/Lora --out again.png --quiet >/dev/null
pixels() { tail -c "+$(grep -abo IDAT "$1" | head -1 | cut -d: -f1)" "$1" | sha256sum; }
[ "$(pixels again.png)" = "$(pixels webui/models/Lora/kiwa.preview.png)" ] ||
    fail "the preview's text draws another picture"
[ "$(pixels again.png)" != "$(pixels runs/kiwa/samples/kiwa_000000_00_*.png)" ] || fail "the first sample"

expect 2 "is there already" export_ runs/kiwa --to a1111:webui
expect 0 "kiwa.json" export_ runs/kiwa --to a1111:webui --force
expect 0 '"name":"fox"' export_ runs/kiwa --to a1111:plain --name fox --json --plan
[ ! -e plain ] || fail "the plan was carried out"
expect 0 "plain/fox.preview.png" export_ runs/kiwa --to a1111:plain --name fox
expect 0 "<lora:fox:1>" "$KIWAME" inspect plain/fox.preview.png --no-hashes
for bad in ../x a/b .x "a:b" ""; do expect 2 "is no name for files" export_ runs/kiwa --to a1111:plain --name "$bad"; done

expect 0 "comfy/extra_model_paths.yaml" export_ runs/kiwa --to comfyui:comfy --link
[ "$(stat -c %i comfy/kiwa.safetensors)" = "$(stat -c %i runs/kiwa/kiwa.safetensors)" ] || fail "no link"
grep -q "base_path: \"$WORK/comfy\"" comfy/extra_model_paths.yaml && grep -q "loras: ." comfy/extra_model_paths.yaml ||
    fail "the paths"
expect 2 "is the file itself" export_ runs/kiwa --to comfyui:comfy --force --link
expect 0 "pytorch_lora_weights.safetensors" export_ runs/kiwa --to diffusers:d
expect 0 "reads it" "$KIWAME" verify d/pytorch_lora_weights.safetensors --for diffusers
expect 3 "diffusers' or PEFT's names" "$KIWAME" verify d/pytorch_lora_weights.safetensors --for a1111
expect 0 "back/models/Lora/kiwa.safetensors" sh -c "mkdir -p back/models && \"$KIWAME\" export d/pytorch_lora_weights.safetensors --name kiwa --to a1111:back"
expect 0 "reads it" "$KIWAME" verify back/models/Lora/kiwa.safetensors --for a1111
expect 0 "c/checklist.md" export_ runs/kiwa --to civitai:c --licence cc-by-4.0
grep -q "Licence and permissions: cc-by-4.0" c/checklist.md && [ "$(cat c/trained-words.txt)" = kiwamaru ] ||
    fail "Civitai"
expect 0 "Steps" "$KIWAME" inspect c/images/2.png --no-hashes
expect 0 "h/README.md" export_ runs/kiwa --to hf:h --license mit
[ "$(head -1 h/README.md)" = "---" ] && grep -q '^license: "mit"$' h/README.md && grep -q '^- text: "kiwamaru, smiling"$' h/README.md \
    && grep -q '^instance_prompt: "kiwamaru"$' h/README.md && [ -f h/images/2.png ] ||
        { cat h/README.md; fail "the card"; }

# a checkpoint between, with the pictures of that step; what is no result; programs nobody knows
expect 0 "s/kiwa-step00000002.safetensors" export_ runs/kiwa/kiwa-step00000002.safetensors --to a1111:s
cmp s/kiwa-step00000002.safetensors runs/kiwa/kiwa-step00000002.safetensors || fail "another file"
expect 2 "none of the programs" export_ runs/kiwa --to a111:x
expect 2 "the folder is missing" export_ runs/kiwa --to a1111:
expect 3 "nowhere" export_ nowhere --to a1111:x
mkdir empty && : >empty/recipe.toml
expect 3 "holds no result yet" export_ empty --to a1111:x

# whole models: one file for A1111, a folder for diffusers, with the same numbers
parts() { "$KIWAME" inspect "$1" --json | grep -o '"hash":"[0-9a-f]*"'; }
expect 0 "w/shapes.safetensors" export_ "$BASE" --to a1111:w
[ "$(parts "$BASE")" = "$(parts w/shapes.safetensors)" ] || fail "other numbers"
expect 0 "w2/shapes" export_ w/shapes.safetensors --to diffusers:w2
[ "$(parts "$BASE")" = "$(parts w2/shapes)" ] || fail "other numbers"
expect 0 "w3/README.md" export_ "$BASE" --to hf:w3
[ -f w3/unet/config.json ] || fail "no model beside the card"
[ -z "$(find . -name '.tmp-*' -o -name '*.tmp-*')" ] || fail "leftovers"
echo "exported: as each program wants it"
