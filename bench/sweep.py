#!/usr/bin/env python3
"""sweep.py - does cost grow as the work does? One dimension at a time: pixels, batch, rank, cores.

    python3 bench/sweep.py --kiwame build/kiwame --model sd15 --pass lora
    python3 bench/sweep.py --kiwame build/kiwame --pass forward --only size --sizes 256,512,768,1024 --svg sweep.svg

Each point is `kiwame bench step --json` in a process of its own; --keep FILE notes it there as soon as it is measured,
and a later call takes what is in FILE instead of measuring it again. A step is named where the seconds for a FLOP change by
more than --step from one point to the next. Results are a Markdown table (and --page: between the markers
<!-- sweep PASS: begin --> and end of that page), and with --svg a drawing. Needs Python alone.
"""
import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    p.add_argument("--kiwame", default="build/kiwame")
    p.add_argument("--model", default="sd15")
    p.add_argument("--pass", dest="work", default="lora", choices=("forward", "lora", "full", "vae-encode", "vae-decode"))
    p.add_argument("--dtype", default="f32", choices=("f32", "bf16"))
    p.add_argument("--sizes", default="256,384,512,640,768,1024")
    p.add_argument("--batches", default="1,2,4,8")
    p.add_argument("--ranks", default="4,8,16,32,64,128")
    p.add_argument("--threads", default=",".join(str(1 << i) for i in range(10) if 1 << i <= (os.cpu_count() or 1)))
    p.add_argument("--base-size", default="256", help="pixels of a side where something else changes")
    p.add_argument("--only", default="size,batch,rank,threads")
    p.add_argument("--seconds", default="0")
    p.add_argument("--runs", default="3")
    p.add_argument("--runner", default="", help="put before each process")
    p.add_argument("--keep", type=pathlib.Path, help="points that were measured, one JSON object a line")
    p.add_argument("--step", type=float, default=0.15)
    p.add_argument("--page", type=pathlib.Path)
    p.add_argument("--svg", type=pathlib.Path)
    return p.parse_args()


def points(o):
    """(dimension, its value, options of bench step): one dimension moves, the others stay."""
    most = o.threads.split(",")[-1]
    for what, values in (("size", o.sizes), ("batch", o.batches), ("rank", o.ranks), ("threads", o.threads)):
        if what not in o.only.split(",") or (what == "rank" and o.work != "lora"):
            continue
        for v in values.split(","):
            at = {"size": o.base_size, "batch": "1", "rank": "16", "threads": most} | {what: v}
            yield what, v, at


