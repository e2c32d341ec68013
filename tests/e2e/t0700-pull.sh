#!/bin/sh
# t0700-pull.sh - downloads from a hub that misbehaves: what arrives is whole and verified, or it is said why not.
. tests/e2e/lib.sh
SERVER=$(dirname "$KIWAME")/tests/net_server
HF_ENDPOINT=http://127.0.0.1:1 "$KIWAME" pull hf:a/b --retries 0 2>&1 | grep -q KW_NET=OFF &&
    { echo "built without downloads"; exit 0; }
export KIWAME_LANG=en HF_HOME="$WORK/hf" XDG_DATA_HOME="$WORK/data" XDG_CONFIG_HOME="$WORK/config" XDG_CACHE_HOME="$WORK/cache"
unset HF_TOKEN HF_TOKEN_PATH HF_HUB_CACHE HF_HUB_OFFLINE HUGGING_FACE_HUB_TOKEN CIVITAI_TOKEN CIVITAI_API_TOKEN SSL_CERT_FILE \
    http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY no_proxy NO_PROXY CURL_CA_BUNDLE REQUESTS_CA_BUNDLE || true
PIDS=
trap 'kill $PIDS 2>/dev/null; rm -rf "$WORK"' EXIT
serve() {                                          # serve FOLDER [tls]
    mkdir -p "$1/hub/org" "$1/files" "$1/civitai"
    "$SERVER" "$@" & PIDS="$PIDS $!"
    while [ ! -s "$1/port" ]; do sleep 0.05; done
}
S=$WORK/srv
serve "$S"
PORT=$(cat "$S/port")
export HF_ENDPOINT="http://127.0.0.1:$PORT" CIVITAI_ENDPOINT="http://127.0.0.1:$PORT"
cp -rL data/shapes "$S/hub/org/shapes"
UNET=$S/hub/org/shapes/unet/diffusion_pytorch_model.safetensors
mkdir -p "$S/hub/org/one"
cp "$UNET" "$S/hub/org/one/one.safetensors"
cp "$UNET" "$S/files/one.safetensors"
SHA=$(sha256sum <"$UNET" | cut -c1-64)
SIZE=$(wc -c <"$UNET")
pull() { "$KIWAME" pull "$@" --backoff 0.05; }
mode() { printf '%s\n' "$@" >"$S/mode"; : >"$S/log"; }
behave() { rm -f "$S/mode" "$S/mode.used"; : >"$S/log"; }
fresh() { rm -rf "$HF_HOME" "$XDG_DATA_HOME"; }
logged() { grep -q -- "$1" "$S/log" || { cat "$S/log"; fail "the server was not asked: $1"; }; }
not_logged() { ! grep -q -- "$1" "$S/log" || { cat "$S/log"; fail "the server was asked: $1"; }; }
BLOBS=$HF_HOME/hub/models--org--one/blobs
whole() { cmp "$BLOBS/$SHA" "$UNET" && [ ! -e "$BLOBS/$SHA.incomplete" ] || fail "not the file"; }
nothing() { [ -z "$(find "$HF_HOME" "$XDG_DATA_HOME" -type f -size +0 -name '*[!k]' ! -name '*.incomplete' ! -name '.*' 2>/dev/null)" ] || { find "$HF_HOME" "$XDG_DATA_HOME"; fail "something was kept"; }; }

