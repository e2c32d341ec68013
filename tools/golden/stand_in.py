#!/usr/bin/env python3
"""stand_in.py - PyTorch behind the command line of `kiwame debug run` and `kiwame debug train`.

It tests the comparisons themselves: `parity.py --kiwame tools/golden/stand_in.py` must pass, and with a fault planted
(KW_PLANT=grad, output, missing, no-clip, no-decay, warmup, alpha, snr, epsilon, mean, rate) it must fail.
"""
import argparse
import os
import sys

import torch
from safetensors.torch import load_file, save_file

import reference
import training

PLANT = os.environ.get("KW_PLANT", "")


def run(o):
    module, names, _ = reference.load_part(o.base, o.part)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64}[o.dtype]
    out = reference.run(o.part, module, names, load_file(o.input), dtype, o.grad)
    some = sorted(k for k in out if k.startswith("grad."))
    if PLANT == "output":
        out[reference.OUTPUT[o.part]] *= 1.00003
    if some and PLANT == "grad":
        out[some[len(some) // 2]] *= 1.001
    if some and PLANT == "missing":
        del out[some[0]]
    save_file({k: v if o.dtype == "f64" else v.float() for k, v in out.items()}, o.out)


def train(o):
    options = {k: v for k, v in vars(o).items() if v is not None and k not in ("base", "batches", "steps", "out", "init", "run")}
    init = load_file(o.init) if o.init else None
    if PLANT == "no-clip":
        options.pop("max_grad_norm", None)
    if PLANT == "no-decay":
        options["weight_decay"] = 0.0
    if PLANT == "warmup":
        options["lr_warmup_steps"] = options.get("lr_warmup_steps", 0) + 1
    if PLANT == "alpha":
        options["alpha"] *= 1.01
    if PLANT == "snr":
        options["min_snr_gamma"] = 4
    if PLANT == "rate":
        options["learning_rate"] *= 1.01
    if PLANT == "epsilon":
        torch.optim.AdamW = lambda *a, eps, real=torch.optim.AdamW, **k: real(*a, eps=1e-6, **k)
    if PLANT == "mean":
        real = training.diffusion_loss
        training.diffusion_loss = lambda *a: real(*a) * 1.0005
    out, _, _ = training.train(o.base, options, load_file(o.batches), init, o.steps, torch.float32)
    save_file({k: v.float() for k, v in out.items()}, o.out)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    commands = a.add_subparsers(required=True).add_parser("debug").add_subparsers(required=True)
    r = commands.add_parser("run")
    r.add_argument("part")
    r.add_argument("--in", dest="input")
    r.add_argument("--dtype", default="f32")
    r.add_argument("--grad", action="store_true")
    r.set_defaults(run=run)
    t = commands.add_parser("train")
    for name in ("method", "batches", "init", "targets", "part", "lr-scheduler"):
        t.add_argument("--" + name)
    for name in ("steps", "rank", "lr-warmup-steps", "gradient-accumulation-steps"):
        t.add_argument("--" + name, type=int)
    for name in ("alpha", "learning-rate", "weight-decay", "max-grad-norm", "min-snr-gamma"):
        t.add_argument("--" + name, type=float)
    t.set_defaults(run=train)
    for p in (r, t):
        p.add_argument("--base")
        p.add_argument("--out")
    o = a.parse_args()
    reference.quiet()
    o.run(o)


if __name__ == "__main__":
    sys.exit(main())
