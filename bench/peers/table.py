"""table.py - the figures of peers.py as Markdown, between the markers of docs/PERFORMANCE.md."""
import json

# Settings that keep adapters, masters and moments in f32, as ours do; the others are shown beside.
HONEST = lambda work, setting: work not in ("lora", "full") or not setting.startswith("all-")
NAMES = {"forward": "U-Net forward", "lora": "LoRA r{rank} step", "full": "full step", "vae-encode": "VAE encode",
         "vae-decode": "VAE decode", "sample": "sampling step, guided"}


def newest(path):
    """The last line of each kind of work."""
    found = {}
    if path.exists():
        for line in path.read_text().splitlines():
            r = json.loads(line)
            key = (r["kind"], r["machine"]["cpu"], r["model"], r["work"], r["size"], r.get("dtype"), r["batch"])
            if key in found and r["kind"] == "ratio":          # a later run of further settings adds to it
                r["theirs"] = found[key]["theirs"] | r["theirs"]
            found[key] = r
    return list(found.values())


def share(r, of):
    """Of the peak, by the useful work of ours: the same work."""
    peak = of.get("peak_tflops")
    return f"{100 * r['ours']['tflop'] / of['seconds'] / peak:.0f} %" if peak else ""


def gb(n):
    return f"{n * 1e-9:.2f}" if n else ""


def name_of(r):
    size = r["size"].replace("x", "×") + (f", batch {r['batch']}" if r["batch"] > 1 else "")
    return f"{NAMES[r['work']].format(rank=r.get('rank'))}, {size}, {r['model']}"


def row(r, setting, note):
    ours, them = r["ours"], r["theirs"][setting]
    memory = f"{ours['rss_bytes'] / them['rss_bytes']:.2f}" if them.get("rss_bytes") else ""
    return (f"| {name_of(r)} | {r['dtype']} {ours['seconds']:.2f} s | {share(r, ours)} | {gb(ours['rss_bytes'])} "
            f"| {setting}{note} {them['seconds']:.2f} s | {share(r, them)} | {gb(them.get('rss_bytes'))} "
            f"| **{them['seconds'] / ours['seconds']:.2f}×** | {memory} |")


def rows(r):
    """The best like with like, then the best of the others if faster, then stable-diffusion.cpp."""
    torch = {k: v for k, v in r["theirs"].items() if k != "sd.cpp"}
    honest = [k for k in torch if HONEST(r["work"], k)]
    other = [k for k in torch if not HONEST(r["work"], k)]
    by_time = lambda k: torch[k]["seconds"]
    if honest:
        yield row(r, min(honest, key=by_time), "")
    if other:
        yield row(r, min(other, key=by_time), "")
    if "sd.cpp" in r["theirs"]:
        yield row(r, "sd.cpp", "")


def ratios(found):
    lines = []
    for cpu in sorted({r["machine"]["cpu"] for r in found if r["kind"] == "ratio"}):
        of = [r for r in found if r["kind"] == "ratio" and r["machine"]["cpu"] == cpu]
        order = list(NAMES)
        of.sort(key=lambda r: (r["model"], order.index(r["work"]), int(r["size"].split("x")[0]), r["dtype"]))
        versions = next((t["versions"] for r in of for t in r["theirs"].values() if "versions" in t), {})
        lines += [f"{cpu}, {of[0]['ours']['threads']} threads, {of[0]['ours']['isa']}; "
                  + ", ".join(f"{k} {v}" for k, v in versions.items() if v) + f"; {max(r['time'] for r in of)[:10]}.", ""]
        lines += ["| work | Kiwame | of the peak | GB | theirs, best setting | of the peak | GB | faster | memory, ours "
                  "÷ theirs |", "|---|---|---|---|---|---|---|---|---|"]
        lines += [line for r in of for line in rows(r)]
        lines += ["", *families(of)]
    return lines


def families(of):
    """Where both spend their time, for work that was profiled."""
    lines = []
    for r in of:
        them = {k: v for k, v in r["theirs"].items() if "families" in v and HONEST(r["work"], k)}
        if not them:
            continue
        setting = min(them, key=lambda k: them[k]["seconds"])
        theirs = them[setting]["families"]
        ours = {f["family"]: f["seconds"] for f in r["ours"]["breakdown"]}
        lines += [f"{name_of(r)}, seconds by family: Kiwame {r['dtype']}, PyTorch {setting} (its self time under the "
                  "profiler).", "", "| | Kiwame | PyTorch |", "|---|---|---|"]
        for k in sorted(ours | theirs, key=lambda k: -max(ours.get(k, 0), theirs.get(k, 0))):
            lines.append(f"| {k} | {ours.get(k, 0):.3f} | {theirs.get(k, 0):.3f} |")
        lines.append("")
    return lines


def all_settings(found):
    """Every setting that was run, so that 'best' can be checked."""
    lines = ["| work | ours | " + "theirs, by setting |", "|---|---|---|"]
    for r in found:
        if r["kind"] == "ratio":
            every = sorted(r["theirs"].items(), key=lambda x: x[1]["seconds"])
            lines.append(f"| {name_of(r)} | {r['dtype']} {r['ours']['seconds']:.2f} s | "
                         + ", ".join(f"{k} {v['seconds']:.2f} s / {gb(v.get('rss_bytes'))} GB" for k, v in every) + " |")
    return lines


def gpus(found):
    lines = []
    for r in [r for r in found if r["kind"] == "gpu"]:
        if not lines:
            lines = ["| GPU | work | best setting | seconds | GB on the device |", "|---|---|---|---|---|"]
        for k, v in sorted(r["theirs"].items(), key=lambda x: x[1]["seconds"])[:1]:
            lines.append(f"| {v['device_name']} | {name_of(r)} | {k} | {v['seconds']:.4f} | {gb(v['device_bytes'])} |")
    return lines or ["*Not measured yet: no machine with a GPU was at hand.*"]


def between(text, name, lines):
    start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if start not in text or end not in text:
        raise SystemExit(f"the page has no markers {start} ... {end}")
    return text[:text.index(start) + len(start)] + "\n" + "\n".join(lines) + "\n" + text[text.index(end):]


def write(results, page):
    found, text = newest(results), page.read_text()
    for name, lines in (("peers", ratios(found)), ("settings", all_settings(found)), ("gpu", gpus(found))):
        text = between(text, name, lines)
    page.write_text(text)
