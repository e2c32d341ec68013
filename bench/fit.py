#!/usr/bin/env python3
"""fit.py - the table of src/run/forecast.c from measurements: what a FLOP, a byte and a node of each class cost.

    for c in ...; do kiwame bench step --json --top 1000 ... >> team.jsonl; done         two threads
    for c in ...; do kiwame bench step --json --top 1000 --threads 1 ... >> alone.jsonl; done
    python3 bench/fit.py team.jsonl alone.jsonl

Each class of nodes: seconds x peak = FLOPs / share + cost x bytes + start x nodes; no coefficient below 0. All classes
at once, since two kinds of errors count: each class's in each configuration, and each configuration's sum; both
relative to the configuration's whole, so that small models count as much as large ones. Prints the rows, then how far
each configuration's sum is from what was measured. Needs Python alone.
"""
import json
import sys

SUMS = 0.1                                # what a configuration's sum counts beside its classes: more fits noise
FASTER = ("conv", "conv-dw", "linear-codes")     # Winograd needs half of the products, whole numbers are quicker


def places(p):
    """Nodes by place; the packing of weights without a kept copy is one of them."""
    for f in p["breakdown"]:
        if f["family"] == "pack" and f["bytes"]:
            yield {"class": "pack", "gflop": 0, "count": f["ops"][0]["count"], "bytes": f["bytes"], "seconds": f["seconds"]}
    yield from (q for q in p["places"] if q["class"])


class Squares:
    """min sum w (y - x.b)^2, b >= least: normal equations, coordinate descent."""

    def __init__(self, n):
        self.a = [[0.0] * n for _ in range(n)]
        self.c = [0.0] * n

    def add(self, row, y, w):
        for i, x in row.items():
            self.c[i] += w * x * y
            for j, z in row.items():
                self.a[i][j] += w * x * z

    def solve(self, least):
        b, n = list(least), len(least)
        for _ in range(5000):
            for i in range(n):
                if self.a[i][i] > 0:
                    step = self.c[i] - sum(self.a[i][j] * b[j] for j in range(n))
                    b[i] = max(least[i], b[i] + step / self.a[i][i])
        return b


def row_of(q, at):
    return {at: 1e9 * q["gflop"], at + 1: q["bytes"], at + 2: q["count"]}


def fit(points):
    """{class: (FLOPs for a FLOP, for a byte, for a node)}"""
    kinds = sorted({q["class"] for p in points for q in places(p)})
    at = {k: 3 * i for i, k in enumerate(kinds)}
    squares = Squares(3 * len(kinds))
    for p in points:
        peak, whole = 1e12 * p["peak_tflops"], p["seconds"]
        usual = whole / sum(f["seconds"] for f in p["breakdown"])      # places are means, the whole a median
        total = {}
        for q in places(p):
            row = row_of(q, at[q["class"]])
            squares.add(row, q["seconds"] * usual * peak, (whole * peak) ** -2)
            for i, x in row.items():
                total[i] = total.get(i, 0) + x
        squares.add(total, whole * peak, SUMS * (whole * peak) ** -2)
    b = squares.solve([x for k in kinds for x in (0.5 if k in FASTER else 1.0, 0.0, 0.0)])
    return {k: b[at[k]:at[k] + 3] for k in kinds}


def show(points, rates):
    for p in points:
        sums = sum(b[0] * 1e9 * q["gflop"] + b[1] * q["bytes"] + b[2] * q["count"]
                   for q in places(p) for b in [rates[q["class"]]])
        off = sums / (1e12 * p["peak_tflops"]) / p["seconds"] - 1
        print(f'{p["model"].split("/")[-1]} {p["pass"]} {p["width"]}x{p["height"]} b{p["batch"]} {p["dtype"]} '
              f'threads {p["threads"]}: '
              f'{p["seconds"]:.4f} s, {100 * off:+.0f} % ({"steady" if p["steady"] else "peak moved"})')


def main():
    points = [[json.loads(line) for line in open(path) if line.strip()] for path in sys.argv[1:3]]
    rates = [fit(p) for p in points]
    for kind in rates[0]:
        name = "[" + kind.upper().replace("-", "_") + "]"
        cells = ", ".join("{ %.3g, %.3g, %.2g }" % (1 / r[kind][0], r[kind][1], r[kind][2]) for r in rates)
        print(f'    {name} = {{ "{kind}", {{ {cells} }} }},')
    print()
    for p, r in zip(points, rates):
        show(p, r)


if __name__ == "__main__":
    main()
