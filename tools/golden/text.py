#!/usr/bin/env python3
"""Golden ids for the tokenizer, from transformers' fast CLIPTokenizer (5.23, tokenizers 0.23).

    text.py                           writes tests/golden/text/
    text.py --check N PROGRAM         N random texts through PROGRAM (the unit test text_test_tokenizer with --ids),
                                      with CLIP's vocabulary and with the small one; prints the number of differences
    text.py --check-dir DIR N PROGRAM the same with the tokenizer folder DIR (one that kw_bpe_write made)
    text.py --tables                  where utf8proc's Unicode tables differ from tokenizers' (src/text/unicode.c)

A golden line is a text as hexadecimal bytes, a tab, its ids without marks of start and end. Bytes that are not UTF-8
are decoded with errors="replace" before transformers sees them.
"""
import ctypes
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join(ROOT, "tests/golden/text")
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
FLAGS = dict(lstrip=False, normalized=True, rstrip=False, single_word=False)

# ---- vocabularies --------------------------------------------------------------------------------------------


def byte_letters():
    """Bytes in CLIP's order, and the letter that stands for each."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return {**{b: chr(b) for b in shown}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


LETTER = byte_letters()
BYTES = list(LETTER.values()) + [c + "</w>" for c in LETTER.values()]


def write(folder, name, value):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) + "\n")


def token(content, **more):
    return dict(more, content=content, **FLAGS)


def write_clip(folder):
    """SD 1.5's tokenizer folder: the configuration as published with that model."""
    merges = open(os.path.join(ROOT, "data/clip/merges.txt"), encoding="utf-8").read()
    names = BYTES + ["".join(m.split(" ")) for m in merges.split("\n")[1:-1]] + [BOS, EOS]
    assert len(names) == len(set(names)) == 49408
    write(folder, "vocab.json", {n: i for i, n in enumerate(names)})
    write(folder, "merges.txt", merges)
    write(folder, "special_tokens_map.json",
          dict(bos_token=token(BOS), eos_token=token(EOS), unk_token=token(EOS), pad_token=EOS))
    at = dict(__type="AddedToken")
    write(folder, "tokenizer_config.json",
          dict(bos_token=token(BOS, **at), eos_token=token(EOS, **at), unk_token=token(EOS, **at), pad_token=EOS,
               add_prefix_space=False, errors="replace", do_lower_case=True, model_max_length=77,
               tokenizer_class="CLIPTokenizer"))


def words_of(tok, text):
    norm = tok.backend_tokenizer.normalizer.normalize_str(text)
    return [w for w, _ in tok.backend_tokenizer.pre_tokenizer.pre_tokenize_str(norm)]


def train(corpus, size, tok):
    """BPE by recounting everything at each step; ties go to the pair of lowest ids. Returns names, merges."""
    words = {}
    for count, text in corpus:
        for w in words_of(tok, text):
            symbols = tuple(BYTES.index(c) for c in w[:-1]) + (BYTES.index(w[-1] + "</w>"),)
            words[symbols] = words.get(symbols, 0) + count
    names, merges, done = list(BYTES), [], set()
    while len(names) < size - 2:
        pairs = {}
        for w, count in words.items():
            for p in zip(w, w[1:]):
                pairs[p] = pairs.get(p, 0) + count
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        if pairs[best] < 2:
            break
        both = names[best[0]] + names[best[1]]
        if both not in names:
            names.append(both)
        new = names.index(both)
        if best not in done:
            merges.append(f"{names[best[0]]} {names[best[1]]}")
            done.add(best)
        after = {}
        for w, count in words.items():
            out, i = [], 0
            while i < len(w):
                hit = w[i:i + 2] == best
                out.append(new if hit else w[i])
                i += 1 + hit
            after[tuple(out)] = after.get(tuple(out), 0) + count
        words = after
    return names + [BOS, EOS], merges


