# lib.sh - what the end-to-end scripts share. Usage: . tests/e2e/lib.sh (from the project's root; $1 is the program)
set -eu
KIWAME=$1
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
# Caches of its own: what another build has encoded may differ from this one's in the last bit.
export KIWAME_LANG=en OMP_WAIT_POLICY=passive XDG_CACHE_HOME="$WORK/.cache"

fail() { echo "FAILED: $*" >&2; exit 1; }

# The small base that comes with the program, as $WORK/base
make_base() {
    cp -r data/shapes "$WORK/base"
}

# expect CODE TEXT COMMAND...: the exit code, and a text in what it says (kept in $WORK/said)
expect() {
    code=$1 text=$2
    shift 2
    got=0
    "$@" >"$WORK/said" 2>&1 || got=$?
    [ "$got" = "$code" ] || { cat "$WORK/said"; fail "exit $got instead of $code: $*"; }
    says "$text"
}
says() { grep -qF -- "$1" "$WORK/said" || { cat "$WORK/said"; fail "does not say '$1'"; }; }

# What must be equal in two runs: state, result, losses, pictures; not times and sessions.
fingerprint() {
    (cd "$1" && for s in $(ls -d checkpoints/step-* | tail -1); do sha256sum "$s/state.safetensors"; done
     for f in *.safetensors; do echo "$f $(grep -ao '"sshs_model_hash":"[0-9a-f]*"' "$f")"; done
     sed -E 's/"(time|seconds|memory|session)":[^,}]*,?//g; s/_[0-9]{14}_/_/g; s/,}/}/' events.jsonl | grep -v '"type":"\(note\|end\)"'
     for f in samples/*_*_*.png; do echo "$(echo "$f" | sed -E 's/_[0-9]{14}_/_/') $(sha256sum <"$f")"; done
     sha256sum samples/sheet.png)
}

# kills N: N times kill -9 at a random moment and resume; each finished run must have the fingerprint of $WORK/whole.txt. The script
# defines `train DIR`, which replaces its shell, and what `fingerprint DIR` prints.
kills() {
    left=$1
    round=0
    while [ "$left" -gt 0 ]; do
        round=$((round + 1))
        out=$WORK/run$round
        train "$out" >/dev/null 2>&1 &
        pid=$!
        while [ "$left" -gt 0 ]; do
            sleep "0.$(awk -v s="$left$round" 'BEGIN { srand(s); printf "%03d", 150 + rand() * 700 }')"
            kill -9 $pid 2>/dev/null || break
            wait $pid 2>/dev/null || true
            left=$((left - 1))
            if [ -f "$out/recipe.toml" ]; then
                "$KIWAME" resume "$out" --quiet >/dev/null 2>&1 &
            else
                train "$out" >/dev/null 2>&1 &
            fi
            pid=$!
        done
        wait $pid || { "$KIWAME" resume "$out" || true; fail "round $round did not finish"; }
        fingerprint "$out" >"$WORK/run.txt"
        cmp "$WORK/whole.txt" "$WORK/run.txt" || { diff "$WORK/whole.txt" "$WORK/run.txt" | cut -c1-300 | head -20; fail "round $round differs from the uninterrupted run"; }
        rm -rf "$out"
    done
    echo "$1 kills in $round runs: the same bits"
}