# ---- the plain case: the cache as huggingface_hub has it; a second time nothing is asked for; names in place of paths
: >"$S/log"
expect 0 "licence     mit" pull hf:org/shapes
at=$(tail -1 "$WORK/said")
HUB=$HF_HOME/hub/models--org--shapes
C=c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff
at=$HUB/snapshots/$C
[ "$(cat "$HUB/refs/main")" = "$C" ] || fail "refs/main"
[ "$(readlink "$at/unet/diffusion_pytorch_model.safetensors")" = "../../../blobs/$SHA" ] || fail "the link"
diff -r "$at" "$S/hub/org/shapes" || fail "the snapshot is not the repository"
[ "$("$KIWAME" pull hf:org/shapes --quiet)" = "$at" ] || fail "the path"
: >"$S/log"
pull hf:org/shapes --quiet >/dev/null
not_logged "/resolve/"
expect 0 "unet" "$KIWAME" inspect hf:org/shapes
expect 0 "$at" env HF_HUB_OFFLINE=1 "$KIWAME" pull hf:org/shapes
expect 3 "HF_HUB_OFFLINE" env HF_HUB_OFFLINE=1 "$KIWAME" pull hf:org/one
expect 3 "kiwame pull sd15" "$KIWAME" generate x --base sd15
expect 0 '"there":true' pull hf:org/shapes --plan --json
expect 0 "stable-diffusion-v1-5/stable-diffusion-v1-5" "$KIWAME" pull
expect 2 "did you mean 'sdxl'" pull sdxxl
expect 2 "is no name of a repository" pull hf:../etc
expect 2 "is no name of a repository" pull hf:org/shapes:../x
printf x | dd of="$HUB/blobs/$SHA" bs=1 seek=1000 conv=notrunc 2>/dev/null       # a damaged cache is mended
expect 0 "damaged" pull hf:org/shapes
cmp "$HUB/blobs/$SHA" "$UNET" || fail "not mended"
expect 0 "to/unet" sh -c "\"$KIWAME\" pull hf:org/shapes --to \"$WORK/to\" --quiet && find \"$WORK/to\""
diff -r "$WORK/to" "$S/hub/org/shapes" && [ -z "$(find "$WORK/to" -type l)" ] || fail "--to"
expect 3 "holds no file two.safetensors" pull hf:org/one:two.safetensors
[ -f "$HF_HOME/hub/models--org--one/.no_exist/$C/two.safetensors" ] || fail ".no_exist"
cp "$UNET" "$S/hub/org/one/two.safetensors"
expect 2 "one.safetensors (529 kB), two.safetensors (529 kB)" pull hf:org/one
rm "$S/hub/org/one/two.safetensors"
expect 3 "another hash" pull hf:org/one --sha256 "$(echo x | sha256sum | cut -c1-64)"
expect 0 "one.safetensors" pull "https://huggingface.co/org/one/blob/main/one.safetensors" --plan

# ---- bytes that are not what was announced: nothing is kept
fresh
mode hash;                expect 3 "damaged or exchanged" pull hf:org/one; nothing
mode linked;              expect 3 "announces another file" pull hf:org/one; nothing
mode html;                expect 3 "a web page came instead of the file" pull hf:org/one; nothing
mode pointer;             expect 3 "were announced" pull hf:org/one; nothing
mode length=-1000;        expect 3 "528" pull hf:org/one; nothing
mode api-html;            expect 3 "a web page came instead of an answer" pull hf:org/one; nothing
mode evil;                expect 3 '"../../evil.json"' pull hf:org/shapes; nothing
mode claim=99000000000000; expect 3 "more than the 100 GB allowed" pull hf:org/one; nothing
mode claim=99000000000000; expect 4 "the disk is too small" pull hf:org/one --max-size 900TB; nothing
mode claim=2000;          expect 3 "2000 were announced" pull hf:org/one; nothing
mode chunked claim=2000;  expect 3 "more bytes come than the 2000 announced" pull hf:org/one; nothing
mode goto="http://169.254.169.254/latest/meta-data/"; expect 3 "only https is used" pull hf:org/one; nothing
mode goto="https://169.254.169.254/latest/";          expect 3 "not of the public internet" pull hf:org/one; nothing
mode goto="https://[::ffff:127.0.0.1]/x";             expect 3 "not of the public internet" pull hf:org/one; nothing
mode goto="https://0x7f.1/x";                         expect 3 "not of the public internet" pull hf:org/one; nothing
mode goto="https://2130706433/x";                     expect 3 "not of the public internet" pull hf:org/one; nothing
mode goto="https://localhost:$PORT/x";                expect 3 "not of the public internet" pull hf:org/one; nothing
mode goto="https://user:secret@huggingface.co/x";     expect 3 "a name or password" pull hf:org/one; nothing
mode goto="file:///etc/passwd";                       expect 3 "" pull hf:org/one; nothing
mode loop;                expect 3 "leads on and on" pull hf:org/one; nothing
[ "$(grep -c /cdn/ "$S/log")" = 10 ] || fail "redirects: $(wc -l <"$S/log")"
behave