def write_small(folder, corpus, tok):
    """A vocabulary of 700 tokens in the files kw_bpe_write makes, byte for byte."""
    names, merges = train(corpus, 700, tok)
    quoted = [json.dumps(n, ensure_ascii=False) for n in names]
    write(folder, "vocab.json", "{\n" + ",\n".join(f"{q}: {i}" for i, q in enumerate(quoted)) + "\n}\n")
    write(folder, "merges.txt", "#version: 0.2\n" + "".join(m + "\n" for m in merges))
    flags = '"lstrip": false, "normalized": true, "rstrip": false, "single_word": false}'
    for name, kind, tail in (("special_tokens_map.json", "", ""), ("tokenizer_config.json", '"__type": "AddedToken", ',
                             ',\n  "add_prefix_space": false,\n  "do_lower_case": true,\n  "errors": "replace",\n'
                             '  "model_max_length": 24,\n  "tokenizer_class": "CLIPTokenizer"')):
        lines = [f'  "{key}": {{{kind}"content": "{content}", {flags}'
                 for key, content in (("bos_token", BOS), ("eos_token", EOS), ("unk_token", EOS))]
        write(folder, name, "{\n" + ",\n".join(lines + [f'  "pad_token": "{EOS}"']) + tail + "\n}\n")


def write_variants(small):
    """The small vocabulary in other shapes: added tokens and a hole (unknown bytes), and tokenizer.json alone."""
    from transformers import CLIPTokenizer
    names = json.load(open(os.path.join(small, "vocab.json"), encoding="utf-8"))
    gone = [n for n in names if n in ("q", "q</w>", "Z", "z</w>", LETTER[0xf0], LETTER[0x9f])]
    merges = open(os.path.join(small, "merges.txt"), encoding="utf-8").read().split("\n")
    keep = [m for m in merges[:1] + merges[1:] if not any(p.startswith(g) for g in gone for p in m.split(" ")[1:])
            and not any(m.startswith(g) for g in gone)]
    made = {"".join(m.split(" ")) for m in keep[1:]}
    kept = [n for n in names if n in BYTES and n not in gone or n in made or n in (BOS, EOS)]
    # merges that need a token which is gone go too
    while True:
        ok = [m for m in keep[1:-1] if all(p in kept for p in m.split(" ")) and "".join(m.split(" ")) in kept]
        now = [n for n in kept if n in BYTES or n in (BOS, EOS) or n in {"".join(m.split(" ")) for m in ok}]
        if len(ok) == len(keep) - 2 and len(now) == len(kept):
            break
        keep, kept = keep[:1] + ok + [""], now
    added = os.path.join(OUT, "added")
    write(added, "vocab.json", {n: i for i, n in enumerate(kept)})
    write(added, "merges.txt", "\n".join(keep))
    n = len(kept)
    decoder = {str(kept.index("!")): token("!", special=True), str(n - 2): token(BOS, special=True),
               str(n - 1): token(EOS, special=True), str(n): token("<Kiwa-Chan>", special=False),
               str(n + 1): token("赤い狐", special=True), str(n + 2): token("<kiwa", special=False)}
    for k in (str(kept.index("!")), str(n - 1), str(n + 1)):
        decoder[k]["normalized"] = False
    write(added, "tokenizer_config.json",
          dict(added_tokens_decoder=decoder, bos_token=BOS, eos_token=EOS, unk_token=EOS, pad_token="!",
               model_max_length=1000000000000000019884624838656, tokenizer_class="CLIPTokenizer"))
    whole = os.path.join(OUT, "json")
    with tempfile.TemporaryDirectory() as d:
        CLIPTokenizer.from_pretrained(small).save_pretrained(d)
        os.makedirs(whole, exist_ok=True)
        shutil.copy(os.path.join(d, "tokenizer.json"), whole)


# ---- texts -----------------------------------------------------------------------------------------------------

