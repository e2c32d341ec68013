#!/bin/sh
# t0250-user.sh - what a user meets: a bad picture among a hundred, names and captions of all kinds through the whole main
# job, two runs in one folder, runs that are finished, changed or without checkpoints, folders that cannot be read.
. tests/e2e/lib.sh
make_base

lora() {
    "$KIWAME" train lora --base "$WORK/base" --rank 2 --alpha 2 --sample-prompt ball --sample-sampling-steps 1 --cache "$WORK/cache" --threads 1 "$@"
}

# one bad picture among a hundred: its name and reason stand before the first step, in both languages
mkdir "$WORK/hundred"
for i in 0 1 2 3 4 5 6 7 8 9; do for k in 0 1 2 3 4 5 6 7 8 9; do
    cp "data/mascot/train/kiwamaru-0$((i % 9 + 1)).png" "$WORK/hundred/p$i$k.png"
done; done
echo "this is text" >"$WORK/hundred/p42.png"
lora "$WORK/hundred" --steps 1 --out "$WORK/r0" >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "one bad picture of 100"; }
says "not used: p42.png: not a picture of a known format"
grep -n "not used: p42" "$WORK/said" | head -1 >"$WORK/a"
grep -n "training 100" "$WORK/said" | head -1 >"$WORK/b"
[ "$(cut -d: -f1 "$WORK/a")" -lt "$(cut -d: -f1 "$WORK/b")" ] || fail "the bad picture is told after the steps"
lora "$WORK/hundred" --steps 1 --out "$WORK/r0ja" --lang ja >"$WORK/said" 2>&1 || fail "in Japanese"
grep -q "not a picture" "$WORK/said" && fail "the reason stays English"

# every layout at once, NFC names beside NFD names, BOM, CP932, UTF-16: data -> LoRA -> the printed line -> a picture
d="$WORK/写真"
mkdir -p "$d/2_ガ" "$d/深い/所"
n=1
for name in ガ1 ガ2 ガ3; do
    nfd=$(printf '%s' "$name" | sed 's/ガ/カ'"$(printf '\343\202\231')"'/')
    cp "data/mascot/train/kiwamaru-0$n.png" "$d/2_ガ/$nfd.png"
    printf 'kiwa 丸い %s' $n >"$WORK/text"
    case $n in
    1) { printf '\357\273\277'; cat "$WORK/text"; } >"$d/2_ガ/$name.txt" ;;
    2) iconv -t CP932 "$WORK/text" >"$d/2_ガ/$name.txt" ;;
    3) iconv -t UTF-16 "$WORK/text" >"$d/2_ガ/$name.txt" ;;
    esac
    n=$((n + 1))
done
cp data/mascot/train/kiwamaru-04.png "$d/深い/所/四.png"
cp data/mascot/train/kiwamaru-05.png "$d/深い/所/五.png"
printf '{"file_name": "四.png", "text": "four"}\n{"file_name": "五.png", "text": "five"}\n' >"$d/深い/所/metadata.jsonl"
cp data/mascot/train/kiwamaru-06.png "$d/blue_ball-06.png"
"$KIWAME" data "$d" --base "$WORK/base" --trigger きわまる --json >"$WORK/said" || fail "data"
for text in '丸い 1' '丸い 2' '丸い 3' '"きわまる, four"' '"きわまる, blue ball"' '"repeats":2'; do says "$text"; done
(cd "$WORK" && "$KIWAME" train lora 写真 --base base --trigger きわまる --steps 6 --rank 2 --sample-sampling-steps 1 --cache cache \
    --threads 1 >"$WORK/out" 2>"$WORK/said") || { cat "$WORK/said"; fail "the main job in Japanese"; }
