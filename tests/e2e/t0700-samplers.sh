#!/bin/sh
# t0700-samplers.sh - every sampler that is listed draws; what is kept in a picture; refusals; noise of batches.
. tests/e2e/lib.sh
base=tests/golden/pipeline/base
draw() { "$KIWAME" generate "a red cat" --base "$base" --steps 4 --cfg 2 --seed 7 --no-sheet -q "$@"; }
same() { cmp -s "$1" "$2" || fail "$3"; }

"$KIWAME" generate --sampler help >"$WORK/samplers"
"$KIWAME" generate --schedule help >"$WORK/schedules"
"$KIWAME" generate --sampler '?' --json | grep -q '"id":"dpmpp_3m_sde"' || fail "the list as JSON"
n=0
awk -F'   *' '{ print $2 }' "$WORK/samplers" >"$WORK/ids"
while read -r id; do
    draw --sampler "$id" --out "$WORK/$id.png" >/dev/null || fail "$id"
    n=$((n + 1))
done <"$WORK/ids"
[ "$n" -ge 18 ] || fail "$n samplers listed"
for schedule in $(cut -d' ' -f1 "$WORK/schedules"); do
    draw --sampler "DPM++ 2M" --schedule "$schedule" --out "$WORK/s-$schedule.png" >/dev/null || fail "$schedule"
done
echo "$n samplers, $(wc -l <"$WORK/schedules") schedules draw"

# the settings, under A1111's keys
draw --sampler "DPM++ 2M SDE Karras" --s-noise 0.9 --out "$WORK/a.png" >/dev/null
has() { tr -d '\000' <"$1" | grep -aq "$2" || fail "$1 lacks \"$2\""; }
has "$WORK/a.png" "Sampler: DPM++ 2M SDE, Schedule type: Karras, "
has "$WORK/a.png" "Sigma noise: 0.9"
draw --sampler "DPM++ 2M Align Your Steps" --out "$WORK/ays.png" >/dev/null
has "$WORK/ays.png" "Sampler: DPM++ 2M, Schedule type: Align Your Steps, "
has "$WORK/uni_pc_bh2.png" "Sampler: UniPC, .*UniPC variant: bh2"
draw --variation-strength 0.3 --variation-seed 9 --seed-from 16x24 --noise-delta 31337 --out "$WORK/b.png" >/dev/null
has "$WORK/b.png" "Variation seed: 9, Variation seed strength: 0.3, Seed resize from: 16x24, ENSD: 31337"

# a batch draws what its pictures draw alone; other seeds, other pictures
for sampler in dpmpp_sde euler_ancestral; do
    draw --sampler $sampler --count 2 --out "$WORK/one.png" --save-latents "$WORK/one" >/dev/null
    draw --sampler $sampler --count 2 --batch 2 --out "$WORK/two.png" --save-latents "$WORK/two" >/dev/null
    same "$WORK/one-1.png" "$WORK/two-1.png" "$sampler: batches draw other noise"
    same "$WORK/one-2.png" "$WORK/two-2.png" "$sampler: batches draw other noise"
    cmp -s "$WORK/one-1.png" "$WORK/one-2.png" && fail "$sampler: seeds make no difference"
done
draw --variation-strength 1 --variation-seed 8 --sampler euler --save-latents "$WORK/v" --out "$WORK/v.png" >/dev/null
draw --seed 8 --sampler euler --save-latents "$WORK/w" --out "$WORK/w.png" >/dev/null
same "$WORK/v" "$WORK/w" "a variation of strength 1 is the other seed"
echo "noise: batches, variations"

refused() {
    text=$1
    shift
    expect 2 "$text" draw "$@" --out "$WORK/no.png"
}
refused "Euler a, Euler, Heun, LMS, " --sampler "DPM++ 9M"
refused "sgm_uniform" --schedule linear
refused "not a size" --seed-from 512
refused "the first must be the larger" --sigma-min 20
refused "1 to 50" --sampler tcd --steps 51
refused "spacing \"a1111\" only" --sampler heun --schedule simple --spacing diffusers
refused "0 to 1" --cfg-rescale 2
echo "refusals: named"