# ---- what a server may refuse, and what then helps
mode "status=403 Forbidden;X-Error-Code: GatedRepo";  expect 3 "accept the conditions" pull hf:org/one
mode "api-status=403 Forbidden;X-Error-Code: GatedRepo"; expect 3 "HF_TOKEN" pull hf:org/one
mode "api-status=401 Unauthorized"; expect 3 "still valid" env HF_TOKEN=hf_x "$KIWAME" pull hf:org/one
mode "status=404 Not Found";          expect 3 "there is no such" pull hf:org/one
behave
expect 3 "no such repository, or a private one" pull hf:org/none
expect 3 "there is no such revision" pull hf:org/one@v9
mode "status=429 Too Many Requests;Retry-After: 1" once; expect 0 "again in 1 s" pull hf:org/one; whole; fresh
mode "status=429 Too Many Requests;Retry-After: 9999";   expect 3 "9999 s" pull hf:org/one
mode "status=503 Unavailable" once;   expect 0 "again in" pull hf:org/one; whole; fresh
mode "status=503 Unavailable";        expect 5 "answers 503" pull hf:org/one --retries 2
[ "$(grep -c /cdn/ "$S/log")" = 3 ] || fail "attempts"
behave

# ---- broken connections: gone on with, by Range; another file in between: from the beginning
mode cut=300000 once;     expect 0 "again in" pull hf:org/one; whole; logged "range=bytes=300000-"; fresh
mode stall=200000 once;   expect 0 "again in" pull hf:org/one --stall 1; whole; logged "range=bytes=200000-"; fresh
mode stall=200000;        expect 5 "gone silent" pull hf:org/one --stall 1 --retries 0; fresh
mode length=5000;         expect 3 "534456 bytes" pull hf:org/one; nothing
mode gzip;                expect 0 "" pull hf:org/one; whole; fresh
mode chunked;             expect 0 "" pull hf:org/one; whole; fresh
mode cut=0;               expect 5 "kiwame:" pull hf:org/one --retries 1; fresh
mode cut=100000;          expect 0 "" pull hf:org/one; whole; fresh              # each attempt brings something: six of them
mode cut=300000 once;     expect 5 "" pull hf:org/one --retries 0
mode no206;               expect 0 "begins anew" pull hf:org/one; whole; logged "range=bytes=300000-"; fresh
mode cut=300000 once;     expect 5 "" pull hf:org/one --retries 0
printf x | dd of="$BLOBS/$SHA.incomplete" bs=1 seek=1000 conv=notrunc 2>/dev/null
behave;                   expect 0 "what lay there was damaged" pull hf:org/one; whole; fresh
mode etag;                expect 3 "damaged or exchanged" pull hf:org/one; nothing
behave; fresh

# ---- plain addresses: hash or not, etag, names
U=http://127.0.0.1:$PORT/file/one.safetensors
expect 3 "only https is used" pull "$U"
expect 0 "cannot be verified" pull "$U" --allow-private --to "$WORK/here"
cmp "$WORK/here/one.safetensors" "$UNET" || fail "the file"
expect 2 "is there already" pull "$U" --allow-private --to "$WORK/here"
expect 0 "one.safetensors" pull "$U" --allow-private --to "$WORK/here" --sha256 "$SHA"
rm "$WORK/here/one.safetensors"
expect 3 "damaged or exchanged" pull "$U" --allow-private --to "$WORK/here" --sha256 "$(echo x | sha256sum | cut -c1-64)"
[ -z "$(ls -A "$WORK/here" | grep -v lock)" ] || fail "leftovers"
mode cut=300000 once;     expect 5 "" pull "$U" --allow-private --to "$WORK/here" --retries 0
mode etag;                expect 0 "" pull "$U" --allow-private --to "$WORK/here"
logged "if-range=\"$SHA\""
[ "$(sha256sum <"$WORK/here/one.safetensors" | cut -c1-64)" != "$SHA" ] &&
    [ "$(wc -c <"$WORK/here/one.safetensors")" = "$SIZE" ] || fail "a mixture"
