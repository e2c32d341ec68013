#!/usr/bin/env python3
"""emoji.py OUT [--jobs N] - the pictures and captions from which the base kiwame-emoji-128 is made.

Needs Debian's fonts-noto-color-emoji, unicode-cldr-core, unicode-data, libpangocairo-1.0-0; no Python package.
  OUT/glyphs      every glyph, 128 x 128, RGBA
  OUT/unet        N_name folders (N repeats): white 60 %, named flat colour 25 %, named size and place 15 % of an epoch
  OUT/vae         the same glyphs without captions: white, random flat colours, channels permuted; and random drawings
  OUT/heldout     the glyphs of heldout.txt, which are in neither
  OUT/score       the index of the retrieval score: `kiwame debug nearest` reads it
  OUT/captions.txt    texts for the tokenizer, repeated by weight
The same files every time; the SHA-256 printed are of pixels and texts.
"""
import argparse
import multiprocessing
import time

import names
from draw import EmojiFont, Ledger, Picture, Rng, PI, empty_folder

SIZE = 128
SEED = 11
REPEATS = {'white': 12, 'colour': 1, 'placed': 1}         # 12 : 5 : 3 per glyph, as there are 5 colours and 3 places
COLOURS_PER_GLYPH, PLACES_PER_GLYPH = 5, 3
# what a caption adds in English and Japanese, scale, centre (fractions of the picture)
PLACES = [
    (', small', '、小さい', .55, .5, .5), (', small, left', '、小さい、左', .5, .27, .5),
    (', small, right', '、小さい、右', .5, .73, .5), (', small, top', '、小さい、上', .5, .5, .27),
    (', small, bottom', '、小さい、下', .5, .5, .73), (', close-up', '、アップ', 1.4, .5, .5),
]
COMMA = {'en': ', ', 'ja': '、'}


# ---- captions ------------------------------------------------------------------------------------------------------

def fitting(name, keywords):
    """The name and as many of the keywords as leave room for a place and a background in 22 tokens."""
    parts = [name]
    for k in keywords:
        if len(' '.join(parts + [k]).encode()) <= 38:
            parts.append(k)
    return parts


def caption_lines(emoji, rng, also=('', '')):
    """The variants of a caption, one per line, equally likely: per language 21 x the name, 3 x name and two keywords,
    3 x a word for the kind. With 10 % of captions dropped by the trainer that is 70 : 10 : 10 : 10."""
    lines = []
    for language, more in zip(('en', 'ja'), also):
        name, keywords = emoji.name[language], emoji.keywords[language]
        lines += [name + more] * 21
        for _ in range(3):
            lines.append(COMMA[language].join(fitting(name, rng.some(keywords, 2))) + more)
        lines += [emoji.kind[0][language] + more] * 2 + [emoji.kind[1][language] + more]
    return ''.join(line + '\n' for line in lines)


def tokenizer_texts(emoji):
    """Names twice, keywords once, the words that captions add often enough to be tokens."""
    lines = []
    for e in emoji:
        for language in ('en', 'ja'):
            lines += [e.name[language]] * 2 + e.keywords[language]
    for word in names.kinds().values():
        lines += [word['en'], word['ja']] * 10
    for colour in names.COLOURS:
        lines += list(names.on_colour(colour)) * 50
    for place in PLACES:
        lines += [place[0], place[1]] * 50
    return ''.join(line.strip(', 、') + '\n' for line in lines)


# ---- pictures ------------------------------------------------------------------------------------------------------

def compose(glyph, colour, scale=1.0, x=.5, y=.5):
    p = Picture(SIZE)
    p.background(colour)
    p.place(glyph, SIZE * (x - scale / 2), SIZE * (y - scale / 2), scale)
    return p


def hides(glyph, colour):
    """Would more than a third of the glyph vanish on this colour?"""
    small = Picture(16, alpha=True)
    small.place(glyph, 0, 0, 16 / SIZE)
    d, near, seen = small.pixels(), 0, 0
    b, g, r = (255 * c for c in reversed(colour))
    for i in range(0, len(d), 4):
        if (a := d[i + 3]) > 127:
            seen += 1
            near += (d[i] * 255 / a - b) ** 2 + (d[i + 1] * 255 / a - g) ** 2 + (d[i + 2] * 255 / a - r) ** 2 < 60 ** 2
    return 3 * near > seen


