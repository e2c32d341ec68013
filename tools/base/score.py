#!/usr/bin/env python3
"""score.py INDEX PROMPTS PICTURES [--also FOLDER] - is each generated picture nearest to the glyph that was asked for?

INDEX is OUT/score of emoji.py; PROMPTS one of its prompts.*.txt ("caption --d glyph", seed = index of the glyph) or any
list of prompts; PICTURES a folder of PNGs, whose order by name is that of the prompts. FOLDER's PNGs (the demo's held-out
mascots) join the glyphs as further candidates, and how many pictures are nearest to one of them is told.

The score: both pictures over white, RGB, to 32 x 32 by means of whole blocks (128 px: 4 x 4, rounded half up), numbers
0..255 as they are in the file; distance = sum of squared differences over the 3,072 numbers; the nearest of all distinct
glyphs, held out or not. Glyphs that look alike at 32 x 32 (one pair) count as one. Ties go to the lower index.
Prints R@1, R@5 and the median rank. Standard library and Debian's libcairo2 only.
"""
import argparse
import os
import re

from draw import Picture, read_png
from emoji import shrunk

SIDE, BLOCK = 32, 4


def over_white(picture):
    p = Picture(picture.width, picture.height)
    p.background((1, 1, 1))
    p.place(picture, 0, 0)
    return p


def numbers(path):
    p = over_white(read_png(path))
    if p.width != p.height or p.width % SIDE:
        raise SystemExit(f'{path} is {p.width} x {p.height}; its side must be a multiple of {SIDE}')
    return shrunk(p, p.width // SIDE)


def block_sums(pixels):
    """Sums over 4 x 4 blocks per channel: a cheap lower bound of the distance, as 16 sum d^2 >= (sum d)^2."""
    sums = [0] * (3 * (SIDE // BLOCK) ** 2)
    for y in range(SIDE):
        row = pixels[3 * SIDE * y:3 * SIDE * (y + 1)]
        base = 3 * (SIDE // BLOCK) * (y // BLOCK)
        for x in range(SIDE // BLOCK):
            for c in range(3):
                sums[base + 3 * x + c] += sum(row[3 * BLOCK * x + c:3 * BLOCK * (x + 1):3])
    return sums


def squares(a, b):
    return sum((x - y) * (x - y) for x, y in zip(a, b))


def nearest(pixels, candidates, n):
    """The n nearest as (distance, name), exact; most candidates are ruled out by their block sums."""
    sums = block_sums(pixels)
    bounds = sorted((squares(sums, s) / BLOCK ** 2, i) for i, (_, s, _) in enumerate(candidates))
    best = []
    for bound, i in bounds:
        if len(best) == n and bound > best[-1][0]:
            break
        best = sorted(best + [(squares(pixels, candidates[i][0]), i)])[:n]
    return [(d, candidates[i][2]) for d, i in best]


def rank_of(pixels, wanted, candidates):
    """How many candidates are nearer than the wanted one, plus one; bounds rule out most here too."""
    sums, limit = block_sums(pixels), squares(pixels, candidates[wanted][0])
    return 1 + sum(squares(sums, s) / BLOCK ** 2 < limit and (squares(pixels, p), i) < (limit, wanted)
                   for i, (p, s, _) in enumerate(candidates) if i != wanted)


def read_index(folder):
    """Candidates (pixels, block sums, name) and {index of a glyph: place of its picture among the candidates}."""
    with open(os.path.join(folder, 'glyphs32.rgb'), 'rb') as f:
        data = f.read()
    candidates, place, n = [], {}, 3 * SIDE * SIDE
    with open(os.path.join(folder, 'glyphs.tsv'), encoding='utf-8') as f:
        for line in f:
            index, same, _, _, name, _ = line.rstrip('\n').split('\t')
            if index == same:
                pixels = data[n * int(index):n * (int(index) + 1)]
                place[index] = len(candidates)
                candidates.append((pixels, block_sums(pixels), name))
            else:
                place[index] = place[same]
    return candidates, place


def pngs(folder):
    return [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.lower().endswith('.png')]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('index', 'prompts', 'pictures'):
        parser.add_argument(name)
    parser.add_argument('--also')
    args = parser.parse_args()
    candidates, place = read_index(args.index)
    own = len(candidates)
    for path in pngs(args.also) if args.also else []:
        pixels = numbers(path)
        candidates.append((pixels, block_sums(pixels), os.path.basename(path)))
    with open(args.prompts, encoding='utf-8') as f:
        prompts = [line.strip() for line in f if line.strip() and not line.startswith('#')]
    pictures = pngs(args.pictures)
    if len(pictures) != len(prompts):
        raise SystemExit(f'{len(prompts)} prompts, but {len(pictures)} pictures in {args.pictures}')
    ranks, also = [], 0
    for prompt, path in zip(prompts, pictures):
        pixels, seed = numbers(path), re.search(r' --d (\d+)$', prompt)
        name = nearest(pixels, candidates, 1)[0][1]
        also += any(name == c[2] for c in candidates[own:])
        print(f'{os.path.basename(path)}\t{prompt}\t{name}', end='')
        if not args.also and seed and seed[1] in place:
            ranks.append(rank_of(pixels, place[seed[1]], candidates))
            print(f'\trank {ranks[-1]}', end='')
        print()
    if args.also:
        print(f'nearest is of {args.also}: {also} of {len(prompts)}')
    if ranks:
        print(f'R@1 {sum(r == 1 for r in ranks)} of {len(ranks)}, R@5 {sum(r <= 5 for r in ranks)}, '
              f'median rank {sorted(ranks)[(len(ranks) - 1) // 2]}')


if __name__ == '__main__':
    main()
