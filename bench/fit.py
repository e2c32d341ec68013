#!/usr/bin/env python3
"""fit.py - the table of src/run/forecast.c from measurements: what a FLOP, a byte and a node of each class cost.

    for c in ...; do kiwame bench step --json --top 1000 ... >> points.jsonl; done
    python3 bench/fit.py points.jsonl

Each class of nodes: seconds x peak = FLOPs / share + cost x bytes + start x nodes; no coefficient below 0, errors
relative to each configuration's whole, so that small models count as much as large ones (a line that is there twice
counts twice). Prints the rows, then how far each configuration's sum is from what was measured. Needs Python alone.
"""
import json
import sys
from collections import defaultdict


def solve(rows, least):
    """min sum w (y - x.b)^2, b >= 0 and b[0] >= least, three unknowns: coordinate descent."""
    b = [least, 0.0, 0.0]
    a = [[sum(w * x[i] * x[j] for x, _, w in rows) for j in range(3)] for i in range(3)]
    c = [sum(w * x[i] * y for x, y, w in rows) for i in range(3)]
    for _ in range(20000):
        for i in range(3):
            if a[i][i] > 0:
                b[i] = max(0.0 if i else least, (c[i] - sum(a[i][j] * b[j] for j in range(3) if j != i)) / a[i][i])
    return b


def places(p):
    """Nodes by place; the packing of weights without a kept copy is one of them."""
    for f in p["breakdown"]:
        if f["family"] == "pack" and f["bytes"]:
            yield {"class": "pack", "gflop": 0, "count": f["ops"][0]["count"], "bytes": f["bytes"], "seconds": f["seconds"]}
    yield from p["places"]


def main():
    points = [json.loads(line) for path in sys.argv[1:] for line in open(path) if line.strip()]
    kinds = defaultdict(list)
    for p in points:
        peak, whole = 1e12 * p["peak_tflops"], p["seconds"]
        p["usual"] = usual = whole / sum(f["seconds"] for f in p["breakdown"])       # places are means, the whole a median
        for q in places(p):
            if q["class"] and q["seconds"] > 0:
                kinds[q["class"]].append(((1e9 * q["gflop"], q["bytes"], q["count"]), q["seconds"] * usual * peak,
                                          (whole * peak) ** -2))
    fitted = {}
    for kind, rows in sorted(kinds.items()):
        # Winograd's convolutions need half of the products, nothing else less than all
        fitted[kind] = b = solve(rows, 0.5 if kind in ("conv", "conv-dw") else 1.0)
        name = "[" + kind.upper().replace("-", "_") + "]"
        print(f'    {name} = {{ "{kind}", {1 / b[0]:.3g}, {b[1]:.3g}, {b[2]:.2g} }},')
    print()
    for p in points:
        peak = 1e12 * p["peak_tflops"]
        sums, took = 0.0, 0.0
        for q in places(p):
            if q["class"]:
                b = fitted.get(q["class"], [0] * 3)
                sums += (b[0] * 1e9 * q["gflop"] + b[1] * q["bytes"] + b[2] * q["count"]) / peak
                took += q["seconds"] * p["usual"]
        rest = p["seconds"] - took
        print(f'{p["model"].split("/")[-1]} {p["pass"]} {p["width"]} b{p["batch"]} {p["dtype"]}: nodes {took:.4f} s, fitted {sums:.4f} '
              f'({100 * (sums / took - 1):+.0f} %), besides {rest:.4f} ({100 * rest / p["seconds"]:.0f} %); '
              f'{"steady" if p["steady"] else "peak moved"}')


if __name__ == "__main__":
    main()