CORPUS = """9 red heart|7 赤いハート|5 a picture of a fox|4 キツネの絵|3 fox|3 キツネ|6 cat face with tears of joy|2 ネコの顔
8 woman, white hair|3 白髪の女性|2 pixel art of a cat|2 ネコのドット絵|1 the the theatre|5 grinning face with big eyes
4 目を見開いた笑顔|3 blue background|3 青い背景|3 green background|2 緑の背景|3 small on the left|2 左に小さく
2 rock'n'roll isn't dead, they've said|4 no. 1 of 10, 100%|2 10個のりんご|6 apple|6 りんご|3 green apple|3 青りんご
2 banana banana bananas|1 aaaaaaaa|1 abababab|0 never counted at all|2 éclair|2 crème brûlée|1 🦊 fox|1 🐱 cat
3 mascot of the project, waving|3 手を振るマスコット|2 mascot, smiling|2 笑うマスコット|2 night sky with stars|2 星空
1 Über die Brücke|1 ёлка зимой|1 서울의 밤|1 北京的夜|2 sunglasses|2 サングラス|2 house with garden|2 庭つきの家"""

FIXED = r"""
a photo of an astronaut riding a horse on mars
masterpiece, best quality, 1girl, solo, long hair, looking at viewer
don't can't won't they're we've I'm you'll he'd it's O'Brien's rock'n'roll
DON'T CAN'T THEY'RE WE'VE I'M YOU'LL HE'D IT'S
'tis 'twas ''s 's 't're'vell 'sun 'ReVe ''''
12345 3.14159 1,000,000 1st 2nd 50% $9.99 a1b2c3 ½ ¾ ² ³ ① Ⅷ ٣ ३ 五
hello!!! what?!?! ... --- *** ((a:1.2)) [b] {c|d} <e> #tag @user e-mail@example.org http://example.org/?q=1&r=2
C++ C# .NET node.js under_score kebab-case camelCase SCREAMING_SNAKE
赤い狐の絵
日本語のテスト、句読点。「かぎかっこ」・中点ー長音
ひらがなカタカナ漢字mixedラテンABC１２３ａｂｃ
ｱｲｳｴｵ ｶﾞｷﾞｸﾞ ＡＢＣ　全角　空白
東京都、大阪府、北海道 富士山🗻と桜🌸
少女、白い髪、青い目、笑顔、制服、教室
吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。
が ぱ ガ パ
한국어 텍스트 각 각
中文測試 简体中文 繁體中文
Ελληνικά ΟΔΥΣΣΕΥΣ Σ ς σ
Русский текст ЁЖИК Й й
עברית שָׁלוֹם العربية مُحَمَّد فارسی
हिन्दी नमस्ते க்ஷ ไทย ทดสอบ ລາວ ខ្មែរ မြန်မာ
İstanbul ISPARTA ılık iİıI
Straße STRASSE ẞ ﬁ ﬂ ﬃ Ǆ ǅ ǆ
crème brûlée naïve café
crème brûlée naïve café
Å Å Å ﹏ Ω Ω K K
ạ̈ ạ̈ q̣̇ q̣̇ ḍ̇
Tiếng Việt Đặng Thị Ngọc Thịnh
é̂̂̂̂̂ z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞
😀😃😄 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇯🇵🇫🇷 🧑🏿‍🚀 ❤️ ❤ 1️⃣ #️⃣
🦊 fox 🐱 cat 🫠 🫡 🩷 🫨
👩🏻‍❤️‍💋‍👨🏿 🏴󠁧󠁢󠁥󠁮󠁧󠁿
<|startoftext|> <|endoftext|>
a<|endoftext|>b<|startoftext|>c
<|STARTOFTEXT|> <|ENDOFTEXT|> <|StartOfText|>!!
<|ENDOFTEXT|>!! !<|ENDOFTEXT|> x<|ENDOFTEXT|>y <|ENDOFTEXT|>'s
<|endoftext <|end| <|startoftext|x> <<|endoftext|>> <| endoftext |>
<|endoftext|>'s <|startoftext|>́ <|endoftext|>́
\u200b\u200bzero\u200bwidth \ufeffbom \u00ad soft \u2060 joiner
\u202eright-to-left\u202c \u2066isolate\u2069
a\u0000b \u0001\u0002\u001f \u007f \u0080\u0085\u009f
tab\there new\nline cr\r\nlf vt\u000bff\u000c nel\u0085 ls\u2028 ps\u2029
nbsp\u00a0ogham\u1680en\u2002em\u2003thin\u2009hair\u200anarrow\u202fmath\u205fideo\u3000end
\u001c\u001d\u001e\u001f separators
&amp; &lt;b&gt; &quot;x&quot; caf&eacute; &amp;amp;
“curly” ‘quotes’ it’s — – … • ™ © ® € £ ¥ §
Ã© Ã¨ â€™ ï¿½ mojibake
\U000e0001\U000e0041 tags \U0001f1e6 \uffff \ufffe \U0010ffff \ue000 private
\u1160\u11a8 \u1100\u1161\u11a8 \uac00\u11a7 \uac00\u11a8 \u1100\u1161\u11a7x
\U00011935\U00011930 a\U00011938\u0334 \U000105d2\u0307 \U00016d63\U00016d67 \u0cc6\u0cc2\u0cd5 \u0ddc\u0dca
\u1c89 \ua7cb \ua7cc \ua7ce \ua7da \ua7dc \U00010d50 \U00016ea0 \U00010d40 \U000116d0 \U0002ebf0
\u0d3b\u0334 \u0334\u0d3b \u1abf\u0316 \u08ca\u0323 \u0345\u0898
supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis
Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft
寿限無寿限無五劫のすり切れ海砂利水魚の水行末雲来末風来末食う寝る処に住む処藪ら柑子の藪柑子
"""

