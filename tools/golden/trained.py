#!/usr/bin/env python3
"""trained.py - what `train lora` and `train full` leave behind, opened by diffusers: all of it, and the same picture?

  trained.py --kiwame build/kiwame BASE...      BASE: pipeline folders of make_models.py --pipelines [--widths SEED]

LoRA, on every target: each layer of the file is a layer in diffusers, and no other is; its numbers and strength are the file's.
Full training of U-Net and text encoders: the folder; one file converted from it, by from_single_file, all tensors equal. The
pictures agree to 1e-4 in the latents and 40 dB; what was trained must have moved them far more.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

import generate
import reference
import training

PICTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "data", "mascot", "train")
TARGETS = "attention,ff,conv,text"
CASE = {"sampler": "ddim", "cfg": 4.0, "steps": 6}
PARTS = {"unet": "unet", "text": "text_encoder", "text2": "text_encoder_2"}


class Report:
    def __init__(self, name):
        self.name, self.bad = name, 0

    def __call__(self, good, text):
        self.bad += not good
        print(f"{self.name:18} {text}  {'ok' if good else 'FAILED'}", flush=True)


def program(o, *line):
    done = subprocess.run([*o.kiwame.split(), *map(str, line)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{line[:2]}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def train(o, method, base, out, *more):
    program(o, "train", method, PICTURES, "--base", base, "--out", out, "--name", "x", "--steps", 3, "--batch-size", 2, "--seed", o.seed,
            "--sample-sampling-steps", 2, "--sample-prompt", "a cat", "--save-dtype", "f32", "-q", *more)


def drawn(pipe, noise):
    return generate.draw(pipe, pipe.settings, dict(CASE), noise, [])


def opened(base):
    pipe = generate.pipeline(base)
    pipe.settings = pipe.scheduler.config
    return pipe


def judged(say, title, ours, theirs, plain):
    if ours[0] is None:
        return say(False, f"{title}: {ours[1][:300]}")
    error, psnr, worst = generate.compare(ours[0], theirs[0], ours[1], theirs[1])
    moved = ((theirs[0] - plain[0]).norm() / plain[0].norm()).item()
    good = error <= generate.LATENTS and psnr >= generate.PSNR and moved > 100 * error and moved > 1e-3
    say(good, f"{title}: latents {error:.1e} (moved {moved:.1e})  PSNR {psnr:5.1f} dB  largest {worst}/255")


def lora_layers(pipe, base, tensors):
    """(layers of the file, faults): what diffusers made of them."""
    from peft.tuners.lora import LoraLayer
    xl, found, faults = training.config_of_xl(base), {}, []
    for part, attribute in PARTS.items():
        for name, layer in getattr(pipe, attribute).named_modules() if getattr(pipe, attribute, None) is not None else ():
            if isinstance(layer, LoraLayer):
                found[training.kohya(part, name, xl)] = layer
    wanted = {k.split(".")[0] for k in tensors}
    faults += [f"{n}: no layer in diffusers" for n in sorted(wanted - set(found))] + [f"{n}: not in the file" for n in sorted(set(found) - wanted)]
    for name in wanted & set(found):
        layer, (adapter,) = found[name], found[name].lora_A.keys()
        down, up, alpha = (tensors[f"{name}.{leaf}"].float() for leaf in ("lora_down.weight", "lora_up.weight", "alpha"))
        if not (torch.equal(layer.lora_A[adapter].weight, down) and torch.equal(layer.lora_B[adapter].weight, up)):
            faults.append(f"{name}: other numbers")
        if abs(layer.scaling[adapter] - alpha / down.shape[0]) > 1e-6:
            faults.append(f"{name}: strength {layer.scaling[adapter]}")
    return wanted, faults


def lora(o, say, base, noise, work):
    out = os.path.join(work, "lora")
    train(o, "lora", base, out, "--targets", TARGETS, "--rank", 3, "--alpha", 2, "--learning-rate", "2e-2")
    file, pipe = os.path.join(out, "x.safetensors"), opened(base)
    plain = drawn(pipe, noise)
    pipe.load_lora_weights(file)
    names, faults = lora_layers(pipe, base, load_file(file))
    parts = [sum(n.startswith(p) for n in names) for p in ("lora_unet", "lora_te2", "lora_te")]
    say(not faults and all(parts[::2]), f"LoRA: {len(names)} layers, {parts[0]} of the U-Net; {len(faults)} faults {faults[:3] or ''}")
    theirs = drawn(pipe, noise)
    for more in ((), ("--lora-apply", "merge")):
        ours = generate.kiwame(o, base, {**CASE, "more": ["--lora", file + ":1", *more]}, noise, [], tempfile.mkdtemp(dir=work))
        judged(say, "LoRA" + (", merged" if more else ""), ours, theirs, plain)


def tensors_equal(pipe, folder):
    """Names of the folder's tensors that a loaded pipeline has otherwise."""
    other = []
    for part in (*PARTS.values(), "vae"):
        where = os.path.join(folder, part)
        for f in [x for x in (os.listdir(where) if os.path.isdir(where) else ()) if x.endswith(".safetensors")]:
            got = getattr(pipe, part).state_dict()
            for k, v in load_file(os.path.join(where, f)).items():
                k = k if k in got else k.removeprefix("text_model.")
                if "position_ids" not in k and (k not in got or not torch.equal(got[k].float(), v.float())):
                    other.append(f"{part}.{k}")
    return other


def by_single_file(folder, one, kind):
    from transformers import CLIPTokenizer
    more = {t: CLIPTokenizer.from_pretrained(os.path.join(folder, t)) for t in ("tokenizer", "tokenizer_2") if os.path.isdir(os.path.join(folder, t))}
    more |= {} if "tokenizer_2" in more else {"safety_checker": None, "requires_safety_checker": False}
    return kind.from_single_file(one, config=folder, torch_dtype=torch.float32, **more)


def full(o, say, base, noise, work):
    out, one = os.path.join(work, "full"), os.path.join(work, "one.safetensors")
    train(o, "full", base, out, "--part", "unet,text", "--learning-rate", "1e-3")
    folder = os.path.join(out, "x")
    plain = drawn(opened(base), noise)
    program(o, "convert", folder, one, "-q")
    pipe = opened(folder)
    theirs = drawn(pipe, noise)
    for model in (folder, one):
        judged(say, f"full, {'one file' if model == one else 'folder'}", generate.kiwame(o, model, dict(CASE), noise, [], tempfile.mkdtemp(dir=work)), theirs, plain)
    config = reference.read_config(os.path.join(folder, "text_encoder"))
    if config["hidden_act"] == "gelu":   # SD 2: diffusers takes the text encoder from its own copy of the published one
        return say(True, "full: from_single_file does not read this family's text encoder without the published one")
    other = tensors_equal(by_single_file(folder, one, type(pipe)), folder)
    say(not other, f"full: from_single_file, {len(other)} tensors differ {other[:3] or ''}")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("bases", nargs="+")
    a.add_argument("--kiwame", required=True)
    a.add_argument("--seed", type=int, default=5)
    o = a.parse_args()
    reference.quiet()
    bad = 0
    for base in o.bases:
        base = base.rstrip("/")
        say, pipe = Report(os.path.basename(base)), opened(base)
        noise, _ = generate.noise_for(pipe, CASE, o.seed)
        for what in (lora, full):
            with tempfile.TemporaryDirectory() as work:
                try:
                    what(o, say, base, noise, work)
                except RuntimeError as e:
                    say(False, str(e))
        bad += say.bad
    print("ok" if not bad else f"{bad} failed")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