rm -r "$WORK/here"
behave
mode cut=300000 once;     expect 5 "" pull "$U" --allow-private --to "$WORK/here" --retries 0
behave;                   expect 0 "going on from" pull "$U" --allow-private --to "$WORK/here"
cmp "$WORK/here/one.safetensors" "$UNET" && logged "range=bytes=300000-" || fail "not gone on with"
expect 0 "data/kiwame/models/url/" pull "$U" --allow-private
mode html;                expect 3 "copy the address of the download itself" pull "$U?b" --allow-private
mode pointer;             expect 3 "Git-LFS pointer" pull "$U?d" --allow-private
mode chunked;             expect 3 "larger than allowed" pull "$U?c" --allow-private --max-size 100000
behave
expect 5 "no connection" pull "http://127.0.0.1:1/x.safetensors" --allow-private --retries 0
expect 3 "only https is used" pull "ftp://example.com/x.safetensors"

# ---- a name of the public internet whose address is not: looked at when it is connected to, and again after a redirect
for a in 127.0.0.1 169.254.169.254 10.1.2.3 192.168.0.1 "[::1]" "[fd00::1]" "[::ffff:127.0.0.1]"; do
    expect 3 "is not of the public internet" pull https://models.example/x.safetensors --resolve "models.example:443:$a"
done
fresh; mode goto="https://models.example/x"
expect 3 "its address 127.0.0.1 is not of the public internet" pull hf:org/one --resolve "models.example:443:127.0.0.1"; nothing
behave

# ---- tokens: from the environment or a file, for the hub alone, never shown, never in another host's log
export HF_TOKEN=hf_SECRET
behave; expect 0 "" pull hf:org/one; whole; fresh
grep "/api/models" "$S/log" | grep -q "auth=Bearer hf_SECRET" || fail "the token was not sent"
mode other=localhost;     expect 3 "only https is used" pull hf:org/one
mode other=localhost;     expect 0 "" pull hf:org/one --allow-private; whole; fresh
grep "host=localhost" "$S/log" | grep "/cdn/" >/dev/null || fail "no other host"
! grep "host=localhost" "$S/log" | grep "SECRET" || fail "the token followed the redirect"
mode hash;                expect 3 "" pull hf:org/one
! grep -rq SECRET "$WORK/said" "$HF_HOME" || fail "the token was shown"
unset HF_TOKEN
mkdir -p "$HF_HOME"; echo "hf_FILE" >"$HF_HOME/token"
behave; expect 0 "" pull hf:org/one; whole; logged "Bearer hf_FILE"; fresh
echo "hf_PATH" >"$WORK/token"
expect 0 "" env HF_TOKEN_PATH="$WORK/token" "$KIWAME" pull hf:org/one; logged "Bearer hf_PATH"; fresh
expect 2 "HF_TOKEN: holds no token" env HF_TOKEN="a b" "$KIWAME" pull hf:org/one

# ---- Civitai
cp "$UNET" "$S/civitai/77.bin"
cat >"$S/civitai/77.json" <<END
{"id":77,"modelId":5,"name":"v2","baseModel":"SD 1.5","trainedWords":["kiwa","chan"],"model":{"name":"Kiwa","type":"LORA"},
 "files":[{"name":"training.zip","type":"Training Data","downloadUrl":"@/api/download/models/99","hashes":{}},
          {"name":"../../kiwa.safetensors","sizeKB":$((SIZE / 1024)),"type":"Model","primary":true,"metadata":{"format":"SafeTensor"},
           "hashes":{"SHA256":"$(echo "$SHA" | tr a-f A-F)"},"downloadUrl":"@/api/download/models/77"}]}
END
export CIVITAI_TOKEN=civ_SECRET
behave; expect 0 "kiwa, chan" pull civitai:77
[ "$(cd "$XDG_DATA_HOME" && find . -type f)" = "./kiwame/models/civitai/77/kiwa.safetensors" ] ||
    { find "$XDG_DATA_HOME"; fail "Civitai's file"; }
