#!/usr/bin/env python3
"""mascot.py OUT - kiwamaru, the mascot of the demo: a teal ball with a sprout and an orange scarf. Ours; CC0.

Draws OUT/train (16 pictures) and OUT/heldout (6), 128 x 128, each with a caption, and OUT/prompts.txt, the demo's 16
prompts with their seeds. Needs Debian's libcairo2 only.
"""
import sys

from draw import Ledger, Picture, PI
from names import COLOURS, WHITE

SIZE = 128
TEAL, DARK_TEAL, ORANGE, DARK_ORANGE = (.16, .68, .66), (.10, .52, .52), (.98, .55, .13), (.85, .42, .05)
INK, MOUTH, CHEEK, STEM, LEAF = (.10, .10, .15), (.30, .10, .12), (.98, .62, .62), (.25, .50, .15), (.45, .78, .22)

MOODS = {'smiling': '笑顔の', 'surprised': '驚いた', 'sleepy': '眠い', 'winking': 'ウインクする', 'laughing': '大笑いする'}
POSES = {'': '', 'waving': '手を振る', 'arms up': '両手を上げる'}


# ---- drawing: the centre of the ball is the origin, its radius about 41 ---------------------------------------------

def limbs(p, pose):
    for side in (-1, 1):
        raised = pose == 'arms up' or (pose == 'waving' and side > 0)
        p.save()
        p.translate(side * 38, 4)
        p.rotate(side * (-.9 if raised else .5))
        p.ellipse(side * 8, 0, 14, 7, DARK_TEAL)
        p.restore()
        p.ellipse(side * 16, 42, 12, 7, DARK_TEAL)


def scarf(p):
    p.new_path()
    p.move_to(-39, 12)
    p.curve_to(-20, 30, 20, 30, 39, 12)
    p.line_to(36, 22)
    p.curve_to(18, 40, -18, 40, -36, 22)
    p.close_path()
    p.fill_with(ORANGE)
    p.polygon([(14, 26), (28, 22), (34, 46), (22, 48)], DARK_ORANGE)


def sprout(p):
    p.polygon([(-2, -38), (2, -38), (1.5, -52), (-1.5, -52)], STEM)
    for side in (-1, 1):
        p.save()
        p.translate(side * 9, -54)
        p.rotate(side * -.5)
        p.ellipse(0, 0, 11, 5.5, LEAF)
        p.restore()


def bow(p, x, y, radius, up, colour, width):
    """A bent line: open upwards like a smile, or downwards like a laughing eye."""
    p.new_path()
    p.arc(x, y, radius, PI + .2 if up else .2, 2 * PI - .2 if up else PI - .2)
    p.line_with(colour, width, round_ends=True)


def eye(p, side, mood):
    x = side * 15
    if mood == 'sleepy':
        bow(p, x, -9, 6, False, INK, 3)
    elif mood == 'laughing' or (mood == 'winking' and side > 0):
        bow(p, x, -6, 6, True, INK, 3)
    else:
        p.ellipse(x, -9, 7, 9, WHITE)
        p.ellipse(x, -8, 4, 6, INK)
        p.ellipse(x + 1.5, -11, 1.6, 2, WHITE)


def mouth(p, mood):
    if mood == 'surprised':
        p.ellipse(0, 6, 4.5, 5.5, (.45, .10, .12))
    elif mood == 'sleepy':
        p.new_path()
        p.move_to(-4, 5)
        p.line_to(4, 5)
        p.line_with(MOUTH, 2.5, round_ends=True)
    elif mood == 'laughing':
        p.new_path()
        p.arc(0, 2, 9, 0, PI)
        p.close_path()
        p.fill_with((.45, .10, .12))
    else:
        bow(p, 0, 2, 7, False, MOUTH, 2.5)


def draw(mood, pose='', colour=WHITE, x=0, y=0, scale=1.0, tilt=0.0):
    """x, y: pixels from the usual place; tilt in radians, clockwise."""
    p = Picture(SIZE)
    p.background(colour)
    p.translate(SIZE / 2 + x, SIZE / 2 + 6 + y)
    p.rotate(tilt)
    p.scale(scale, scale)
    limbs(p, pose)
    p.ellipse(0, 0, 42, 40, TEAL)
    scarf(p)
    sprout(p)
    for side in (-1, 1):
        eye(p, side, mood)
        p.ellipse(side * 25, 3, 5, 3, CHEEK)
    mouth(p, mood)
    return p


