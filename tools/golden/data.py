"""Golden values of the data layer: aspect buckets, order of batches.

    python3 tools/golden/data.py        writes tests/golden/data/buckets.txt and order.txt

The rule is kohya's sd-scripts' (make_bucket_resolutions, select_bucket), written here anew from its description with
numpy's argmin and Python's doubles. VECTORS are lists which that project's own function printed; they must agree.
Lines:  rule W H MIN MAX STEP NO_UPSCALE
        list N  WxH ...
        pick PICTURE_W PICTURE_H  SCALED_W SCALED_H  BUCKET_W BUCKET_H

order.txt: epoch 1 of 7 pictures of 640 x 640..646 with 3 repeats and 4 of 960 x 640..643, batch 4, seed 42, flips and
random crops, from Philox4x32-10 as the paper has it. Lines: "id flip crop_x crop_y" for each sample, in order.
"""
import math
import pathlib
import random

import numpy as np

VECTORS = {
    (512, 256, 1024, 64): "256x832 256x896 256x960 256x1024 320x704 320x768 384x640 448x576 512x512",
    (768, 256, 1024, 64): "256x1024 320x1024 384x1024 448x1024 512x1024 576x960 576x1024 640x896 704x832 768x768",
    (1024, 512, 2048, 64): "512x1856 512x1920 512x1984 512x2048 576x1664 576x1728 576x1792 640x1536 640x1600 704x1408 "
                           "704x1472 768x1280 768x1344 832x1216 896x1152 960x1088 1024x1024",
}
COUNTS = {(512, 256, 1024, 64): 17, (768, 256, 1024, 64): 19, (1024, 256, 1024, 64): 25, (1024, 256, 2048, 64): 41,
          (1024, 512, 2048, 64): 33}


def resolutions(w, h, low, high, step):
    found = set()
    side = int(math.sqrt(w * h) // step) * step
    found.add((side, side))
    width = low
    while width <= high:
        height = min(high, int((w * h // width) // step) * step)
        if height >= low:
            found.update({(width, height), (height, width)})
        width += step
    return sorted(found)


def covered(sizes, w, h):
    ratio = w / h
    if (w, h) in set(sizes):
        bucket = (w, h)
    else:
        bucket = sizes[int(np.abs(np.array([a / b for a, b in sizes]) - ratio).argmin())]
    scale = bucket[1] / h if ratio > bucket[0] / bucket[1] else bucket[0] / w
    return (int(w * scale + 0.5), int(h * scale + 0.5)), bucket


def kept(area, step, w, h):
    def steps(x):
        x = int(x + 0.5)
        return x - x % step
    ratio = w / h
    size = (w, h)
    if w * h > area:
        wide = math.sqrt(area * ratio)
        high = area / wide
        w1 = steps(wide)
        h1 = steps(w1 / ratio)
        h2 = steps(high)
        w2 = steps(h2 * ratio)
        if abs(w1 / h1 - ratio) < abs(w2 / h2 - ratio):
            size = (w1, int(w1 / ratio + 0.5))
        else:
            size = (int(h2 * ratio + 0.5), h2)
    return size, (size[0] - size[0] % step, size[1] - size[1] % step)


def philox(key, counter):
    a, b, c, d = counter
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        x, y = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (y >> 32) ^ b ^ k0, y & 0xFFFFFFFF, (x >> 32) ^ d ^ k1, x & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


SHUFFLE, CROP, FLIP = 7, 8, 9


def word64(seed, stream, step, sample, i):
    w = philox(seed, (i // 2, sample, step, stream))
    return w[i % 2 * 2] << 32 | w[i % 2 * 2 + 1]


def permuted(seed, step, sample, n):
    order = list(range(n))
    for i in range(n, 1, -1):
        j = word64(seed, SHUFFLE, step, sample, n - i) * i >> 64
        order[j], order[i - 1] = order[i - 1], order[j]
    return order


def order(seed=42, epoch=1, batch=4):
    sizes = resolutions(512, 512, 256, 1024, 64)
    pictures = [(640, 640 + i, 3) for i in range(7)] + [(960, 640 + i, 1) for i in range(4)]
    samples = [(covered(sizes, w, h)) for w, h, n in pictures for _ in range(n)]
    batches = []
    for number, bucket in enumerate(sorted({b for _, b in samples})):
        ids = [i for i, (_, b) in enumerate(samples) if b == bucket]
        ids = [ids[k] for k in permuted(seed, epoch, number, len(ids))]
        batches += [ids[i:i + batch] for i in range(0, len(ids), batch)]
    for k in permuted(seed, epoch, 0xFFFFFFFF, len(batches)):
        for i in batches[k]:
            (sw, sh), (w, h) = samples[i]
            flip = philox(seed, (0, i, epoch, FLIP))[0] >> 31
            x = word64(seed, CROP, epoch, i, 0) * (sw - w + 1) >> 64
            y = word64(seed, CROP, epoch, i, 1) * (sh - h + 1) >> 64
            yield f"{i} {flip} {x} {y}"


def main():
    (pathlib.Path(__file__).parents[2] / "tests/golden/data/order.txt").write_text("\n".join(order()) + "\n")
    rng = random.Random(7)
    lines = []
    rules = [(r, r, lo, hi, s, 0) for r, lo, hi, s in COUNTS] + [
        (128, 128, 64, 256, 32, 0), (256, 256, 128, 512, 64, 0), (768, 512, 256, 1024, 64, 0),
        (512, 512, 256, 1024, 64, 1), (1024, 1024, 256, 1024, 32, 1)]
    for w, h, low, high, step, keep in rules:
        sizes = resolutions(w, h, low, high, step)
        assert len(sizes) == COUNTS.get((w, low, high, step), len(sizes)) or w != h
        names = [f"{a}x{b}" for a, b in sizes]
        for name in (VECTORS.get((w, low, high, step), "") if w == h else "").split():
            a, b = name.split("x")
            assert name in names and f"{b}x{a}" in names
        lines.append(f"rule {w} {h} {low} {high} {step} {keep}")
        if not keep:
            lines.append(f"list {len(sizes)} " + " ".join(names))
        pictures = [(1, 1), (512, 512), (1024, 704), (1536, 1024), (3000, 2000), (2000, 3000), (4032, 3024), (1920, 1080)]
        pictures += [(rng.randint(200, 3000), rng.randint(200, 3000)) for _ in range(60)]
        pictures += [s for s in sizes[:4]] + [(s[0] * 2, s[1] * 2) for s in sizes[-3:]] + [(300, 301), (2000, 400), (1, 1)][:2]
        for a, b in pictures:
            if min(a, b) < step or max(a, b) > 6 * min(a, b):
                continue
            (sw, sh), (bw, bh) = kept(w * h, step, a, b) if keep else covered(sizes, a, b)
            lines.append(f"pick {a} {b} {sw} {sh} {bw} {bh}")
    path = pathlib.Path(__file__).parents[2] / "tests/golden/data/buckets.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(len(lines), "lines")


main()