cmp "$XDG_DATA_HOME/kiwame/models/civitai/77/kiwa.safetensors" "$UNET" || fail "the file"
logged "/api/download/models/77.*Bearer civ_SECRET"
expect 0 "kiwa.safetensors" "$KIWAME" inspect civitai:77
expect 0 "kiwa.safetensors" env HF_HUB_OFFLINE=1 "$KIWAME" pull "https://civitai.com/models/5/kiwa?modelVersionId=77"
fresh
mode other=localhost;     expect 0 "" pull "urn:air:sd1:lora:civitai:5@77" --allow-private; fresh
! grep "host=localhost" "$S/log" | grep "SECRET" || fail "the key followed the redirect"
mode login;               expect 3 "CIVITAI_TOKEN" pull civitai:77
mode hash;                expect 3 "damaged or exchanged" pull civitai:77; nothing
mode "status=401 Unauthorized"; expect 3 "still valid" pull civitai:77
unset CIVITAI_TOKEN
mode "status=401 Unauthorized"; expect 3 "civitai.com/user/account" pull civitai:77
behave; expect 3 "Civitai does not know it" pull civitai:78
expect 2 "names no model of Civitai" pull civitai:x
sed -i "s|@/api/download/models/77|https://evil.example/77|" "$S/civitai/77.json"
expect 3 "its file lies elsewhere" pull civitai:77
fresh

# ---- two at once, and kill -9 in the middle
mode slow=4000
pull hf:org/one --quiet >"$WORK/a" 2>&1 & a=$!
pull hf:org/one --quiet >"$WORK/b" 2>&1 & b=$!
wait $a && wait $b || { cat "$WORK/a" "$WORK/b"; fail "two at once"; }
cmp "$WORK/a" "$WORK/b" && whole || fail "two at once"
[ "$(grep -c "GET /cdn/" "$S/log")" = 1 ] || { cat "$S/log"; fail "downloaded twice"; }
fresh
"$KIWAME" pull hf:org/one --quiet >"$WORK/a" 2>&1 & a=$!
sleep 0.3
pull hf:org/one --quiet >"$WORK/b" 2>&1 & b=$!
sleep 0.3
kill -9 $a; wait $a 2>/dev/null || true
wait $b || { cat "$WORK/b"; fail "who waited did not take over"; }
whole; logged "range=bytes="
fresh
kills=0
for pause in 0.2 0.4 0.6 0.9; do
    "$KIWAME" pull hf:org/one >/dev/null 2>&1 & a=$!
    sleep $pause
    kill -9 $a 2>/dev/null && kills=$((kills + 1))
    wait $a 2>/dev/null || true
    [ ! -e "$BLOBS/$SHA" ] || whole
done
[ $kills -gt 0 ] || fail "nothing was killed"
behave; expect 0 "" pull hf:org/one; whole; fresh
mode slow=2000
"$KIWAME" pull hf:org/one >"$WORK/a" 2>&1 & a=$!
sleep 0.6; kill -TERM $a; got=0; wait $a || got=$?         # a shell's children behind & do not see SIGINT
[ $got = 143 ] && [ -s "$BLOBS/$SHA.incomplete" ] || { cat "$WORK/a"; fail "stopped: exit $got"; }
behave

# ---- a disk that takes no more; a proxy, and who needs none
expect 5 "cannot write" sh -c "ulimit -f 300; \"$KIWAME\" pull hf:org/one"
fresh; : >"$S/log"
small="hf:org/shapes:unet/config.json"
expect 0 "unet/config.json" env HF_ENDPOINT=http://hub.example http_proxy="http://127.0.0.1:$PORT" "$KIWAME" pull "$small"
logged "host=hub.example"
fresh
expect 5 "no connection" env HF_ENDPOINT=http://hub.example http_proxy="http://127.0.0.1:$PORT" no_proxy=.example "$KIWAME" pull "$small" --retries 0
expect 3 "not of the public internet" env https_proxy="http://127.0.0.1:$PORT" "$KIWAME" pull https://10.0.0.1/x.safetensors

# ---- encryption: a certificate nobody vouches for is refused, a known one is taken
serve "$WORK/tls" tls
cp -r "$S/hub/org/one" "$WORK/tls/hub/org/one"
export HF_ENDPOINT="https://127.0.0.1:$(cat "$WORK/tls/port")"
expect 3 "its certificate is not to be trusted" pull hf:org/one
expect 0 "" env SSL_CERT_FILE="$WORK/tls/cert.pem" "$KIWAME" pull hf:org/one; whole
echo "downloads: whole and verified, or refused by name"