BAD = [b"\xff", b"\xfe\xff", b"a\x80b", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80",
       b"\xed\xa0\xbd\xed\xb8\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80",
       b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xc3",
       b"caf\xc3", b"\xe3\x81", b"x\xe3\x81y", b"\xe3\x81\xe3\x81\x82",
       b"\xf0\x9f\xa6", b"\xf0\x9f\xa6 fox", b"\xf0\x9f", b"\xf0", b"\xf1\x80\x80\xc3\xa9", b"\xf0\x9f\x98\xed\xa0\x80",
       "日本語".encode("cp932"), "赤い狐".encode("euc_jp"), "café".encode("latin-1"), "naïve".encode("utf-16-le"),
       b"<|endoftext\xff|>", b"e\xcc\x81\xcc", b"\xef\xbf", b"\xef\xbf\xbd\xef\xbf"]

ALPHABETS = {
    "ascii": [chr(c) for c in range(32, 127)],
    "latin": [chr(c) for c in range(0xa0, 0x250)],
    "marks": [chr(c) for c in range(0x300, 0x370)] + list("aeiouncAEIOUNC") + [chr(c) for c in range(0x1ab0, 0x1b00)],
    "greek": [chr(c) for c in range(0x370, 0x530)],
    "semitic": [chr(c) for c in range(0x590, 0x700)],
    "indic": [chr(c) for c in range(0x900, 0xe00)],
    "kana": [chr(c) for c in range(0x3040, 0x3100)] + list("。、「」ー・"),
    "cjk": [chr(c) for c in range(0x4e00, 0x9fff)],
    "wide": [chr(c) for c in range(0xff01, 0xfff0)],
    "hangul": [chr(c) for c in range(0xac00, 0xd7a4, 7)] + [chr(c) for c in range(0x1100, 0x1200)],
    "space": list("\t\n\v\f\r\x1c\x1f \x85\xa0\u1680\u2003\u2028\u200b\u3000\ufeff"),
    "emoji": [chr(c) for c in range(0x1f300, 0x1f700)] + ["\u200d", "\ufe0f", "🏽", "\u20e3"] +
             [chr(c) for c in range(0x1f1e6, 0x1f200)],
    "compat": [chr(c) for c in range(0xf900, 0xfb50)] + [chr(c) for c in range(0x1e00, 0x2000)],
    "symbols": [chr(c) for c in range(0x2010, 0x2c00)],
    "control": [chr(c) for c in range(0, 32)] + [chr(c) for c in range(0x7f, 0xa0)],
    "any": None,
}
WORDS = """a the of cat dog fox photo masterpiece 1girl don't it's we're I'll O'Neil's 'em and/or x,y (red:1.2) BREAK
<lora:kiwa:0.8>
<|startoftext|> <|endoftext|> <|STARTOFTEXT|> <|EndOfText|> 赤い 狐 猫 笑顔 キツネ 2024 3.14 10% !!! ... ?!
👨‍👩‍👧 🦊 é É ñ İ ǅ ﬁ Ω 각 शि ไทย مُ""".split()


