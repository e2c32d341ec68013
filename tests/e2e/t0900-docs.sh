#!/bin/sh
# t0900-docs.sh - documents that can be compared with the tree are: the pages made from option tables, the layers of
# docs/ARCHITECTURE.md, links and paths in Markdown files, both READMEs' commands.
. tests/e2e/lib.sh

# ---- pages made by the program
tools/docs/generate "$KIWAME" "$WORK"
for page in docs/OPTIONS.md man/kiwame.1; do
    cmp -s "$page" "$WORK/$page" || { diff "$page" "$WORK/$page" | head -20; fail "$page is stale: tools/docs/generate build/kiwame"; }
done

# ---- layers: the list, the folders, the picture (highest on top), the tour (lowest first)
doc=docs/ARCHITECTURE.md
sed -n 's/^\([a-z][a-z]*\)$/\1/p' src/LAYERS >"$WORK/layers"
for folder in src/*/; do basename "$folder"; done | sort >"$WORK/folders"
sort "$WORK/layers" | cmp -s - "$WORK/folders" || fail "src/LAYERS is not the list of folders in src"
awk '/^```/ { inside = !inside && !seen; seen = 1; next } inside && /^ [a-z]+ +\|/ { print $1 }' "$doc" | tac >"$WORK/picture"
sed -n 's/^\*\*\([a-z]*\)\*\* (`src\/\([a-z]*\)\/\([a-z]*\.h\)`).*/\1 \2\/\3/p' "$doc" >"$WORK/tour"
cut -d' ' -f1 "$WORK/tour" >"$WORK/toured"
for what in picture toured; do
    diff "$WORK/layers" "$WORK/$what" || fail "$doc: the layers of the $what are not those of src/LAYERS, in that order"
done
while read -r layer header; do
    [ "$header" = "$layer/$layer.h" ] && [ -f "src/$header" ] || fail "$doc: $layer's header is not src/$header"
done <"$WORK/tour"

# ---- links between documents, and paths in `code`
for page in README.md README.ja.md docs/*.md; do
    dir=$(dirname "$page")
    grep -o '](\([^)#:]*\))' "$page" | sed 's/^](//;s/)$//' | while read -r link; do
        [ -e "$dir/$link" ] || fail "$page: there is no $link"
    done
    [ "$page" = docs/OPTIONS.md ] || grep -o '`\(src\|docs\|tests\|tools\|data\|po\|man\)/[A-Za-z0-9_./-]*`' "$page" | tr -d '`' | grep -v NAME | while read -r path; do
        [ -e "$path" ] || fail "$page: there is no $path"
    done
done

# ---- every `kiwame ...` command named in the READMEs exists
grep -ho 'kiwame [a-z]*' README.md README.ja.md docs/PROOF.md | sort -u | while read -r _ command; do
    [ -z "$command" ] || "$KIWAME" help "$command" >/dev/null 2>&1 || fail "there is no command 'kiwame $command'"
done
echo "documents agree with the tree"
