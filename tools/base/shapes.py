#!/usr/bin/env python3
"""shapes.py OUT - pictures and captions of the small base `shapes`: one shape, its colour, size, place and background.

  OUT/train, OUT/heldout   64 x 64 PNG, each with a caption file of two lines, English and Japanese
  OUT/captions.txt         all captions, for the tokenizer
Every shape has every colour; 40 of the 640 combinations are held out. Needs Debian's libcairo2 only.
"""
import math
import sys

from draw import Ledger, Picture, Rng, PI, empty_folder
from names import WHITE

SIZE, SEED, HELD = 64, 5, 40

COLOURS = [
    ('red', '赤い', (.86, .16, .16)), ('orange', '橙の', (.98, .58, .10)), ('yellow', '黄色い', (.97, .85, .20)),
    ('green', '緑の', (.20, .65, .30)), ('blue', '青い', (.18, .36, .86)), ('purple', '紫の', (.55, .25, .75)),
    ('brown', '茶色い', (.50, .30, .16)), ('black', '黒い', (.08, .08, .10)),
]
BACKGROUNDS = [
    ('gray', '灰色の', (.72, .72, .74)), ('pink', '桃色の', (.98, .76, .84)), ('cyan', '水色の', (.64, .90, .96)),
    ('cream', '卵色の', (.99, .94, .78)),
]
# caption's words, radius, centre
SIZES = [('', '', 19), ('small ', '小さい', 10), ('big ', '大きい', 27)]
PLACES = [('left', '左', -1, 0), ('right', '右', 1, 0), ('top', '上', 0, -1), ('bottom', '下', 0, 1)]


# ---- shapes of radius 1 around the origin ----------------------------------------------------------------------------

def around(n, radius=lambda i: 1, start=-PI / 2):
    return [(radius(i) * math.cos(start + 2 * PI * i / n), radius(i) * math.sin(start + 2 * PI * i / n)) for i in range(n)]


def circle(p, colour):
    p.ellipse(0, 0, .92, .92, colour)


def ring(p, colour):
    p.new_path()
    p.arc(0, 0, .72, 0, 2 * PI)
    p.line_with(colour, .40)


def heart(p, colour):
    p.new_path()
    p.move_to(0, .90)
    p.curve_to(-1.75, -.20, -.80, -1.35, 0, -.45)
    p.curve_to(.80, -1.35, 1.75, -.20, 0, .90)
    p.fill_with(colour)


def polygon(points):
    return lambda p, colour: p.polygon(points, colour)


CROSS = [(-.3, -.9), (.3, -.9), (.3, -.3), (.9, -.3), (.9, .3), (.3, .3), (.3, .9), (-.3, .9), (-.3, .3), (-.9, .3), (-.9, -.3),
         (-.3, -.3)]
SHAPES = [
    ('circle', '丸', circle), ('square', '四角', polygon([(-.8, -.8), (.8, -.8), (.8, .8), (-.8, .8)])),
    ('triangle', '三角', polygon(around(3))), ('star', '星', polygon(around(10, lambda i: .45 if i % 2 else 1.05))),
    ('heart', 'ハート', heart), ('ring', '輪', ring), ('cross', '十字', polygon(CROSS)),
    ('diamond', '菱形', polygon([(0, -1), (.62, 0), (0, 1), (-.62, 0)])),
]


# ---- pictures ----------------------------------------------------------------------------------------------------------

def picture(shape, colour, radius, dx=0, dy=0, background=WHITE):
    p = Picture(SIZE)
    p.background(background)
    p.translate(SIZE / 2 + dx * (SIZE / 2 - radius - 3), SIZE / 2 + dy * (SIZE / 2 - radius - 3))
    p.scale(radius, radius)
    shape[2](p, colour[2])
    return p


def captions(shape, colour, size, place=None, background=None):
    en, ja = f'{size[0]}{colour[0]} {shape[0]}', f'{size[1]}{colour[1]}{shape[1]}'
    if place:
        en, ja = f'{en}, {place[0]}', f'{ja}、{place[1]}'
    if background:
        en, ja = f'{en}, {background[0]} background', f'{ja}、{background[1]}背景'
    return en, ja


def variants(rng):
    """Ten for one shape and colour: the sizes, the places (small or not), three backgrounds (at any size and place)."""
    yield from ((size, None, None) for size in SIZES)
    yield from ((SIZES[rng.below(2)], place, None) for place in PLACES)
    for background in rng.some(BACKGROUNDS, 3):
        yield (rng.pick(SIZES), None, background) if rng.random() < .5 else (SIZES[rng.below(2)], rng.pick(PLACES), background)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    out, rng, all_captions = Ledger(empty_folder(sys.argv[1])), Rng(SEED, 'shapes'), ''
    rows = [(shape, colour, *v) for shape in SHAPES for colour in COLOURS for v in variants(rng)]
    held = set(rng.some(range(len(rows)), HELD))
    for i, (shape, colour, size, place, background) in enumerate(rows):
        text = ''.join(line + '\n' for line in captions(shape, colour, size, place, background))
        at, ground = place[2:] if place else (0, 0), background[2] if background else WHITE
        stem = f'{"heldout" if i in held else "train"}/{i:03d}-{colour[0]}-{shape[0]}'
        out.picture(stem + '.png', picture(shape, colour, size[2], *at, ground))
        out.text(stem + '.txt', text)
        all_captions += text
    out.text('captions.txt', all_captions)
    out.report()


if __name__ == '__main__':
    main()
