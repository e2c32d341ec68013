#!/usr/bin/env python3
"""lora_interop.py - a LoRA file in kohya's names: does diffusers take all of it, and draw the same picture as Kiwame?

  lora_interop.py --kiwame build/kiwame --base DIR --lora FILE
  lora_interop.py --self --base DIR --lora FILE         no binary: the LoRA merged into the weights by hand stands in
  lora_interop.py --make-lora FILE --base DIR           writes a random LoRA on every target, to try with

Checks: load_lora_weights leaves no key over; every layer it made holds exactly the file's tensors and strength alpha/rank;
the pictures (DDIM, f32, one noise) agree to PSNR >= 40 dB. Printed beside it: PSNR without the LoRA, which must be
far lower, or the LoRA does too little to prove anything. DIR is a pipeline folder; exit status 1 when a check fails.
"""
import argparse
import os
import shlex
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import reference
import training

GENERATE = ("{kiwame} generate --base {base} {lora} --prompt {prompt} --negative {negative} --steps {steps} --cfg {cfg} "
            "--sampler ddim --width {width} --height {height} --noise {noise} --save-latents {latents} --dtype f32 --out {out}")
PSNR_LIMIT = 40.0


def pipeline(o):
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    more = {}
    if o.tokenizer:
        from transformers import CLIPTokenizer
        more["tokenizer"] = CLIPTokenizer.from_pretrained(o.tokenizer)
    pipe = StableDiffusionPipeline.from_pretrained(o.base, torch_dtype=torch.float32, safety_checker=None,
                                                   requires_safety_checker=False, **more)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def parts_of(pipe):
    return {"unet": pipe.unet, "text": pipe.text_encoder}


def check_loaded(pipe, tensors):
    """Failure lines: layers that diffusers did not make, made beyond the file, or filled with other values."""
    from peft.tuners.lora import LoraLayer
    lines, found = [], {}
    for part, module in parts_of(pipe).items():
        for name, layer in module.named_modules():
            if isinstance(layer, LoraLayer):
                found[training.kohya(part, name)] = layer
    wanted = {k.split(".")[0] for k in tensors}
    lines += [f"{k}: diffusers made no layer" for k in sorted(wanted - set(found))]
    lines += [f"{k}: a layer the file does not name" for k in sorted(set(found) - wanted)]
    for name in sorted(wanted & set(found)):
        down, up = tensors[name + ".lora_down.weight"].float(), tensors[name + ".lora_up.weight"].float()
        alpha = float(tensors.get(name + ".alpha", torch.tensor(float(down.shape[0]))))
        layer, (adapter,) = found[name], found[name].lora_A.keys()
        if not (torch.equal(layer.lora_A[adapter].weight, down) and torch.equal(layer.lora_B[adapter].weight, up)):
            lines.append(f"{name}: other values than the file's")
        if abs(layer.scaling[adapter] - alpha / down.shape[0]) > 1e-6 * abs(alpha):
            lines.append(f"{name}: strength {layer.scaling[adapter]}, not {alpha}/{down.shape[0]}")
    return lines, len(wanted)


def merge(pipe, tensors):
    """W + up down alpha/rank, straight from the file."""
    for part, module in parts_of(pipe).items():
        for name, layer in module.named_modules():
            key = training.kohya(part, name)
            if key + ".lora_down.weight" in tensors:
                down, up = tensors[key + ".lora_down.weight"].double(), tensors[key + ".lora_up.weight"].double()
                delta = up.flatten(1) @ down.flatten(1) * float(tensors[key + ".alpha"]) / down.shape[0]
                with torch.no_grad():
                    layer.weight += delta.view_as(layer.weight).float()


def draw(pipe, o, noise):
    with torch.no_grad():
        images = pipe(prompt=o.prompt, negative_prompt=o.negative, num_inference_steps=o.steps, guidance_scale=o.cfg,
                      width=o.width, height=o.height, latents=noise.clone(), eta=0.0, output_type="pil").images
    return np.asarray(images[0].convert("RGB"))


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 99.0 if error == 0 else 10 * np.log10(255 ** 2 / error)


