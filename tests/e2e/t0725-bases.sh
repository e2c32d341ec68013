#!/bin/sh
# t0725-bases.sh - a grid over bases: each picture is what its base draws alone, its text names that base; the sheet's text
# says what its axes are, and --from takes it for its first picture; a base that is not there is known before anything
# is drawn.
. tests/e2e/lib.sh
make_base
ONE=$WORK/base TWO=$PWD/tests/golden/pipeline/base
"$KIWAME" convert "$TWO" "$WORK/two.safetensors" --quiet >/dev/null || fail "convert"
alone() { "$KIWAME" generate "a red ball" --base "$1" --seed "$2" --steps 2 --sampler euler --cfg 3 --quiet --out "$3" >/dev/null || fail "$*"; }
grid() { expect 0 "" "$KIWAME" generate "a red ball" --seed 1 --steps 2 --sampler euler --cfg 3 --out "$WORK/$@"; }

# Bases along the columns; two are models of other shapes and sizes, in a folder and in one file.
grid g.png --grid "base=$ONE,$WORK/two.safetensors" --grid seed=1,2
grep -x "base: base" "$WORK/said" >/dev/null && grep -x "base: two.safetensors" "$WORK/said" >/dev/null ||
    { cat "$WORK/said"; fail "the bases are not named"; }
for i in 1 2 3 4; do
    [ $i -le 2 ] && alone "$ONE" $i "$WORK/x$i.png" || alone "$WORK/two.safetensors" $((i - 2)) "$WORK/x$i.png"
    cmp "$WORK/x$i.png" "$WORK/g-$i.png" || fail "picture $i is another one alone"
done
"$KIWAME" inspect "$WORK/g-3.png" --json >"$WORK/said"
says '"Model":"two"'
"$KIWAME" inspect "$WORK/g-sheet.png" --json >"$WORK/said"
for text in '"Script":"X/Y/Z plot"' '"X Type":"Checkpoint name"' '"X Values":"base, two"' '"Y Type":"Seed"' '"Y Values":"1, 2"' '"Model":"base"' \
    '"Seed":"1"'; do
    says "$text"
done
expect 0 "" "$KIWAME" generate --from "$WORK/g-sheet.png" --base "$ONE" --out "$WORK/again.png"
grep -q "not used" "$WORK/said" && { cat "$WORK/said"; fail "a sheet's text is not understood"; }
cmp "$WORK/x1.png" "$WORK/again.png" || fail "--from a sheet is not its first picture"

# Along the rows, beside another axis and with --base; by name in JSON.
grid r.png --base "$WORK/nothing" --grid cfg=3,5 --grid "base=$WORK/two.safetensors,$ONE" --json
says "\"base\":\"$ONE\""
cmp "$WORK/x3.png" "$WORK/r-1.png" || fail "along the rows the first base draws something else"
cmp "$WORK/x1.png" "$WORK/r-3.png" || fail "along the rows the second base draws something else"

# A picture's own model need not be at hand, the bases are given.
expect 0 "" "$KIWAME" generate --from "$WORK/g-3.png" --grid "base=$ONE,$WORK/two.safetensors" --out "$WORK/f.png"
cmp "$WORK/x3.png" "$WORK/f-2.png" || fail "--from over bases"

expect 3 "$WORK/no.safetensors" "$KIWAME" generate "a ball" --grid "base=$ONE,$WORK/no.safetensors" --out "$WORK/n.png"
[ ! -e "$WORK/n-1.png" ] || fail "it drew before it knew all bases"
expect 2 "does not go with --noise" "$KIWAME" generate "a ball" --grid "base=$ONE,$TWO" --save-latents "$WORK/l.safetensors"
echo ok