result=$(cat "$WORK/out")
case $result in runs/*.safetensors) ;; *) fail "the result is not printed: $result" ;; esac
echo "$result" | LC_ALL=C grep -q '^[A-Za-z0-9_./-]*$' || fail "the default name is not plain: $result"
line=$(sed -n 's/^prompt: *//p' "$WORK/said")
[ -n "$line" ] || { cat "$WORK/said"; fail "no line to copy"; }
(cd "$WORK" && "$KIWAME" generate "$line" --base base --lora-dir "$(dirname "$result")" --steps 2 --seed 1 --out line.png --json >"$WORK/said" 2>&1) \
    || { cat "$WORK/said"; fail "generate does not take the line: $line"; }
"$KIWAME" inspect "$WORK/line.png" | grep -qF "$line" || fail "the picture does not tell the line"
"$KIWAME" inspect "$WORK/$result" --json >"$WORK/said"
says '"modelspec.title":"きわまる"'
says 'blue ball'
[ -s "$WORK/$(dirname "$result")/samples/sheet.png" ] || fail "no sheet"

# a result in JSON; epochs under kohya's names; what contradicts itself is refused at once
lora data/mascot/train --epochs 2 --batch-size 8 --save-every-epochs 1 --name kiwa --out "$WORK/r1" --json >"$WORK/said" 2>/dev/null || fail "json"
says '"result":"'"$WORK"'/r1/kiwa.safetensors"'
says '"prompt":"<lora:kiwa:0.8>"'
[ -s "$WORK/r1/kiwa-000001.safetensors" ] || fail "no result of the first epoch"
expect 2 "--steps and --epochs" lora data/mascot/train --steps 2 --epochs 2 --out "$WORK/r2"
expect 2 "clip skip 9" lora data/mascot/train --steps 2 --clip-skip 9 --out "$WORK/r2"
expect 2 "autoencoder's factor" lora data/mascot/train --steps 2 --bucket-step 6 --out "$WORK/r2"
expect 2 "one of: character" lora data/mascot/train --steps 2 --preset figure --out "$WORK/r2"
expect 2 "<lora:" lora data/mascot/train --steps 2 --name a:b --out "$WORK/r2"
expect 3 "is no LoRA" lora data/mascot/train --steps 2 --init "$WORK/base/vae/diffusion_pytorch_model.safetensors" --out "$WORK/r2"
expect 3 "fit no layer" lora data/mascot/train --steps 2 --targets text --init "$WORK/r1/kiwa.safetensors" --out "$WORK/r2"
echo x >"$WORK/file"
expect 5 "$WORK/file" lora data/mascot/train --steps 2 --out "$WORK/file/run"
[ ! -e "$WORK/r2" ] || fail "a refused run left a folder"

# a LoRA that starts from another keeps its rank, and its file says so
lora data/mascot/train --steps 1 --out "$WORK/r3" --init "$WORK/r1/kiwa.safetensors" --rank 7 >"$WORK/said" 2>&1 || fail "--init"
says "has rank 2"
"$KIWAME" inspect "$WORK/r3/lora.safetensors" --json | grep -q '"ss_network_dim":"2"' || fail "the rank in the file is wrong"

