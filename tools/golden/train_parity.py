#!/usr/bin/env python3
"""train_parity.py - follows `kiwame debug train` with PyTorch + PEFT, AdamW: every loss and the final weights.

  train_parity.py --kiwame build/kiwame PIPES           PIPES: the folder `make_models.py --pipelines` wrote
  train_parity.py --kiwame build/kiwame --only lora-all,full-vae PIPES
  train_parity.py --self PIPES                          no binary: PyTorch with other kernels stands in for it
  train_parity.py --list

Limits: every loss within 1e-4 relative; final weights within 1e-3 relative L2, over all trained tensors together and for
each tensor. Judged only in the sum: key biases, which have no gradient (Adam turns its rounding noise into steps), and
tensors on which PyTorch's own f32 and f64 runs do not agree to a quarter of that. README.md states what each option means.
"""
import argparse
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
import training

LOSS_LIMIT, WEIGHT_LIMIT = 1e-4, 1e-3       # --strict takes a tenth of both
KEY_BIASES = (".k_proj.bias", ".to_k.bias", ".key.bias")

LORA = dict(method="lora", rank=4, alpha=2, learning_rate=2e-3)
FULL = dict(method="full", part="unet", learning_rate=1e-3)
ALL = "attention,ff,conv,text"
CASES = {
    # base, options of `debug train`, and how the case is set up (b: start from a random B, scale: of the batches)
    "lora-attention": ("pipe-eps", {**LORA, "targets": "attention"}, {}),
    "lora-attention-v": ("pipe-v", {**LORA, "targets": "attention"}, {}),
    "lora-random-b": ("pipe-eps", {**LORA, "targets": "attention", "rank": 3, "alpha": 3}, {"b": True}),
    "lora-ff": ("pipe-eps", {**LORA, "targets": "attention,ff"}, {}),
    "lora-ff-linear-proj": ("pipe-v", {**LORA, "targets": "attention,ff", "rank": 2, "alpha": 1}, {"b": True}),
    "lora-conv": ("pipe-eps", {**LORA, "targets": "attention,ff,conv"}, {}),
    "lora-text": ("pipe-eps", {**LORA, "targets": "attention,text"}, {}),
    "lora-text-only": ("pipe-v", {**LORA, "targets": "text"}, {"b": True}),
    "lora-all": ("pipe-v", {**LORA, "targets": ALL, "weight_decay": 0.1}, {"b": True}),
    "lora-min-snr": ("pipe-eps", {**LORA, "targets": "attention", "min_snr_gamma": 5}, {}),
    "lora-min-snr-v": ("pipe-v", {**LORA, "targets": "attention", "min_snr_gamma": 5}, {}),
    "lora-min-snr-zero": ("pipe-zero-snr", {**LORA, "targets": ALL, "min_snr_gamma": 5}, {"zero_time": True}),
    "lora-accumulate": ("pipe-eps", {**LORA, "targets": "attention", "gradient_accumulation_steps": 3}, {}),
    "lora-clip": ("pipe-eps", {**LORA, "targets": ALL, "alpha": 32, "max_grad_norm": 1.0}, {"b": True, "scale": 3.0}),
    "lora-cosine": ("pipe-eps", {**LORA, "targets": "attention", "lr_scheduler": "cosine", "lr_warmup_steps": 5}, {}),
    "lora-linear": ("pipe-v", {**LORA, "targets": "attention", "lr_scheduler": "linear", "lr_warmup_steps": 5}, {}),
    "lora-constant-warmup": ("pipe-eps", {**LORA, "targets": "attention", "lr_warmup_steps": 5}, {}),
    "lora-linear-no-warmup": ("pipe-eps", {**LORA, "targets": "attention", "lr_scheduler": "linear"}, {}),
    "lora-everything": ("pipe-v", {**LORA, "targets": ALL, "min_snr_gamma": 5, "gradient_accumulation_steps": 3, "max_grad_norm": 0.05,
                                   "lr_scheduler": "cosine", "lr_warmup_steps": 5}, {"b": True}),
    "lora-sd21": ("pipe-sd21", {**LORA, "targets": ALL}, {"b": True}),
    "lora-xl": ("pipe-sdxl", {**LORA, "targets": "attention,ff,conv"}, {"b": True}),
    "lora-xl-text": ("pipe-sdxl-v", {**LORA, "targets": ALL, "min_snr_gamma": 5}, {"b": True}),
    "lora-ssd": ("pipe-ssd", {**LORA, "targets": ALL}, {"b": True}),
    "lora-inpaint": ("pipe-inpaint", {**LORA, "targets": ALL}, {"b": True}),
    "lora-xl-inpaint": ("pipe-sdxl-inpaint", {**LORA, "targets": "attention,ff,conv"}, {"b": True}),
    "full-inpaint": ("pipe-inpaint", FULL, {}),
    "full-xl-inpaint": ("pipe-sdxl-inpaint", FULL, {}),
    "full-xl-unet-text": ("pipe-sdxl", {**FULL, "part": "unet,text"}, {}),
    "full-sd21": ("pipe-sd21", FULL, {}),
    "full-unet": ("pipe-eps", FULL, {}),
    "full-unet-v": ("pipe-v", {**FULL, "weight_decay": 0.5}, {}),
    "full-unet-no-decay": ("pipe-zero-snr", {**FULL, "weight_decay": 0.0}, {}),
    "full-unet-min-snr": ("pipe-eps", {**FULL, "min_snr_gamma": 5}, {}),
    "full-unet-min-snr-v": ("pipe-v", {**FULL, "min_snr_gamma": 5}, {}),
    "full-unet-accumulate": ("pipe-eps", {**FULL, "gradient_accumulation_steps": 3}, {}),
    "full-unet-clip": ("pipe-eps", {**FULL, "max_grad_norm": 1.0}, {"scale": 3.0}),
    "full-unet-cosine": ("pipe-v", {**FULL, "lr_scheduler": "cosine", "lr_warmup_steps": 5}, {}),
    "full-text": ("pipe-eps", {**FULL, "part": "text", "learning_rate": 3e-3}, {}),
    "full-text-v-clip": ("pipe-v", {**FULL, "part": "text", "learning_rate": 4e-3, "max_grad_norm": 0.02, "lr_scheduler": "cosine", "lr_warmup_steps": 5}, {}),
    "full-unet-text": ("pipe-v", {**FULL, "part": "unet,text"}, {}),
    "full-vae": ("pipe-eps", {**FULL, "part": "vae", "learning_rate": 5e-4}, {}),
    "full-vae-sampled": ("pipe-v", {**FULL, "part": "vae"}, {"posterior": True}),
    "full-vae-everything": ("pipe-zero-snr", {**FULL, "part": "vae", "gradient_accumulation_steps": 3, "max_grad_norm": 0.2,
                                              "lr_scheduler": "cosine", "lr_warmup_steps": 5}, {"posterior": True}),
}