# ---- the pictures: mood, pose, background, x, y, scale, tilt, language of the caption ---------------------------------

TRAIN = [
    ('smiling', '', 'white', 0, 0, 1.0, 0.0, 'en'), ('surprised', 'arms up', 'white', -3, 2, .97, .10, 'en'),
    ('sleepy', '', 'purple', 2, 0, 1.0, -.12, 'en'), ('winking', 'waving', 'white', 3, 1, .95, -.15, 'en'),
    ('laughing', 'arms up', 'yellow', 0, 2, 1.0, .06, 'en'), ('smiling', 'waving', 'pink', -2, -1, .97, .15, 'en'),
    ('sleepy', 'arms up', 'white', 4, 2, .92, .15, 'ja'), ('surprised', '', 'light blue', 0, 0, 1.05, -.05, 'en'),
    ('laughing', '', 'white', -3, 0, .95, -.10, 'en'), ('winking', '', 'red', 3, 1, .98, .12, 'ja'),
    ('smiling', 'arms up', 'black', 0, 2, .96, -.15, 'en'), ('surprised', 'waving', 'white', 2, 2, 1.0, -.08, 'ja'),
    ('laughing', 'waving', 'gray', -3, 1, .94, .16, 'en'), ('sleepy', 'waving', 'cream', 1, -1, 1.02, .05, 'en'),
    ('winking', 'arms up', 'blue', -1, 2, .96, .00, 'en'), ('smiling', '', 'orange', 4, 0, .90, -.16, 'ja'),
]
# Five on white, one on pink: on darker or greener colours any picture with that background is nearest to a mascot.
HELD_OUT = [
    ('smiling', 'waving', 'white', 1, 0, .97, -.05, 'en'), ('sleepy', '', 'white', -2, 1, .97, .08, 'ja'),
    ('surprised', '', 'white', 2, 0, .93, .12, 'en'), ('laughing', 'arms up', 'white', 0, 2, .95, -.12, 'en'),
    ('winking', '', 'white', -1, 0, .92, -.05, 'en'), ('smiling', 'arms up', 'pink', -2, 1, .94, .10, 'en'),
]
PROMPTS = [
    ('smiling', '', 'white'), ('sleepy', '', 'white'), ('surprised', '', 'white'), ('laughing', '', 'white'),
    ('winking', '', 'white'), ('smiling', 'waving', 'white'), ('surprised', 'waving', 'white'),
    ('laughing', 'waving', 'white'), ('sleepy', 'arms up', 'white'), ('winking', 'arms up', 'white'),
    ('surprised', 'arms up', 'white'), ('laughing', 'arms up', 'white'), ('smiling', '', 'pink'),
    ('winking', 'waving', 'pink'), ('laughing', '', 'cream'), ('smiling', 'arms up', 'cream'),
]


def caption(mood, pose, background, language):
    colour = next(((en, ja) for en, ja, _ in COLOURS if en == background), None)
    if language == 'ja':
        return MOODS[mood] + ' kiwamaru' + (f'、{POSES[pose]}' if pose else '') + (f'、{colour[1]}背景' if colour else '')
    return f'{mood} kiwamaru' + (f', {pose}' if pose else '') + (f', {colour[0]} background' if colour else '')


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    out, colours = Ledger(sys.argv[1]), {name: c for name, _, c in COLOURS} | {'white': WHITE}
    for folder, rows in (('train', TRAIN), ('heldout', HELD_OUT)):
        for i, (mood, pose, background, x, y, scale, tilt, language) in enumerate(rows, 1):
            out.picture(f'{folder}/kiwamaru-{i:02d}.png', draw(mood, pose, colours[background], x, y, scale, tilt))
            out.text(f'{folder}/kiwamaru-{i:02d}.txt', caption(mood, pose, background, language) + '\n')
    lines = [caption(*p, 'ja' if i in (2, 7, 10, 16) else 'en') + f' --d {i}\n' for i, p in enumerate(PROMPTS, 1)]
    out.text('prompts.txt', ''.join(lines))
    out.report()


if __name__ == '__main__':
    main()
