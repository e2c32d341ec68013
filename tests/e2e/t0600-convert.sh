#!/bin/sh
# t0600-convert.sh - models in every container: folder, one file, checkpoint; there and back, and what is refused.
. tests/e2e/lib.sh
GOLDEN=tests/golden/io
convert() { "$KIWAME" convert "$@"; }
parts() { "$KIWAME" inspect "$1" --json | grep -o '"hash":"[0-9a-f]*"'; }
make_base
cd "$WORK" && GOLDEN=$OLDPWD/$GOLDEN

# A folder of another shape with a vocabulary of its own: one file keeps its configuration and its words. (The text
# encoder's names come back with transformers 4's "text_model."; its numbers are compared below.)
expect 0 "base.safetensors" convert base base.safetensors
expect 0 "tokenizer" "$KIWAME" inspect base.safetensors
grep -q "inferred\|assumed\|a guess" "$WORK/said" && fail "the file's configuration was guessed"
expect 0 "unet/diffusion_pytorch_model.safetensors" convert base.safetensors back
grep -q "left behind" "$WORK/said" && fail "something was left behind"
bytes() { "$KIWAME" inspect "$1" --json | grep -o '"sshs_model_hash":"[0-9a-f]*"'; }     # of all that follows the header
for f in unet/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.safetensors; do
    [ "$(bytes base/$f)" = "$(bytes back/$f)" ] || fail "$f came back different"
done
for f in scheduler/scheduler_config.json tokenizer/vocab.json tokenizer/merges.txt; do
    cmp "base/$f" "back/$f" || fail "$f came back different"
done
for b in base.safetensors back; do
    "$KIWAME" debug tokens "a red circle" --base $b >said.$b 2>&1 && "$KIWAME" debug tokens "a red circle" --base base | cmp - said.$b \
        || fail "$b has other words"
done
[ "$(parts base)" = "$(parts base.safetensors)" ] && [ "$(parts base)" = "$(parts back)" ] || fail "other numbers"

# Checkpoints of PyTorch: what is no tensor is said; averages are chosen; numbers are those of the safetensors file.
expect 0 "epoch, global_step, pytorch-lightning_version" convert "$GOLDEN/torch/v1.ckpt" v1.safetensors --dtype f16
expect 0 "the weights lie in model.state_dict" convert "$GOLDEN/torch/wrapped.pt" vae.safetensors
says "module., _orig_mod.: left out of the names of 124 tensors"
expect 0 "averaged weights (model_ema) are used: 304 tensors" convert "$GOLDEN/torch/v1.ckpt" ema.safetensors --averages --dtype f16
[ "$(parts v1.safetensors)" = "$(parts "$GOLDEN/v1.safetensors")" ] || fail "the checkpoint has other numbers"
[ "$(parts v1.safetensors | head -1)" != "$(parts ema.safetensors | head -1)" ] || fail "the averages are the weights"
expect 0 "left behind, as a folder has no place for them: 307 tensors" convert "$GOLDEN/torch/v1.ckpt" v1

# SD 2 and SDXL: OpenCLIP's q, k, v in one, its projection transposed.
for m in v2 xl; do
    expect 0 "text_encoder/model.safetensors" convert "$GOLDEN/$m.safetensors" $m
    expect 0 "$m.safetensors" convert $m $m.safetensors
    [ "$(parts $m.safetensors)" = "$(parts $m)" ] && [ "$(parts $m)" = "$(parts "$GOLDEN/$m.safetensors")" ] ||
        fail "$m"
done

# Other numbers, other tensors, and the plan alone.
expect 0 '"F8_E4M3"' convert base.safetensors fp8.safetensors --dtype fp8 --json
expect 0 "wide.safetensors" convert fp8.safetensors wide.safetensors --dtype f32      # the same values in 4 bytes
for b in fp8 wide; do
    "$KIWAME" generate "a red circle" --base $b.safetensors --steps 2 --seed 1 --quiet --out $b.png --save-latents $b.latents >/dev/null \
        || fail "$b does not draw"
done
cmp fp8.latents wide.latents || fail "weights of 8 bits draw something else than their values"
expect 0 "kinds.safetensors" convert "$GOLDEN/torch/kinds.pt" kinds.safetensors
expect 0 "F16 " convert base.safetensors planned --dtype f16 --plan
[ ! -e planned ] || fail "the plan was carried out"

# Refused: programs, the source itself, what is there, folders that are no models; nothing is left of a failed one.
expect 3 '"posix.system"' convert "$GOLDEN/torch/evil.ckpt" evil.safetensors
expect 2 "is the source itself" convert base.safetensors base.safetensors --overwrite
expect 2 "exists already" convert base.safetensors back
expect 0 "unet/" convert base.safetensors back --overwrite
mkdir mine && echo diary >mine/notes.txt
expect 2 "is no model folder" convert base.safetensors mine --overwrite
[ -f mine/notes.txt ] || fail "a folder that is no model was replaced"
mkdir dir.safetensors
expect 2 "is a folder, and a file is to be written" convert back dir.safetensors --overwrite
expect 3 "holds no averaged weights" convert base.safetensors x.safetensors --averages
expect 3 "cannot open" convert nowhere x.safetensors
[ -z "$(find . -name '.tmp-*')" ] && [ ! -e evil.safetensors ] && [ ! -e x.safetensors ] || fail "leftovers"
[ ! -e kiwame-was-here ] || fail "the checkpoint's program was run"

# Killed in the middle: what it left is gone with the next one; a folder's unfinished one as well.
for n in 1 2 3 4 5 6; do
    for to in killed.safetensors killed; do
        "$KIWAME" convert "$GOLDEN/v1.safetensors" $to --overwrite >/dev/null 2>&1 &
        sleep "0.0$n"
        kill -9 $! 2>/dev/null || true
        wait $! 2>/dev/null || true
    done
done
expect 0 "last.safetensors" convert base last.safetensors
[ -z "$(find . -name '.tmp-*')" ] || fail "an unfinished file of a killed conversion stayed"
echo "containers: there and back"
