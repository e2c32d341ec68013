#!/usr/bin/env python3
"""Cuts CLIP's published merge list down to the 48,894 merges the model uses.

    clip_merges.py bpe_simple_vocab_16e6.txt.gz > data/clip/merges.txt

The published list holds 262,144 merges; CLIP's 49,408 tokens are 512 byte symbols, the first 48,894 merges and two
marks of text start and end. See data/clip/README.md for where the file comes from.
"""
import gzip
import sys

USED = 49152 - 256 - 2

lines = gzip.open(sys.argv[1], "rt", encoding="utf-8", newline="\n").read().split("\n")
merges = lines[1:1 + USED]
assert all(len(m.split(" ")) == 2 for m in merges)
sys.stdout.buffer.write(("#version: 0.2\n" + "\n".join(merges) + "\n").encode())
