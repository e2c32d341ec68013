#!/bin/sh
# t0710-prompts.sh - prompts that change, parts, whose grammar, textual inversion and hypernetworks on the command line.
. tests/e2e/lib.sh
GOLDEN=$PWD/tests/golden/pipeline
make_base
cd "$WORK"

# draw NAME OPTIONS...: latents of four steps in NAME.safetensors
draw() {
    name=$1
    shift
    "$KIWAME" generate --base "$GOLDEN/base" --steps 4 --seed 1 --no-sheet -o "$name.png" --save-latents "$name.safetensors" "$@" >said 2>&1 \
        || { cat said; fail "$*"; }
}
same() { cmp -s "$1.safetensors" "$2.safetensors" || fail "$1 and $2 differ"; }
other() { cmp -s "$1.safetensors" "$2.safetensors" && fail "$1 and $2 are the same"; true; }
text_has() { grep -aqF -- "$2" "$1" || fail "$1 does not keep '$2'"; }

# Editing and alternation: after the last step nothing changes any more; a word for all steps is that word.
draw red "a red cat"
draw late "a [red:blue:99] cat"
draw half "a [red:blue:0.5] cat"
draw turns "a [red|blue] cat"
draw spaced "a [red:blue:2] cat"
same red late
other red half
other half turns
same half spaced
text_has half.png "a [red:blue:0.5] cat"

# Parts: with weights that come to one part alone, and with two.
draw alone "a red cat:1"
draw two "a red cat AND a blue house:0.5"
same red alone
other red two

# Pictures of a batch with schedules of their own are those drawn one by one, but for rounding: the files' pixels.
"$KIWAME" generate "a [red:blue:0.5] cat" "a [red|blue] cat" --base "$GOLDEN/base" --steps 4 --seed 1 --batch 2 --no-sheet -o both.png -q \
    >said 2>&1 || { cat said; fail "a batch"; }
[ -s both-1.png ] && [ -s both-2.png ] || fail "a batch has no two pictures"

# Grammar and emphasis, kept in the picture.
draw weighed "a (red:1.5) cat"
draw unnormed "a (red:1.5) cat" --emphasis no-norm
draw comfy "a (red:1.5) cat" --prompt-grammar comfyui
draw ignored "a (red:1.5) cat" --emphasis ignore
other weighed unnormed
other weighed comfy
same ignored red
text_has unnormed.png "Emphasis: No norm"
text_has comfy.png "Prompt grammar: ComfyUI"
draw spoiled "[a:b:0.5] | c"
grep -q "keeps all of it from changing" said || fail "a bar that stands alone is not noted"

# Textual inversion: by file, by folder, behind ComfyUI's mark; what is of another base is told, or refused.
draw file "a kiwa cat" --embedding "$GOLDEN/embeddings/kiwa.pt"
draw folder "a kiwa cat" --embeddings-dir "$GOLDEN/embeddings"
draw words "a kiwa cat"
draw marked "a embedding:kiwa cat" --embeddings-dir "$GOLDEN/embeddings" --prompt-grammar comfyui
same file folder
same file marked
other file words
text_has file.png 'TI hashes: "kiwa: '
text_has file.png '"embed:kiwa": "'
draw foreign "a sd2 cat" --embeddings-dir "$GOLDEN/embeddings"
grep -q 'vectors of 1024 numbers.*"sd2" is taken as words' said || fail "an embedding of another base is not noted"
expect 3 "vectors of 1024 numbers" "$KIWAME" generate "a sd2" --base "$GOLDEN/base" --embedding "$GOLDEN/embeddings/sd2.safetensors"
says "Stable Diffusion 2.x"
expect 3 "there is no embedding \"nobody\"" "$KIWAME" generate "embedding:nobody" --base "$GOLDEN/base" --prompt-grammar comfyui

# Folders in the folder, as A1111 looks through them: files come before folders, and what has a name that is taken is told.
mkdir -p words/style/old words/subject
cp "$GOLDEN/embeddings/kiwa.pt" words/subject/kiwa.pt
draw below "a kiwa cat" --embeddings-dir words
same file below
grep -q twice said && fail "one file is called two"
cp "$GOLDEN/embeddings/kiwa-safe.safetensors" words/style/old/kiwa.safetensors
draw first "a kiwa cat" --embeddings-dir words
grep -q '"kiwa" is there twice: words/style/old/kiwa.safetensors is used, words/subject/kiwa.pt is not' said ||
    { cat said; fail "two embeddings of one name are not told"; }
draw safe "a kiwa cat" --embedding words/style/old/kiwa.safetensors
same first safe
cp "$GOLDEN/embeddings/kiwa.pt" words/kiwa.pt
draw above "a kiwa cat" --embeddings-dir words
same file above

# Hypernetworks: a tag and an option say the same.
draw tag "a cat <hypernet:new:0.7>" --hypernet-dir "$GOLDEN/hypernets"
draw option "a cat" --hypernet "$GOLDEN/hypernets/new.pt:0.7"
draw none "a cat"
same tag option
other tag none
text_has option.png "a cat <hypernet:new:0.7>"
text_has option.png '"hypernet:new": "'
expect 3 "there is no nex.pt" "$KIWAME" generate "a <hypernet:nex:1>" --base "$GOLDEN/base" --hypernet-dir "$GOLDEN/hypernets"
expect 3 "other widths" "$KIWAME" generate "a" --base base --hypernet "$GOLDEN/hypernets/new.pt"
echo ok