def permuted(picture, order):
    """The colour channels in another order: new hues for the autoencoder."""
    d = bytearray(picture.pixels())
    planes = [bytes(d[c::4]) for c in order]
    d[0::4], d[1::4], d[2::4] = planes
    p = Picture(picture.width, picture.height)
    p.set_pixels(d)
    return p


def drawing(rng):
    """Ellipses, polygons and strokes of random colours: edges and hues beyond the emoji's, for the autoencoder."""
    def colour():
        return rng.pick([(1, 1, 1), (.1, .1, .12)]) if rng.random() < .2 else (rng.random(), rng.random(), rng.random())

    def at():
        return rng.uniform(0, SIZE), rng.uniform(0, SIZE)

    p = Picture(SIZE)
    p.background((1, 1, 1) if rng.random() < .4 else colour())
    for _ in range(3 + rng.below(9)):
        kind, big = rng.below(4), rng.uniform(3, 44)
        x, y = at()
        p.save()
        p.translate(x, y)
        p.rotate(rng.uniform(0, PI))
        if kind < 2:
            p.ellipse(0, 0, big, big * rng.uniform(.3, 1), colour())
        elif kind == 2:
            p.polygon([(rng.uniform(-big, big), rng.uniform(-big, big)) for _ in range(3 + rng.below(3))], colour())
        else:
            p.new_path()
            p.move_to(-big, 0)
            p.curve_to(*at(), *at(), big, 0)
            p.line_with(colour(), rng.uniform(1.5, 8), round_ends=True)
        p.restore()
    return p


# ---- one glyph's share of each folder --------------------------------------------------------------------------------

