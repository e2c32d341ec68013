#!/bin/sh
# t0100-resume.sh - kill -9 at random moments, resume, and end with the same bits as the uninterrupted run.
#   t0100-resume.sh PROGRAM [CYCLES]   20 kills unless told
. tests/e2e/lib.sh
CYCLES=${2:-20}
make_base

# Replaces the shell it runs in, so that its process can be killed: call it as (train DIR) or train DIR &
train() {
    exec "$KIWAME" train lora data/mascot/train --base "$WORK/base" --trigger kiwamaru --out "$1" --steps 24 --batch-size 2 --rank 2 --alpha 2 \
        --targets attention,ff,conv,text --learning-rate 1e-3 --gradient-accumulation-steps 2 --ema 0.9 --max-grad-norm 1 --lr-scheduler cosine \
        --caption-dropout 0.1 --shuffle-caption --flip --checkpoint-every 2 --validate-every 6 --sample-every-steps 12 --save-every-steps 12 \
        --sample-prompt kiwamaru --sample-sampling-steps 2 --cache "$WORK/cache" --quiet
}

(train "$WORK/whole") >/dev/null || fail "the uninterrupted run"
fingerprint "$WORK/whole" >"$WORK/whole.txt"

kills "$CYCLES"

# A stop while samples are drawn: it need not wait for them, and what it left out is drawn when the run goes on.
slow() {
    exec "$KIWAME" train lora data/mascot/train --base "$WORK/base" --trigger kiwamaru --out "$1" --steps 4 --rank 2 --alpha 2 \
        --sample-every-steps 2 --sample-sampling-steps 40 --sample-prompt kiwamaru --sample-prompt "kiwamaru on a hill" \
        --cache "$WORK/cache" --quiet
}
stop_when() {                             # stop_when DIR PATTERN: SIGTERM once the log of DIR has PATTERN
    for i in $(seq 1200); do
        grep -qs "$2" "$1/events.jsonl" && break
        sleep 0.05
    done
    kill -TERM $pid
    code=0
    wait $pid || code=$?
    [ "$code" -eq 143 ] || fail "stopped while drawing: exit code $code instead of 143"
}
(slow "$WORK/slow") >/dev/null || fail "the uninterrupted run with slow samples"
fingerprint "$WORK/slow" >"$WORK/slow.txt"
slow "$WORK/stopped" >/dev/null 2>&1 &
pid=$!
stop_when "$WORK/stopped" '"start"'
[ -z "$(ls "$WORK/stopped/samples" 2>/dev/null)" ] || fail "a stop at the first sample waited for it"
"$KIWAME" resume "$WORK/stopped" --quiet >/dev/null 2>&1 &
pid=$!
stop_when "$WORK/stopped" '"step":2'
"$KIWAME" resume "$WORK/stopped" --quiet >/dev/null || fail "did not go on after a stop while drawing"
fingerprint "$WORK/stopped" >"$WORK/run.txt"
cmp "$WORK/slow.txt" "$WORK/run.txt" || { diff "$WORK/slow.txt" "$WORK/run.txt" | cut -c1-300 | head; fail "samples differ after a stop while drawing"; }
echo "stopped twice while drawing: the same pictures"