def random_char(rng, name):
    letters = ALPHABETS[name]
    if letters:
        return rng.choice(letters)
    while True:
        c = rng.choice((rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x20000), rng.randrange(0x110000)))
        if not 0xd800 <= c < 0xe000:
            return chr(c)


def random_text(rng):
    """Runs of one alphabet each, words, and sometimes damage."""
    parts = []
    for _ in range(rng.randint(1, 8)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(WORDS))
        else:
            name = rng.choice(list(ALPHABETS))
            parts.append("".join(random_char(rng, name) for _ in range(rng.choice((1, 2, 3, 5, 8, 40)))))
        parts.append(rng.choice(("", " ", " ", ", ", "\u3000", "'")))
    data = "".join(parts).encode("utf-8")
    if rng.random() < 0.25:
        data = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            if rng.random() < 0.5:
                data[at:at + 1] = b""
            else:
                data[at:at] = bytes([rng.randrange(256)])
    return bytes(data)


def fixed_texts():
    unescape = lambda s: s.encode("ascii", "backslashreplace").decode("unicode_escape") if "\\" in s else s
    texts = [b""] + [unescape(line).encode("utf-8") for line in FIXED.strip().split("\n")] + BAD
    texts += [part.encode("utf-8") for line in FIXED.strip().split("\n")[:26] for part in line.split(" ")]
    texts += [b"a" * 300, b"the" * 200, "赤".encode() * 100, b"!" * 99, b"' " * 20, "\u0301\u0316".encode() * 40]
    return list(dict.fromkeys(texts))


# ---- prompts ---------------------------------------------------------------------------------------------------

PIECE = re.compile(r"\\[()\[\]\\]|[\\()\[\]]|:\s*([+-]?[.\d]+)\s*\)|:|[^\\()\[\]:]+")
PROMPTS = r"""normal text|an (important) word|(unbalanced|\(literal\]|(unnecessary)(parens)
a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).
a BREAK b|BREAK|aBREAK|BREAK BREAK|x\u3000BREAK\n y|a_BREAK|(a BREAK b:1.2)|BREAK:1|[BREAK]|猫BREAK犬|BREAK1
(x:-0.5)|(x:1.)|(x:.5)|(x: 1.25 )|(x:１．５)|(x:１２)|x:1.2)
(x:1.2.3)|(x:.)|((a:1.2)b)|[a(b]c)d|)(|][|a)b]c|\\|\|\\(a)|\x|:|(:)|(a:b:1.3)
(x:+2)|(x:1.2 |((((|[[[|()|[]|(:1.2)|a (b (c (d) e) f) g|(a:0)|(赤い:1.3)狐|[a:b:0.25]|[a|b]"""


