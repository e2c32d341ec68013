#!/bin/sh
# t0110-resume-small.sh - full training in little memory (moments of one byte, bf16 weights rounded by chance, updates
# within the backward pass): kill -9 at random moments, resume, and end with the same bits as the uninterrupted run.
#   t0110-resume-small.sh PROGRAM [CYCLES]   6 kills unless told
. tests/e2e/lib.sh
CYCLES=${2:-6}
make_base

# A model folder instead of one file, and no sheet.
fingerprint() {
    (cd "$1" && for s in $(ls -d checkpoints/step-* | tail -1); do sha256sum "$s/state.safetensors"; done
     sed -E 's/"(time|seconds|memory|session)":[^,}]*,?//g; s/_[0-9]{14}_/_/g; s/,}/}/' events.jsonl | grep -v '"type":"\(note\|end\)"'
     find kiwamaru -name '*.safetensors' | sort | xargs sha256sum)
}

# Replaces the shell it runs in, so that its process can be killed: call it as (train DIR) or train DIR &
train() {
    exec "$KIWAME" train full data/mascot/train --base "$WORK/base" --trigger kiwamaru --out "$1" --steps 12 --batch-size 2 \
        --optimizer adamw8bit --trained-dtype bf16 --update fused --max-grad-norm 1 --learning-rate 1e-3 --ema 0.9 \
        --lr-scheduler cosine --checkpoint-every 2 --validate-every 6 --sample-every-steps 6 --sample-prompt kiwamaru \
        --sample-sampling-steps 2 --cache "$WORK/cache" --quiet
}

(train "$WORK/whole") >/dev/null || fail "the uninterrupted run"
fingerprint "$WORK/whole" >"$WORK/whole.txt"
grep -q . "$WORK/whole.txt" || fail "no fingerprint"

kills "$CYCLES"
