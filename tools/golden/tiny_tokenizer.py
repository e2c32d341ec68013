"""tiny_tokenizer.py - a small CLIP tokenizer for test pipelines, and CLIP's own from its published merges file.

CLIP's vocabulary is: 256 bytes (spelt as printable characters), the same with "</w>" (end of word), one entry per
merge, <|startoftext|>, <|endoftext|>.
"""
import collections
import gzip
import json
import os

WORDS = ("a the of on in and with red blue green yellow white black orange purple pink brown cat dog bird fish horse house "
         "tree flower apple face smiling heart star moon sun square circle triangle shape small large big left right up down "
         "photo picture drawing painting style person woman man child hand eye hair hat car train boat ship plane road river "
         "mountain sea sky cloud rain snow fire water light dark bright old new happy sad angry sleeping running standing "
         "sitting character object background front side view cute mascot kitten puppy").split()
TEXT = [w for i, w in enumerate(WORDS) for _ in range(1 + 60 // (i + 1))]


def byte_letters():
    """The 256 printable stand-ins for bytes, in CLIP's order: visible Latin-1 first, the rest shifted up by 256."""
    seen = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in seen]
    return [chr(b) for b in seen] + [chr(256 + i) for i in range(len(rest))]


def learn_merges(words, limit):
    """Byte-pair encoding: the most frequent neighbouring pair becomes one symbol; ties go to the smaller pair."""
    texts = collections.Counter(tuple(w[:-1]) + (w[-1] + "</w>",) for w in words)
    merges = []
    while len(merges) < limit:
        pairs = collections.Counter()
        for t, n in texts.items():
            for pair in zip(t, t[1:]):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        texts = collections.Counter({join(t, best): n for t, n in texts.items()})
    return merges


def join(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        both = tuple(symbols[i:i + 2]) == pair
        out.append("".join(pair) if both else symbols[i])
        i += 2 if both else 1
    return tuple(out)


def save(folder, merges, pad="<|endoftext|>"):
    letters = byte_letters()
    vocab = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({v: i for i, v in enumerate(vocab)}, f, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": pad, "unk_token": "<|endoftext|>"}
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "add_prefix_space": False, **special}, f, indent=2)
    with open(os.path.join(folder, "special_tokens_map.json"), "w", encoding="utf-8") as f:
        json.dump(special, f, indent=2)
    return len(vocab)


def write(folder, limit=240, pad="<|endoftext|>"):
    """A tokenizer learnt from a few caption words; returns the size of its vocabulary."""
    return save(folder, learn_merges(TEXT, limit), pad)


def write_from_bpe(path, folder):
    """CLIP's own tokenizer from bpe_simple_vocab_16e6.txt(.gz): its first 48,894 merges are used."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
        lines = f.read().split("\n")
    return save(folder, [tuple(m.split()) for m in lines[1:49152 - 256 - 2 + 1]])
