#!/bin/sh
# t0500-base.sh - the base that comes along is found without being named and draws what it is asked for, in English and in Japanese.
. tests/e2e/lib.sh
for language in en ja; do
    awk 'NR % 10 == 1' data/emoji/prompts.$language.txt >"$WORK/prompts"
    "$KIWAME" generate --prompts "$WORK/prompts" --steps 10 --batch 10 --out "$WORK/$language" --no-sheet --quiet >/dev/null
    "$KIWAME" debug nearest "$WORK/$language" --among data/emoji --prompts "$WORK/prompts" --json >"$WORK/said"
    right=$(sed 's/.*"right":\([0-9]*\).*/\1/' "$WORK/said")
    [ "$right" -ge 3 ] || { cat "$WORK/said"; fail "$language: $right of 10 are right (chance: 0.06 %)"; }
    echo "$language: $right of 10 right"
done
