#!/usr/bin/env python3
"""parity.py - compares `kiwame debug run` with PyTorch + diffusers/transformers, tensor by tensor.

  parity.py --kiwame build/kiwame --grad DIR...            each DIR: a model folder, or a folder of model folders
  parity.py --kiwame build/kiwame --dtype bf16 --grad DIR  half precision against PyTorch's own
  parity.py --self --grad DIR                              no binary: PyTorch with other kernels stands in for it
  parity.py --write-golden tests/golden/models DIR         inputs and expected values as files

Limits: outputs  |y - y*| <= 1e-5 |y*|      gradients  |g - g*| <= 1e-4 |g*| + 1e-6 |all gradients of that part|
        bf16     error <= 1.5 x the error of PyTorch's own bf16, both against f64 (outputs; all gradients as one vector)
* is PyTorch in the same precision (f32, f64); norms are L2. Exit status 1 when anything fails.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file

import reference

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64}
LIMITS = {"f32": (1e-5, 1e-4, 1e-6), "f64": (1e-10, 1e-9, 1e-11)}    # outputs, gradient, share of all gradients
BF16_RATIO = 1.5


def norm(t):
    return float(torch.linalg.vector_norm(t.double()))


def relative(x, y):
    return norm(x.double() - y.double()) / max(norm(y), 1e-300)


def split(values):
    """(outputs, gradients of parameters and inputs)"""
    return ({k: v for k, v in values.items() if not k.startswith("grad.")},
            {k: v for k, v in values.items() if k.startswith("grad.")})


def joined(values, keys):
    return torch.cat([values[k].double().flatten() for k in keys]) if keys else torch.zeros(1)


def missing(got, want):
    """What is absent or has another shape. Zero gradients of parameters outside the run may be present."""
    lines = [f"{k} is missing" for k in want if k not in got]
    lines += [f"{k} has shape {tuple(got[k].shape)}, not {tuple(want[k].shape)}" for k in want if k in got and got[k].shape != want[k].shape]
    for k in got:
        if k not in want and k.startswith("grad.") and norm(got[k]) > 0:
            lines.append(f"{k} is not zero but takes no part in this run")
    lines += [f"{k} is not finite" for k in got if not torch.isfinite(got[k].double()).all()]
    return lines


def compare_exact(got, want, limits):
    """Lines of failures, the worst output error, the worst gradient as a share of its limit, and that gradient's name."""
    lines = missing(got, want)
    if lines:
        return lines, math.nan, math.nan, ""
    outputs, grads = split(want)
    out_limit, grad_limit, share = limits
    worst_out = max(relative(got[k], outputs[k]) for k in outputs)
    lines += [f"{k}: relative error {relative(got[k], outputs[k]):.2e} > {out_limit:g}" for k in outputs
              if relative(got[k], outputs[k]) > out_limit]
    whole = math.sqrt(sum(norm(g) ** 2 for g in grads.values()))
    worst, name = 0.0, ""
    for k, g in grads.items():
        error, limit = norm(got[k].double() - g.double()), grad_limit * norm(g) + share * whole
        if error / max(limit, 1e-300) > worst:
            worst, name = error / max(limit, 1e-300), k
        if error > limit:
            lines.append(f"{k}: error {error:.2e} > {limit:.2e} (norm {norm(g):.2e}, all {whole:.2e})")
    return lines, worst_out, worst, name


def compare_bf16(got, own, truth):
    """Failures and the two ratios: error of outputs and of all gradients over that of PyTorch's bf16."""
    lines = missing(got, truth)
    if lines:
        return lines, math.nan, math.nan, ""
    ratios, text = [], []
    for part in split(truth):
        keys = sorted(part)
        if not keys:
            ratios.append(0.0)
            continue
        t = joined(truth, keys)
        mine, theirs = relative(joined(got, keys), t), relative(joined(own, keys), t)
        ratios.append(mine / max(theirs, 1e-300))
        text.append(f"{mine:.2e}/{theirs:.2e}")
        if ratios[-1] > BF16_RATIO:
            lines.append(f"{'gradients' if keys[0].startswith('grad.') else 'outputs'}: bf16 error {mine:.2e}, PyTorch's own {theirs:.2e}")
    return lines, ratios[0], ratios[1], " ".join(text)


