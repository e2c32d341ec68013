#!/bin/sh
# t0300-cancel.sh - Ctrl-C finishes the step, saves, says how to go on, and exits with 130; resuming gives the same bits.
. tests/e2e/lib.sh
make_base
train() {
    exec "$KIWAME" train lora data/mascot/train --base "$WORK/base" --trigger kiwamaru --out "$1" --steps 40 --batch-size 2 --rank 2 --alpha 2 \
        --sample-prompt kiwamaru --sample-sampling-steps 2 --checkpoint-every 1000 --cache "$WORK/cache" --quiet --threads 2
}
(train "$WORK/whole") >/dev/null || fail "the uninterrupted run"
fingerprint "$WORK/whole" >"$WORK/whole.txt"
train "$WORK/run" >/dev/null 2>"$WORK/said" &
pid=$!
while ! grep -q '"type":"step"' "$WORK/run/events.jsonl" 2>/dev/null; do sleep 0.05; done
kill -INT $pid
code=0
wait $pid || code=$?
[ "$code" = 130 ] || { cat "$WORK/said"; fail "exit $code instead of 130"; }
grep -q "kiwame resume" "$WORK/said" || { cat "$WORK/said"; fail "it does not say how to go on"; }
ls "$WORK"/run/checkpoints/step-* >/dev/null || fail "nothing was saved"
code=0
"$KIWAME" resume "$WORK/run" --threads 1 >/dev/null 2>"$WORK/said" || code=$?
[ "$code" = 2 ] || fail "another number of threads was accepted"
"$KIWAME" resume "$WORK/run" --quiet >/dev/null || fail "resuming"
fingerprint "$WORK/run" >"$WORK/run.txt"
cmp "$WORK/whole.txt" "$WORK/run.txt" || { diff "$WORK/whole.txt" "$WORK/run.txt" | cut -c1-200 | head; fail "other bits"; }
echo "stopped, resumed: the same bits"