# resume: finished, without checkpoints, other settings, other pictures
cp -r data/mascot/train "$WORK/photos"
lora "$WORK/photos" --steps 4 --checkpoint-every 2 --out "$WORK/r4" --quiet >/dev/null 2>&1 || fail "r4"
before=$(find "$WORK/r4" -type f ! -name .lock | sort | xargs sha256sum | sha256sum)
expect 0 "complete already" "$KIWAME" resume "$WORK/r4"
[ "$before" = "$(find "$WORK/r4" -type f ! -name .lock | sort | xargs sha256sum | sha256sum)" ] || fail "a finished run was changed"
hash=$(grep -ao '"sshs_model_hash":"[0-9a-f]*"' "$WORK/r4/lora.safetensors")
rm "$WORK/r4/lora.safetensors"
expect 0 "$WORK/r4/lora.safetensors" "$KIWAME" resume "$WORK/r4"
[ "$hash" = "$(grep -ao '"sshs_model_hash":"[0-9a-f]*"' "$WORK/r4/lora.safetensors")" ] || fail "a lost result is not made again"
sed -i 's/^steps = 4/steps = 6/' "$WORK/r4/recipe.toml"
cp -r "$WORK/r4" "$WORK/r5"
cp -r "$WORK/r4" "$WORK/r6"
cp -r "$WORK/r4" "$WORK/r7"
expect 2 "steps: 4 → 6" "$KIWAME" resume "$WORK/r4"
sed -i 's/^learning-rate = .*/learning-rate = 0.01/' "$WORK/r4/recipe.toml"
expect 2 "learning-rate: 0.0001 → 0.01" "$KIWAME" resume "$WORK/r4"
expect 0 "changed since" "$KIWAME" resume "$WORK/r4" --accept-changes
sed -i 's/^steps = 6/steps = 4/' "$WORK/r5/recipe.toml" "$WORK/r6/recipe.toml"
sed -i '/"type":"end"/d' "$WORK/r5/events.jsonl" "$WORK/r6/events.jsonl"
echo "another caption" >"$WORK/photos/kiwamaru-02.txt"
expect 2 "the pictures, their captions" "$KIWAME" resume "$WORK/r5"
cp data/mascot/train/kiwamaru-02.txt "$WORK/photos/kiwamaru-02.txt"
rm -r "$WORK/r6/checkpoints"
expect 0 "begins anew" "$KIWAME" resume "$WORK/r6"
sed -i 's/^rank = 2/rank = = 2/' "$WORK/r7/recipe.toml"
expect 2 "recipe.toml:" "$KIWAME" resume "$WORK/r7"

# two at once: the second one is told who is there, and changes nothing; SIGTERM saves and exits with 143
lora "$WORK/photos" --steps 100000 --out "$WORK/r8" --seed 1 --quiet >/dev/null 2>"$WORK/said8" &
while ! grep -q '"type":"step"' "$WORK/r8/events.jsonl" 2>/dev/null; do sleep 0.05; done
pid=$(cut -d' ' -f1 "$WORK/r8/.lock")
expect 7 "in use by process" lora "$WORK/photos" --steps 3 --out "$WORK/r8" --seed 2
expect 7 "in use by process" "$KIWAME" resume "$WORK/r8"
grep -q '^seed = 1$' "$WORK/r8/recipe.toml" || fail "the second run wrote into the first one's folder"
kill -TERM "$pid"
code=0
wait $! || code=$?
[ "$code" = 143 ] || { cat "$WORK/said8"; fail "exit $code instead of 143"; }
[ -z "$(find "$WORK/r8" -name '.tmp-*')" ] || fail "half a file was left"

# killed before its first checkpoint, a run still knows its threads
lora "$WORK/photos" --steps 100000 --checkpoint-every 100000 --out "$WORK/r12" --quiet >/dev/null 2>&1 &
while ! grep -q '"type":"step"' "$WORK/r12/events.jsonl" 2>/dev/null; do sleep 0.05; done
kill -KILL "$(cut -d' ' -f1 "$WORK/r12/.lock")"
wait $! || true
expect 2 "1 threads" "$KIWAME" resume "$WORK/r12" --threads 2

# what dead processes left is removed
mkdir "$WORK/r4/checkpoints/.tmp-999999-0123456789abcdef"
"$KIWAME" resume "$WORK/r4" >/dev/null 2>&1 || fail "r4 again"
[ ! -e "$WORK/r4/checkpoints/.tmp-999999-0123456789abcdef" ] || fail "a dead process's folder stays"