def kiwame_picture(o, noise, work):
    files = {k: os.path.join(work, k) for k in ("noise.safetensors", "latents.safetensors", "picture.png")}
    save_file({"noise": noise}, files["noise.safetensors"])
    q = shlex.quote
    line = o.generate.format(kiwame=q(o.kiwame), base=q(o.base), lora="--lora " + q(f"{o.lora}:1"), prompt=q(o.prompt),
                             negative=q(o.negative), steps=o.steps, cfg=o.cfg, width=o.width, height=o.height,
                             noise=q(files["noise.safetensors"]), latents=q(files["latents.safetensors"]), out=q(files["picture.png"]))
    print(line)
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        return f"exit {done.returncode}: {' | '.join((done.stderr or done.stdout).strip().splitlines()[-3:])}"
    path = files["picture.png"]
    if not os.path.isfile(path):
        return "no picture was written to --out"
    if o.keep:
        os.makedirs(o.keep, exist_ok=True)
        Image.open(path).save(os.path.join(o.keep, "kiwame.png"))
    return np.asarray(Image.open(path).convert("RGB"))


def make_lora(o):
    options = {"method": "lora", "rank": 4, "alpha": 4, "targets": "attention,ff,conv,text"}
    tensors = training.lora_start(o.base, options, {"b": True}, 5)
    save_file({k: v.contiguous() for k, v in tensors.items()}, o.make_lora, metadata={"ss_network_module": "networks.lora"})
    print(f"{o.make_lora}: {len(tensors)} tensors")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kiwame")
    a.add_argument("--self", action="store_true")
    a.add_argument("--base", required=True)
    a.add_argument("--lora")
    a.add_argument("--make-lora", metavar="FILE")
    a.add_argument("--tokenizer", help="a tokenizer folder, for a base without one")
    a.add_argument("--prompt", default="a photo of a red cat on a blue house")
    a.add_argument("--negative", default="")
    a.add_argument("--steps", type=int, default=10)
    a.add_argument("--cfg", type=float, default=3.0)
    a.add_argument("--width", type=int, help="default: the base's own size")
    a.add_argument("--height", type=int)
    a.add_argument("--seed", type=int, default=3)
    a.add_argument("--keep", metavar="DIR", help="keep the pictures")
    a.add_argument("--generate", default=GENERATE, help="the command, with {names} as in the default")
    o = a.parse_args()
    reference.quiet()
    if o.make_lora:
        return make_lora(o)
    if not o.lora or not (o.kiwame or o.self):
        a.error("--lora FILE and --kiwame BIN (or --self) are needed")
    pipe, tensors = pipeline(o), load_file(o.lora)
    o.width = o.width or pipe.unet.config.sample_size * pipe.vae_scale_factor
    o.height = o.height or o.width
    shape = (1, pipe.unet.config.in_channels, o.height // pipe.vae_scale_factor, o.width // pipe.vae_scale_factor)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(o.seed))
    plain = draw(pipe, o, noise)
    pipe.load_lora_weights(o.lora)
    lines, count = check_loaded(pipe, tensors)
    theirs = draw(pipe, o, noise)
    print(f"diffusers took {count} modules, {len(tensors)} tensors; {len(lines)} complaints")
    if o.self:
        pipe = pipeline(o)
        merge(pipe, tensors)
        ours = draw(pipe, o, noise)
    else:
        with tempfile.TemporaryDirectory() as work:
            ours = kiwame_picture(o, noise, work)
    if o.keep:
        os.makedirs(o.keep, exist_ok=True)
        Image.fromarray(theirs).save(os.path.join(o.keep, "diffusers.png"))
        Image.fromarray(plain).save(os.path.join(o.keep, "diffusers-without.png"))
    if isinstance(ours, str):
        lines.append(ours)
    elif ours.shape != theirs.shape:
        lines.append(f"the picture is {ours.shape[1]}x{ours.shape[0]}, not {theirs.shape[1]}x{theirs.shape[0]}")
    else:
        same, without = psnr(ours, theirs), psnr(plain, theirs)
        print(f"PSNR {same:.1f} dB with the LoRA in both (limit {PSNR_LIMIT:g}); {without:.1f} dB between with and without it")
        lines += [f"PSNR {same:.1f} dB"] if same < PSNR_LIMIT else []
        lines += ["the LoRA changes the picture too little to prove anything"] if without > PSNR_LIMIT - 5 else []
    print("\n".join("    " + line for line in lines) or "ok")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
