#!/bin/sh
# t0160-threads.sh - 1 to 64 threads, more than this machine has cores: PyTorch's values within the promise for each number,
# and the same bits whenever a number comes again.
. tests/e2e/lib.sh
TESTS=$(dirname "$KIWAME")/tests
MODEL=tests/golden/models/unet-tiny

bits() {
    "$KIWAME" debug run unet --base $MODEL --in $MODEL/in.safetensors --out "$WORK/out" --grad --threads "$1" >/dev/null 2>&1 || fail "$1 threads"
    sha256sum <"$WORK/out"
}

for n in 3 64; do
    [ "$(bits $n)" = "$(bits $n)" ] || fail "$n threads: not the same bits twice"
done
KIWAME_THREADS=64 "$TESTS/e2e_test_parity" "$KIWAME" >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "parity with 64 threads"; }
expect 2 "threads" "$KIWAME" doctor --seconds 0 --threads 1025