# as a user who may not read: exit codes and reasons. Root may read everything, so it becomes nobody.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$KIWAME" -a -r "$PWD/data/mascot/train"; then
    chmod 755 "$WORK"
    mkdir -m 777 "$WORK/home"
    mkdir -m 755 "$WORK/closed" "$WORK/closed/in" "$WORK/fixed"
    cp data/mascot/train/*.png "$WORK/closed"
    cp data/mascot/train/kiwamaru-01.png "$WORK/closed/in"
    nobody() { HOME="$WORK/home" setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
    chmod 700 "$WORK/closed/in"
    expect 3 "Permission denied" nobody "$KIWAME" data "$WORK/closed"
    expect 3 "Permission denied" nobody "$KIWAME" data "$WORK/closed/in/deeper"
    chmod 755 "$WORK/closed/in"
    chmod 600 "$WORK/closed/kiwamaru-03.png"
    expect 0 "kiwamaru-03.png: cannot open: Permission denied" nobody "$KIWAME" data "$WORK/closed"
    expect 5 "$WORK/fixed/run" nobody "$KIWAME" train lora data/mascot/train --steps 1 --out "$WORK/fixed/run"
    grep -q "checking pictures" "$WORK/said" && fail "a folder that cannot be written is found after reading all pictures"
    expect 5 "Permission denied" nobody "$KIWAME" generate x --steps 1 --out "$WORK/fixed/x.png"
    expect 3 "Permission denied" nobody "$KIWAME" inspect "$WORK/closed/kiwamaru-03.png"
fi

# what another number of threads has left in the cache changes no bit
state() { sha256sum <"$(ls -d "$1"/checkpoints/step-* | tail -1)/state.safetensors"; }
lora data/mascot/train --steps 3 --out "$WORK/r9" --cache "$WORK/c1" --quiet >/dev/null 2>&1 || fail "r9"
lora data/mascot/train --steps 3 --out "$WORK/r10" --cache "$WORK/c1" --threads 2 --quiet >/dev/null 2>&1 || fail "r10"
lora data/mascot/train --steps 3 --out "$WORK/r11" --cache "$WORK/c2" --threads 2 --quiet >/dev/null 2>&1 || fail "r11"
[ "$(state "$WORK/r10")" = "$(state "$WORK/r11")" ] || fail "a cache changes the bits"

# no samples where none are wanted: not at the beginning, not at the end, and no sheet
lora data/mascot/train --steps 2 --out "$WORK/r20" --sample-every-steps 0 --quiet >"$WORK/said" 2>&1 || { cat "$WORK/said"; fail "r20"; }
[ ! -e "$WORK/r20/samples" ] && [ -s "$WORK/r20/report.html" ] || fail "samples were drawn, or there is no report"
# ... and the report is there, with what was seen, while the run goes on
lora data/mascot/train --steps 100000 --out "$WORK/r21" --sample-every-steps 0 --validate-every 2 --quiet >/dev/null 2>&1 &
pid=$!
for i in $(seq 300); do grep -qs '"type":"step","step":6,' "$WORK/r21/events.jsonl" && break; sleep 0.1; done
kill -9 $pid
wait $pid || true
grep -q 'id="curves"' "$WORK/r21/report.html" || fail "no report of a run without samples"

# one line each
expect 3 "did you mean <lora:kiwa>" "$KIWAME" generate "x <lora:kiwwa:1>" --base "$WORK/base" --lora-dir "$WORK/r1" --steps 1
expect 2 "written as PNG" "$KIWAME" generate x --base "$WORK/base" --steps 1 --out "$WORK/x.gif"
expect 2 "out of range" "$KIWAME" generate x --base "$WORK/base" --width 0
expect 0 "" "$KIWAME" generate "a AND b" --base "$WORK/base" --steps 1 --out "$WORK/x.png"
expect 3 "kiwame resume" "$KIWAME" inspect "$WORK/r4"
expect 3 "kiwame data" "$KIWAME" inspect "$WORK/hundred"
expect 3 "neither a file nor a folder" "$KIWAME" inspect /dev/null
expect 3 "nothere" "$KIWAME" inspect nothere "$WORK/x.png"
says "64 x 64"
expect 0 "[320, 39802]" "$KIWAME" debug tokens "$(printf 'a \377')"
expect 0 "コマンド" "$KIWAME" --lang ja
expect 3 "holds no unet/config.json" "$KIWAME" init "$WORK/hundred"
"$KIWAME" help --format man 2>"$WORK/said" | head -1 >/dev/null
[ ! -s "$WORK/said" ] || { cat "$WORK/said"; fail "a closed pipe is an error"; }
expect 5 "cannot write" sh -c "'$KIWAME' help --format man >/dev/full"
echo "a user's day: done"
