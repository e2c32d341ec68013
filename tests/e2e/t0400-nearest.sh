#!/bin/sh
# t0400-nearest.sh - the score's measure on pictures whose answer is known (counted by an independent program too).
. tests/e2e/lib.sh
nearest() { "$KIWAME" debug nearest "$@" --among data/emoji; }

nearest data/mascot/train --also data/mascot/heldout >"$WORK/said"
grep -q "nearest is one of data/mascot/heldout: 15 of 16" "$WORK/said" || { cat "$WORK/said"; fail "not 15 of 16"; }
grep -q "kiwamaru-11.png *milky way" "$WORK/said" || fail "kiwamaru on black is nearest to the milky way"

nearest data/mascot/heldout --also data/mascot/heldout --json | grep -q '"also":6' || fail "a picture is not nearest to itself"

printf 'one --d 3\ntwo --d 4\n' >"$WORK/prompts"
code=0
nearest data/mascot/train --prompts "$WORK/prompts" >/dev/null 2>"$WORK/said" || code=$?
[ "$code" != 0 ] && grep -q "2 prompts, but 16 pictures" "$WORK/said" || { cat "$WORK/said"; fail "2 prompts for 16 pictures"; }
mkdir "$WORK/none"
nearest "$WORK/none" >/dev/null 2>&1 && fail "an empty folder"
echo "the measure: as counted elsewhere"