def weights(tensors):
    return [k for k in tensors if k != "loss" and not k.endswith(".alpha")]


def distance(x, y, keys):
    """Relative L2 distance of two sets of tensors."""
    top = sum(float((x[k].double() - y[k].double()).square().sum()) for k in keys)
    return math.sqrt(top / max(sum(float(y[k].double().square().sum()) for k in keys), 1e-300))


def command_of(binary, base, options, files, steps):
    args = [binary, "debug", "train", "--base", base, "--batches", files["batches"], "--steps", str(steps), "--out", files["out"]]
    for key, value in options.items():
        args += ["--" + key.replace("_", "-"), str(value)]
    return args + (["--init", files["init"]] if options["method"] == "lora" else [])


def run_kiwame(binary, base, options, batches, init, steps, work, show):
    files = {k: os.path.join(work, k + ".safetensors") for k in ("batches", "init", "out")}
    save_file({k: v.contiguous() for k, v in batches.items()}, files["batches"])
    if init:
        save_file({k: v.contiguous() for k, v in init.items()}, files["init"])
    if os.path.exists(files["out"]):
        os.remove(files["out"])
    args = command_of(binary, base, options, files, steps)
    if show:
        print("    " + " ".join(args))
    done = subprocess.run(args, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        return f"exit {done.returncode}: {' | '.join((done.stderr or done.stdout).strip().splitlines()[-3:])}"
    return load_file(files["out"])


def compare(got, want, start, noisy):
    """Failure lines, worst loss error, error of all weights, worst tensor's error and name."""
    lines = [f"{k} is missing" for k in want if k not in got] + [f"{k} is not expected" for k in got if k not in want]
    lines += [f"{k} has shape {tuple(got[k].shape)}, not {tuple(want[k].shape)}" for k in want if k in got and got[k].shape != want[k].shape]
    if lines:
        return lines, math.nan, math.nan, math.nan, ""
    ratio = ((got["loss"].double() - want["loss"].double()).abs() / want["loss"].double().abs()).tolist()
    lines += [f"loss {i}: {float(got['loss'][i]):.7g}, not {float(want['loss'][i]):.7g} ({r:.1e})" for i, r in enumerate(ratio) if not r <= LOSS_LIMIT]
    lines += [f"{k} is {float(got[k])}, not {float(want[k])}" for k in want if k.endswith(".alpha") and float(got[k]) != float(want[k])]
    keys = weights(want)
    whole = distance(got, want, keys)
    each = {k: distance(got, want, [k]) for k in keys if k not in noisy}
    worst = max(each, key=each.get)
    if not whole <= WEIGHT_LIMIT:
        lines.append(f"all weights: {whole:.2e} > {WEIGHT_LIMIT:g}")
    lines += [f"{k}: {e:.2e} > {WEIGHT_LIMIT:g}" for k, e in each.items() if not e <= WEIGHT_LIMIT]
    return lines, max(ratio), whole, each[worst], worst


def check(name, o, work):
    pipe, options, setup = CASES[name]
    base = os.path.join(o.pipes, pipe)
    init = training.lora_start(base, options, setup, o.seed)
    batches = training.make_batches(base, options, setup, o.steps, o.seed)
    want, start, norms = training.train(base, options, batches, init, o.steps, torch.float32)
    if "max_grad_norm" in options and options["max_grad_norm"] > max(norms):      # with these widths no step is clipped: half of them shall be
        options = {**options, "max_grad_norm": float(f"{sorted(norms)[len(norms) // 2]:.2g}")}
        want, start, norms = training.train(base, options, batches, init, o.steps, torch.float32)
    truth, _, _ = training.train(base, options, batches, init, o.steps, torch.float64)
    keys = weights(want)
    noisy = {k for k in keys if distance(want, truth, [k]) > WEIGHT_LIMIT / 4 or k.endswith(KEY_BIASES)}
    own_loss = float(((want["loss"] - truth["loss"]).abs() / truth["loss"]).max())
    own = distance(want, truth, keys)
    moved = distance(start, want, keys)
    clipped = sum(n > options.get("max_grad_norm", math.inf) for n in norms)
    begin = time.monotonic()
    if o.self:
        with torch.backends.mkldnn.flags(enabled=False):
            got = training.train(base, options, batches, init, o.steps, torch.float32, channels_last=True)[0]
    else:
        got = run_kiwame(o.kiwame, base, options, batches, init, o.steps, work, o.show)
    took = time.monotonic() - begin
    lines, loss, whole, worst, where = ([got], *[math.nan] * 3, "") if isinstance(got, str) else compare(got, want, start, noisy)
    if options.get("max_grad_norm") and not clipped:
        lines.append("this case clips no step: it checks nothing")
    if moved < 1e-2:
        lines.append(f"weights moved only {moved:.1e}: this case checks nothing")
    if own_loss > 5e-5 or own > 5e-4:
        lines.append("PyTorch f32 and f64 differ too much to judge by")
    print(f"{name:22} {loss:9.1e} {whole:9.1e} {worst:9.1e}  {own_loss:8.1e} {own:8.1e} {len(noisy):3}  {moved:6.1%} {clipped:3}  {took:6.1f}  "
          f"{'FAIL' if lines else 'ok':4} {where}", flush=True)
    for line in lines[:o.lines]:
        print("    " + line)
    if o.show:
        print(f"    gradient norms {min(norms):.2e} to {max(norms):.2e}")
    if o.show and noisy:
        print("    judged in the sum only: " + ", ".join(sorted(noisy)))
    return bool(lines)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("pipes", nargs="?")
    a.add_argument("--kiwame", help="the binary")
    a.add_argument("--self", action="store_true")
    a.add_argument("--only", help="cases, comma separated; a prefix such as lora- or full- selects its cases")
    a.add_argument("--strict", action="store_true", help="limits of 1e-5 and 1e-4: near what f32 can show")
    a.add_argument("--steps", type=int, default=20)
    a.add_argument("--seed", type=int, default=11)
    a.add_argument("--lines", type=int, default=8, help="failing values named per case")
    a.add_argument("--show", action="store_true", help="print the commands")
    a.add_argument("--list", action="store_true")
    o = a.parse_args()
    if o.list:
        print("\n".join(f"{n:22} {c[0]:14} {c[1]} {c[2] or ''}" for n, c in CASES.items()))
        return
    if not o.pipes or not (o.self or o.kiwame):
        a.error("the folder of pipelines, and --kiwame BIN or --self, are needed")
    if o.kiwame and not o.self and not shutil.which(o.kiwame):
        a.error(f"no program at {o.kiwame}")
    chosen = [n for n in CASES if not o.only or any(n == p or (p.endswith("-") and n.startswith(p)) for p in o.only.split(","))]
    if o.strict:
        global LOSS_LIMIT, WEIGHT_LIMIT
        LOSS_LIMIT, WEIGHT_LIMIT = LOSS_LIMIT / 10, WEIGHT_LIMIT / 10
    reference.quiet()
    print(f"{'':22} {'loss':>9} {'weights':>9} {'worst':>9}  {'torch f32 vs f64':>17} {'':3}  {'':6} {'':3}")
    print(f"{'case':22} {'rel.':>9} {'rel. L2':>9} {'tensor':>9}  {'loss':>8} {'weights':>8} {'†':>3}  {'moved':>6} {'clip':>3} {'s':>6}")
    with tempfile.TemporaryDirectory() as work:
        failures = sum(check(n, o, work) for n in chosen)
    print(f"{len(chosen)} cases, {failures} failures      († tensors judged only in the sum)")
    sys.exit(1 if failures or not chosen else 0)


if __name__ == "__main__":
    main()