def measure(o, at):
    command = [*shlex.split(o.runner), o.kiwame, "bench", "step", "--model", o.model, "--pass", o.work, "--dtype", o.dtype,
               "--size", f"{at['size']}x{at['size']}", "--batch", at["batch"], "--threads", at["threads"], "--seconds",
               o.seconds, "--runs", o.runs, "--json", *(["--rank", at["rank"]] if o.work == "lora" else [])]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        print(f"  {shlex.join(command)}: {(done.stderr.strip().splitlines() or ['?'])[0]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def known(o):
    """Points of earlier calls, by what decides them."""
    lines = o.keep.read_text().splitlines() if o.keep and o.keep.exists() else []
    return {tuple(sorted(p["at"].items())): p["result"] for p in map(json.loads, lines) if p["what"] == same(o)}


def same(o):
    return [o.model, o.work, o.dtype]


def point(o, at, before):
    """Measured, or known from an earlier call or another dimension of this one; None where it failed."""
    key = tuple(sorted(at.items()))
    if key not in before and (result := measure(o, at)):
        before[key] = result
        if o.keep:
            with o.keep.open("a") as f:
                f.write(json.dumps({"what": same(o), "at": at, "result": result}) + "\n")
    return before.get(key)


def rows(found, step):
    before = None
    for what, value, r in found:
        change, note = "", ""
        # against the peak of the same moment: a busy machine is no step
        cost = 1 / r["fraction"]
        if before and before[0] == what:
            change = cost / before[1] - 1
            note = f"**{100 * change:+.0f} %**" if abs(change) > step else f"{100 * change:+.0f} %"
        before = (what, cost)
        unsteady = "" if r["steady"] else " (peak moved)"
        yield (f"| {what} {value} | {r['tflop']:.3f} | {r['seconds']:.3f} | {1e3 * r['tflops']:.0f} "
               f"| {100 * r['fraction']:.0f} %{unsteady} | {note} | {1e-9 * r['rss_bytes']:.2f} |")


def table(o, found):
    lines = ["| " + f"{o.model} {o.work} {o.dtype}, {o.base_size}×{o.base_size} unless said | TFLOP | seconds | GFLOP/s "
             "| of the peak | cost of a FLOP, against the row before | GB |", "|---|---|---|---|---|---|---|"]
    return lines + list(rows(found, o.step))


def drawing(o, found):
    """Seconds over work, both logarithmic: a straight line of slope 1 is cost that grows as the work does."""
    from math import log10
    w, h, m = 640, 420, 60
    xs, ys = [log10(r["tflop"]) for _, _, r in found], [log10(r["seconds"]) for _, _, r in found]
    x0, x1, y0, y1 = min(xs) - 0.1, max(xs) + 0.1, min(ys) - 0.1, max(ys) + 0.1
    X = lambda v: m + (v - x0) / (x1 - x0) * (w - 2 * m)
    Y = lambda v: h - m - (v - y0) / (y1 - y0) * (h - 2 * m)
    colour = {"size": "#1b6", "batch": "#26c", "rank": "#c62", "threads": "#888"}
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="12">',
           f'<rect width="{w}" height="{h}" fill="white"/>',
           f'<text x="{w / 2}" y="{h - 15}" text-anchor="middle">useful TFLOP</text>',
           f'<text x="15" y="{h / 2}" transform="rotate(-90 15 {h / 2})" text-anchor="middle">seconds</text>']
    peak = max(r["peak_tflops"] for _, _, r in found)
    out.append(f'<line x1="{X(x0)}" y1="{Y(x0 - log10(peak))}" x2="{X(x1)}" y2="{Y(x1 - log10(peak))}" stroke="#bbb" '
               'stroke-dasharray="4"/>')
    for k, (what, value, r) in enumerate(found):
        x, y = X(xs[k]), Y(ys[k])
        if k and found[k - 1][0] == what:
            out.append(f'<line x1="{X(xs[k - 1]):.1f}" y1="{Y(ys[k - 1]):.1f}" x2="{x:.1f}" y2="{y:.1f}" '
                       f'stroke="{colour[what]}"/>')
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour[what]}"/><text x="{x + 6:.1f}" y="{y + 4:.1f}" '
                   f'fill="{colour[what]}">{what} {value}</text>')
    return "\n".join([*out, "</svg>", ""])


def put(page, name, lines):
    text, start, end = page.read_text(), f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if start not in text or end not in text:
        sys.exit(f"{page} has no markers {start} ... {end}")
    page.write_text(text[:text.index(start) + len(start)] + "\n" + "\n".join(lines) + "\n" + text[text.index(end):])


def main():
    o = options()
    found, before = [], known(o)
    for what, value, at in points(o):
        r = point(o, at, before)
        if r:
            found.append((what, value, r))
            print(f"{what} {value}: {r['seconds']:.3f} s, {100 * r['fraction']:.0f} % of the peak", file=sys.stderr)
    if not found:
        sys.exit("nothing could be measured")
    lines = table(o, found)
    print("\n".join(lines))
    if o.page:
        put(o.page, f"sweep {o.work}", lines)
    if o.svg:
        o.svg.write_text(drawing(o, found))


if __name__ == "__main__":
    main()