def run_kiwame(binary, part, base, inputs, dtype, grad, work):
    """Outputs of the binary, or a string that says why there are none."""
    source, target = os.path.join(work, "in.safetensors"), os.path.join(work, "out.safetensors")
    save_file({k: v.contiguous() for k, v in inputs.items()}, source)
    if os.path.exists(target):
        os.remove(target)
    command = [binary, "debug", "run", part, "--base", base, "--in", source, "--out", target, "--dtype", dtype] + (["--grad"] if grad else [])
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).strip().splitlines()
        return f"exit {done.returncode}: {' | '.join(tail[-3:])}"
    return load_file(target)


def stand_in(part, module, names, inputs, dtype, grad):
    """PyTorch with oneDNN off and channels-last pictures: other kernels, another order of sums."""
    x = {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in inputs.items()}
    with torch.backends.mkldnn.flags(enabled=False):
        return reference.run(part, module, names, x, dtype, grad)


def shape_of_check(base, o):
    shape, group = {}, "core"
    path = os.path.join(base, "parity.json")
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as f:
            saved = json.load(f)
        shape, group = saved["inputs"], saved["group"]
    else:
        from configs import GOLDEN
        shape = GOLDEN.get(os.path.basename(base.rstrip("/")), {"inputs": {}})["inputs"]
    for key in ("batch", "height", "width", "tokens"):
        if getattr(o, key):
            shape = {**shape, key: getattr(o, key)}
    return shape, group


def expected(part, base, o, shape):
    """Inputs (with grad_output) and PyTorch's answers in the asked precision and in f64."""
    module, names, config = reference.load_part(base, part)
    inputs = reference.make_inputs(part, config, shape, o.seed)
    plain = reference.run(part, module, names, inputs, torch.float32, False)
    g = torch.Generator().manual_seed(o.seed + 1)
    if o.grad:
        inputs["grad_output"] = torch.randn(plain[reference.OUTPUT[part]].shape, generator=g)
        if part == "text2":
            inputs["grad_penultimate"] = torch.randn(plain["last_hidden_state"].shape, generator=g)
    answers = {"f32": reference.run(part, module, names, inputs, torch.float32, o.grad)}
    got = {}
    if o.self:
        got["f32"] = stand_in(part, module, names, inputs, torch.float32, o.grad)
    if "bf16" in o.dtypes:
        answers["bf16"] = reference.run(part, module, names, inputs, torch.bfloat16, o.grad)
        if o.self:
            got["bf16"] = stand_in(part, module, names, inputs, torch.bfloat16, o.grad)
        module, names, config = reference.load_part(base, part)
    answers["f64"] = reference.run(part, module, names, inputs, torch.float64, o.grad)
    if "f64" in o.dtypes and part == "unet":
        with reference.exact_time():
            answers["f64 exact time"] = reference.run(part, module, names, inputs, torch.float64, o.grad)
    return inputs, answers, got


def judge(got, dtype, answers):
    """Failures, output error, gradient error, remark. In f64 the time embedding may be f32 (as diffusers) or exact."""
    if isinstance(got, str):
        return [got], math.nan, math.nan, ""
    if dtype == "bf16":
        return compare_bf16(got, answers["bf16"], answers["f64"])
    result = compare_exact(got, answers[dtype], LIMITS[dtype])
    if dtype == "f64" and result[0] and "f64 exact time" in answers:
        result = min(result, compare_exact(got, answers["f64 exact time"], LIMITS[dtype]), key=lambda r: len(r[0]))
    return result


def write_golden(folder, part, base, inputs, truth):
    """config.json, the weights, in and out (f64 values rounded to f32) for tests that run without Python."""
    os.makedirs(folder, exist_ok=True)
    source = reference.part_folder(base, part)
    for file in ("config.json", reference.WEIGHTS[reference.kind(part)]):
        if os.path.abspath(os.path.join(source, file)) != os.path.abspath(os.path.join(folder, file)):
            shutil.copyfile(os.path.join(source, file), os.path.join(folder, file))
    stem = {"vae-encode": "encode-", "vae-decode": "decode-"}.get(part, "")
    save_file({k: v.contiguous() for k, v in inputs.items()}, os.path.join(folder, stem + "in.safetensors"))
    save_file({k: v.float().contiguous() for k, v in truth.items()}, os.path.join(folder, stem + "out.safetensors"))
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)