def segments(prompt):
    """A1111's emphasis, with this project's two differences. None: refused."""
    out, opened = [], {"(": [], "[": []}
    def scale(start, factor):
        for piece in out[start:]:
            piece[1] *= 1 if piece[2] else factor
    for m in PIECE.finditer(prompt):
        s = m.group()
        if s[0] == "\\":
            out.append([s[1:], 1.0, False])
        elif s in opened:
            opened[s].append(len(out))
        elif m.group(1) and opened["("]:
            try:
                scale(opened["("].pop(), float(m.group(1)))
            except ValueError:
                return None
        elif s == ")" and opened["("]:
            scale(opened["("].pop(), 1.1)
        elif s == "]" and opened["["]:
            scale(opened["["].pop(), 1 / 1.1)
        else:
            for i, part in enumerate(re.split(r"\s*\bBREAK\b\s*", s)):
                out += [["", 1.0, True]] * (i > 0) + [[part, 1.0, False]]
    for kind, factor in (("(", 1.1), ("[", 1 / 1.1)):
        for start in opened[kind]:
            scale(start, factor)
    merged = []
    for text, weight, cut in out or [["", 1.0, False]]:
        if merged and not cut and not merged[-1][2] and merged[-1][1] == weight:
            merged[-1][0] += text
        else:
            merged.append([text, weight, cut])
    return merged


def write_prompts():
    rng = random.Random(3)
    bits = ["(", "(", ")", ")", "[", "]", ":", ":1.2)", ":0.5)", ": 1.1 )", "\\", "\\(", "BREAK", " BREAK ", "a", "b ",
            ", ", "赤", " ", "1", ".", "_", "é", "\u3000", "<", "1.3)"]
    prompts = [p.replace("\\u3000", "\u3000").replace("\\n", "\n") for p in PROMPTS.replace("\n", "|").split("|")]
    prompts += ["[a|b]", ""] + ["".join(rng.choice(bits) for _ in range(rng.randint(1, 14))) for _ in range(400)]
    with open(os.path.join(OUT, "prompts.tsv"), "w") as f:
        for p in dict.fromkeys(prompts):
            s = segments(p)
            f.write(p.encode().hex() + "\t" + ("error" if s is None else " ".join(
                "BREAK" if cut else f"{weight!r}:{text.encode().hex()}" for text, weight, cut in s)) + "\n")


# ---- goldens and checks ----------------------------------------------------------------------------------------


def ids_of(tok, data):
    return tok(data.decode("utf-8", "replace"), add_special_tokens=False).input_ids


def write_ids(name, tok, texts):
    with open(os.path.join(OUT, name), "w") as f:
        for data in texts:
            f.write(data.hex() + "\t" + " ".join(map(str, ids_of(tok, data))) + "\n")


def make():
    from transformers import CLIPTokenizer
    os.makedirs(OUT, exist_ok=True)
    with tempfile.TemporaryDirectory() as d:
        write_clip(d)
        clip = CLIPTokenizer.from_pretrained(d)
    rng = random.Random(1)
    texts = fixed_texts()
    write_ids("clip.tsv", clip, texts + [random_text(rng) for _ in range(150)])
    corpus = [(int(c), t) for c, t in (p.split(" ", 1) for p in CORPUS.replace("\n", "|").split("|"))]
    write(OUT, "corpus.tsv", "".join(f"{c}\t{t}\n" for c, t in corpus))
    small = os.path.join(OUT, "small")
    write_small(small, corpus, clip)
    write_variants(small)
    write_ids("small.tsv", CLIPTokenizer.from_pretrained(small),
              texts + [t.encode() for _, t in corpus] + [random_text(rng) for _ in range(100)])
    write_prompts()
    odd = ["Kiwa <kiwa-chan> x", "<KIWA-CHAN>", "<kiwa-cha", "赤い狐だ", "赤い狐<kiwa<Kiwa-Chan>", "wow!! no! a",
           "quiz 🦊 q z Zz", "! !", "<|ENDOFTEXT|><|STARTOFTEXT|>", "a <Kiwa"]
    some = [t.encode() for t in odd] + texts[:40]
    write_ids("added.tsv", CLIPTokenizer.from_pretrained(os.path.join(OUT, "added")), some)
    write_ids("json.tsv", CLIPTokenizer.from_pretrained(os.path.join(OUT, "json")), some)