PERMUTATIONS = [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def for_unet(out, stem, emoji, glyph, rng):
    def put(kind, name, picture, also=('', '')):
        folder = f'unet/{REPEATS[kind]}_{kind}'
        out.picture(f'{folder}/{name}.png', picture)
        out.text(f'{folder}/{name}.txt', caption_lines(emoji, rng, also))

    put('white', stem, compose(glyph, names.WHITE))
    seen = [c for c in names.COLOURS if not hides(glyph, c[2])]
    for c in rng.some(seen, COLOURS_PER_GLYPH):
        put('colour', f'{stem}-{c[0].replace(" ", "")}', compose(glyph, c[2]), names.on_colour(c))
    for i, (en, ja, scale, x, y) in enumerate(rng.some(PLACES, PLACES_PER_GLYPH)):
        c = rng.pick(seen) if i == 0 else None
        more = names.on_colour(c) if c else ('', '')
        picture = compose(glyph, c[2] if c else names.WHITE, scale * rng.uniform(.92, 1.08),
                          x + rng.uniform(-.03, .03), y + rng.uniform(-.03, .03))
        put('placed', f'{stem}-{en.strip(", ").replace(", ", "-")}', picture, (en + more[0], ja + more[1]))


def for_vae(out, stem, glyph, rng):
    def flat():
        return compose(glyph, (rng.random(), rng.random(), rng.random()))

    out.picture(f'vae/9_white/{stem}.png', compose(glyph, names.WHITE))
    out.picture(f'vae/3_white_permuted/{stem}.png', permuted(compose(glyph, names.WHITE), rng.pick(PERMUTATIONS)))
    for i in range(2):
        out.picture(f'vae/3_colour/{stem}-{i}.png', flat())
        out.picture(f'vae/1_colour_permuted/{stem}-{i}.png', permuted(flat(), rng.pick(PERMUTATIONS)))
    out.picture(f'vae/2_drawn/{stem}.png', drawing(rng))


def one_glyph(index):
    """All files of a glyph; runs in a worker, which inherits the glyphs as rendered."""
    root, emoji, glyph, held = WORK['root'], WORK['emoji'][index], WORK['glyphs'][index], WORK['held']
    out, stem = Ledger(root), f'{index:04d}-{emoji.code()}'
    out.picture(f'glyphs/{stem}.png', glyph, alpha=True)
    if emoji.code() in held:
        out.picture(f'heldout/{stem}.png', compose(glyph, names.WHITE))
        out.text(f'heldout/{stem}.txt', f"{emoji.name['en']}\n{emoji.name['ja']}\n")
    else:
        for_unet(out, stem, emoji, glyph, Rng(SEED, 'unet', emoji.code()))
        for_vae(out, stem, glyph, Rng(SEED, 'vae', emoji.code()))
    return out.rows


# ---- the index of the retrieval score ----------------------------------------------------------------------------------

def shrunk(picture, factor=4):
    """Means of factor x factor pixels, rounded half up: bytes R G B."""
    rgb, w = picture.rgb(), picture.width
    out = bytearray()
    for y in range(0, picture.height, factor):
        rows = [rgb[3 * w * (y + j):3 * w * (y + j + 1)] for j in range(factor)]
        for x in range(0, 3 * w, 3 * factor):
            for c in range(3):
                total = sum(sum(row[x + c:x + 3 * factor:3]) for row in rows)
                out.append((2 * total + factor * factor) // (2 * factor * factor))
    return bytes(out)


def sheet(tiles, columns=40, side=32):
    """RGB tiles row by row in one picture, white where there is none."""
    out = Picture(columns * side, -(-len(tiles) // columns) * side)
    bgra = bytearray(b'\xff' * 4 * out.width * out.height)
    for i, rgb in enumerate(tiles):
        for y in range(side):
            at = 4 * ((i // columns * side + y) * out.width + i % columns * side)
            for c in range(3):
                bgra[at + 2 - c:at + 4 * side:4] = rgb[3 * side * y + c:3 * side * (y + 1):3]
    out.set_pixels(bgra)
    return out


def score_index(out, emoji, glyphs, held):
    """glyphs.tsv: index, index of the first glyph that looks the same, code points, held out?, names. Same order in
    glyphs32.png, tiles of 32 x 32. prompts.*.txt: 100 trained glyphs, evenly over the list, seed = index."""
    first, rows, small = {}, [], []
    for i, (e, g) in enumerate(zip(emoji, glyphs)):
        tiny = shrunk(compose(g, names.WHITE))
        same = first.setdefault(tiny, i)
        small.append(tiny)
        rows.append(f"{i}\t{same}\t{e.code()}\t{int(e.code() in held)}\t{e.name['en']}\t{e.name['ja']}\n")
    out.text('score/glyphs.tsv', ''.join(rows))
    out.picture('score/glyphs32.png', sheet(small))
    trained = [i for i in sorted(first.values()) if emoji[i].code() not in held]
    chosen = [trained[k * len(trained) // 100] for k in range(100)]
    for language in ('en', 'ja'):
        out.text(f'score/prompts.{language}.txt', ''.join(f'{emoji[i].name[language]} --d {i}\n' for i in chosen))
    return len(first)


WORK = {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out')
    parser.add_argument('--jobs', type=int, default=multiprocessing.cpu_count())
    args = parser.parse_args()
    empty_folder(args.out)
    start, font = time.time(), EmojiFont()
    emoji, held = names.load(), names.held_out()
    glyphs = [font.glyph(e.text, SIZE) for e in emoji]
    missing = [e.code() for e, g in zip(emoji, glyphs) if g is None]
    if missing:
        raise SystemExit(f'the font has no glyph for {missing}')
    WORK.update(root=args.out, emoji=emoji, glyphs=glyphs, held=held)
    print(f'{len(emoji)} glyphs rendered, {time.time() - start:.1f} s')
    out = Ledger(args.out)
    with multiprocessing.get_context('fork').Pool(args.jobs) as pool:
        for rows in pool.imap(one_glyph, range(len(emoji)), 16):
            out.rows += rows
    distinct = score_index(out, emoji, glyphs, held)
    out.text('captions.txt', tokenizer_texts(emoji))
    out.report()
    print(f'{distinct} distinct glyphs, {len(held)} held out, {time.time() - start:.1f} s')


if __name__ == '__main__':
    main()