def check(name, base, part, o, work):
    """One line of the table per precision; returns the number of failures."""
    shape, group = shape_of_check(base, o)
    if o.group != "all" and group != o.group:
        return 0
    inputs, answers, stand_ins = expected(part, base, o, shape)
    own = compare_exact(answers["f32"], answers["f64"], LIMITS["f32"])
    if o.write_golden:
        write_golden(os.path.join(o.write_golden, name), part, base, inputs, answers["f64"])
    failures = 0
    for dtype in o.dtypes:
        start = time.monotonic()
        got = stand_ins.get(dtype, answers[dtype]) if o.self else run_kiwame(o.kiwame, part, base, inputs, dtype, o.grad, work)
        took = time.monotonic() - start
        lines, a, b, note = judge(got, dtype, answers)
        refused = group == "extra" and isinstance(got, str) and not got.startswith("exit -")
        verdict = "refused" if refused else "FAIL" if lines else "ok"
        torch_own = f"{own[1]:.1e} {own[2]:5.2f}"
        print(f"{name:22} {part:10} {dtype:4} {a:9.2e} {b:9.2e}  {torch_own}  {took:6.2f}  {verdict:7} {note}", flush=True)
        for line in lines[:o.lines]:
            print("    " + line)
        if len(lines) > o.lines:
            print(f"    ... and {len(lines) - o.lines} more")
        failures += bool(lines) and not refused
    if o.self and (own[0] or own[1] > 0.5 * LIMITS["f32"][0] or own[2] > 0.5):
        print(f"    this model is too ill-conditioned to judge by: PyTorch f32 against f64 {own[1]:.1e}, gradients {own[2]:.2f} of the limit {own[3]}")
        failures += 1
    return failures


def models_under(path):
    """(name, folder, parts) of a model folder, or of each model folder below."""
    parts = reference.parts_in(path)
    if parts:
        return [(os.path.basename(os.path.normpath(path)), path, parts)]
    below = sorted(e.path for e in os.scandir(path) if e.is_dir())
    found = [(os.path.basename(d), d, reference.parts_in(d)) for d in below]
    return [f for f in found if f[2]]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("models", nargs="+")
    a.add_argument("--kiwame", help="the binary")
    a.add_argument("--self", action="store_true")
    a.add_argument("--dtype", default="f32", help="f32, f64, bf16, comma separated")
    a.add_argument("--grad", action="store_true")
    a.add_argument("--part", help="only these parts, comma separated")
    a.add_argument("--only", help="only these models, comma separated")
    a.add_argument("--group", choices=("core", "extra", "all"), default="all")
    a.add_argument("--seed", type=int, default=7)
    for key in ("batch", "height", "width", "tokens"):
        a.add_argument("--" + key, type=int)
    a.add_argument("--write-golden", metavar="DIR")
    a.add_argument("--lines", type=int, default=8, help="failing tensors named per model")
    o = a.parse_args()
    o.dtypes = o.dtype.split(",")
    if not o.self and not o.kiwame:
        if not o.write_golden:
            a.error("--kiwame BIN or --self is needed")
        o.self = True
    if o.kiwame and not o.self and not shutil.which(o.kiwame):
        a.error(f"no program at {o.kiwame}")
    reference.quiet()
    print(f"{'model':22} {'part':10} {'':4} {'output':>9} {'gradient':>9}  {'torch f32':13}  {'s':>6}")
    print(f"{'':38} {'rel. L2':>9} {'/ limit':>9}  {'vs f64':13}      (bf16: ratios to PyTorch's own error)")
    failures = checked = 0
    with tempfile.TemporaryDirectory() as work:
        for path in o.models:
            for name, base, parts in models_under(path):
                for part in parts:
                    if (o.part and part not in o.part.split(",")) or (o.only and name not in o.only.split(",")):
                        continue
                    failures += check(name, base, part, o, work)
                    checked += 1
    print(f"{checked} parts checked, {failures} failures")
    sys.exit(1 if failures or not checked else 0)


if __name__ == "__main__":
    main()