def compare(tok, texts, program, folder):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        f.write("".join(t.hex() + "\n" for t in texts))
        f.flush()
        out = subprocess.run([program, "--ids", f.name] + ([folder] if folder else []), check=True, capture_output=True,
                             text=True).stdout.split("\n")[:-1]
    assert len(out) == len(texts), (len(out), len(texts))
    wrong = 0
    for data, line in zip(texts, out):
        want = data.hex() + "\t" + " ".join(map(str, ids_of(tok, data)))
        if line != want:
            wrong += 1
            if wrong <= 10:
                print("differs:", repr(data.decode("utf-8", "replace")), "\n  want", want.split("\t")[1], "\n  got ",
                      line.split("\t")[1])
    print(f"{folder or 'CLIP'}: {len(texts)} texts, {wrong} differences")
    return wrong


def check(n, program, folder=None, seed=2):
    from transformers import CLIPTokenizer
    rng = random.Random(seed)
    texts = fixed_texts() + [random_text(rng) for _ in range(n)]
    if folder:
        return compare(CLIPTokenizer.from_pretrained(folder), texts, program, folder)
    with tempfile.TemporaryDirectory() as d:
        write_clip(d)
        wrong = compare(CLIPTokenizer.from_pretrained(d), texts, program, None)
        wrong += compare(CLIPTokenizer.from_pretrained(d), texts, program, d)
    for name in ("small", "added", "json"):
        path = os.path.join(OUT, name)
        wrong += compare(CLIPTokenizer.from_pretrained(path), texts, program, path)
    return wrong


# ---- tables ------------------------------------------------------------------------------------------------------


def ranges(values):
    out = []
    for v in sorted(values):
        if out and out[-1][1] == v - 1:
            out[-1][1] = v
        else:
            out.append([v, v])
    return ", ".join("{ 0x%04x, 0x%04x }" % tuple(r) for r in out)


def tables():
    from tokenizers import Regex, normalizers
    lib = ctypes.CDLL("libutf8proc.so.2")
    lib.utf8proc_get_property.restype = ctypes.POINTER(ctypes.c_int16 * 2)
    every = [c for c in range(0x110000) if not 0xd800 <= c < 0xe000]
    def matched(expression):
        remove = normalizers.Replace(Regex(expression), "")
        kept = set(remove.normalize_str("".join(map(chr, every))))
        return {c for c in every if chr(c) not in kept}
    for name, expression, own in (("late_letters", r"\p{L}", range(1, 6)), ("late_numbers", r"\p{N}", range(9, 12))):
        print(name, ranges(matched(expression) ^ {c for c in every if lib.utf8proc_category(c) in own}))
    nfc, low = normalizers.NFC(), normalizers.Lowercase()
    marks = [c for c in every if lib.utf8proc_get_property(c).contents[1]]
    moves = lambda c: (nfc.normalize_str(chr(c) + "\u0334")[0] == "\u0334" or
                       nfc.normalize_str("\u0345" + chr(c))[-1] == "\u0345")
    print("late_marks", ranges(c for c in marks if not moves(c) and c not in (0x334, 0x345)))
    print("late_capitals", [(hex(c), [hex(ord(x)) for x in low.normalize_str(chr(c))]) for c in every
                            if low.normalize_str(chr(c)) != chr(lib.utf8proc_tolower(c))])


if __name__ == "__main__":
    args = sys.argv[1:]
    if args[:1] == ["--check"]:
        sys.exit(check(int(args[1]), args[2]) > 0)
    elif args[:1] == ["--check-dir"]:
        sys.exit(check(int(args[2]), args[3], args[1]) > 0)
    elif args[:1] == ["--tables"]:
        tables()
    else:
        make()
