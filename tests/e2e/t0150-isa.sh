#!/bin/sh
# t0150-isa.sh - KIWAME_ISA: PyTorch's values and the sweep over all ops under each instruction set, with oneDNN held to
# it; one that the machine lacks is refused. The programs of the other tests are beside kiwame, in tests/.
. tests/e2e/lib.sh
unset KIWAME_ISA
TESTS=$(dirname "$KIWAME")/tests

expect 2 "KIWAME_ISA" env KIWAME_ISA=sse9 "$KIWAME" doctor --seconds 0
expect 2 "scalar, avx2, avx512" env KIWAME_ISA=sse9 "$KIWAME" doctor --seconds 0
best=$("$KIWAME" bench peak --seconds 0.1 --json | sed 's/.*"isa":"\([^"]*\)".*/\1/')
above=
for isa in avx512_bf16 avx512 avx2 scalar; do
    [ "$isa" = "$best" ] && above=no
    if [ -z "$above" ]; then
        expect 2 "this machine has no $isa" env KIWAME_ISA=$isa "$KIWAME" doctor --seconds 0
        says "the best it has is $best"
        continue
    fi
    for dtype in f32 bf16; do             # the same instruction set in oneDNN, or its code would be another one
        KIWAME_ISA=$isa "$KIWAME" bench op conv2d linear --model shapes --most 1 --seconds 0 --dtype $dtype --json >"$WORK/said" 2>/dev/null \
            || fail "bench op, $isa $dtype"
        says "\"isa\":\"$isa\""
    done
    KIWAME_ISA=$isa "$KIWAME" doctor --seconds 0 --json >"$WORK/said" || true
    says "\"$isa\""
    [ "$isa" = "$best" ] && continue      # that is what all other tests run with
    KIWAME_ISA=$isa "$TESTS/e2e_test_parity" "$KIWAME" >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "parity, $isa"; }
    KIWAME_ISA=$isa "$TESTS/run_test_sweep" >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "sweep, $isa"; }
done

# a run goes on with its own instruction set alone
make_base
run="--base $WORK/base --rank 2 --steps 2 --sample-prompt ball --sample-sampling-steps 1 --cache $WORK/cache --threads 1"
KIWAME_ISA=scalar "$KIWAME" train lora data/mascot/train $run --out "$WORK/r" --quiet >/dev/null 2>"$WORK/said" || { cat "$WORK/said"; fail "a scalar run"; }
grep -q "^# threads 1.*scalar" "$WORK/r/recipe.toml" || fail "the recipe does not say scalar"
[ "$best" = scalar ] || expect 2 "was computed with scalar" env KIWAME_ISA=$best "$KIWAME" resume "$WORK/r"
expect 0 "" "$KIWAME" resume "$WORK/r"
