#!/usr/bin/env python3
"""generate.py - pictures of `kiwame generate` against diffusers' StableDiffusionPipeline, from the same noise or seeds.

  generate.py --kiwame build/kiwame P           P: the folder of make_models.py --pipelines
  generate.py --kiwame build/kiwame P --samplers      every sampler there is, instead of the cases of the pipeline
  generate.py --golden tests/golden/pipeline    writes the base and the answers that tests/unit/diffusion uses

Each case: latents within 1e-4 relative L2, pictures within 1 of 255 and PSNR >= 40 dB. Exit status 1 when one fails.
With --samplers: the cases of sampler_pictures.py, each pipeline once as it is and once as if it predicted the other of epsilon and
v; latents within 1e-3 (the network makes rounding grow from step to step), the worst in one line. Emphasis, several windows and clip skip are computed here with transformers from A1111's definitions.
"""
import argparse
import math
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import make_models
import reference
from configs import sdxl, text, unet, vae

LATENTS, PSNR, PIXEL = 1e-4, 40.0, 1
SCHEDULERS = {"ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler", "euler_ancestral": "EulerAncestralDiscreteScheduler",
              "dpmpp_2m": "DPMSolverMultistepScheduler"}
MORE = {"heun": "HeunDiscreteScheduler", "lms": "LMSDiscreteScheduler", "dpm_2": "KDPM2DiscreteScheduler",
        "dpm_2_ancestral": "KDPM2AncestralDiscreteScheduler", "dpmpp_2m_sde": "DPMSolverMultistepScheduler",
        "dpmpp_sde": "DPMSolverSDEScheduler", "plms": "PNDMScheduler", "uni_pc_bh2": "UniPCMultistepScheduler",
        "lcm": "LCMScheduler", "tcd": "TCDScheduler"}
CONFIG = {"dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"}, "plms": {"skip_prk_steps": True}}
PROMPT, NEGATIVE = "a photo of a red cat on a blue house", "dark water"
LONG = "a red cat, a blue house, " * 20

TINY = {"unet": unet([8, 16], "-x", 4, 2, 16, 1, sample_size=8), "vae": vae([8, 8], 4, 1, 4, sample_size=16),
        "text": text(16, 32, 2, 2, 77, 0), "prediction": "epsilon", "scheduler": "DDIMScheduler"}


SMALL_TEXT2 = {**text(24, 32, 2, 3, 77, 0, "gelu"), "projection_dim": 12}
TINY_XL = {"unet": unet([8, 16], "-x", 4, [1, 2], 40, 1, sample_size=8, **sdxl(12, 8, [1, 2])), "text": text(16, 32, 3, 2, 77, 0),
           "text2": {**SMALL_TEXT2, "num_hidden_layers": 3}, "vae": vae([8, 8], 4, 1, 4, sample_size=16, scaling_factor=0.13025),
           "prediction": "epsilon", "scheduler": "EulerDiscreteScheduler"}
TINY_V2 = {"unet": unet([8, 16], "x-", 4, [1, 2], 16, 1, sample_size=8, in_channels=9, use_linear_projection=True), "pad": "!",
           "text": text(16, 32, 2, 2, 77, 0, "gelu"), "vae": vae([8, 8], 4, 1, 4, sample_size=16),
           "prediction": "v_prediction", "scheduler": "DDIMScheduler"}


def xl_cases(name):
    """diffusers tokenizes and encodes the plain ones itself."""
    for sampler in SCHEDULERS:
        for cfg in (1.0, 5.0):
            yield f"{sampler} cfg {cfg:g}", {"sampler": sampler, "cfg": cfg}
    yield "no negative prompt: zeros", {"sampler": "euler", "cfg": 5.0, "negative": ""}
    yield "sizes", {"sampler": "ddim", "cfg": 3.0, "sizes": ((512, 384), (16, 40), (256, 320))}
    yield "wide", {"sampler": "euler", "cfg": 3.0, "size": (48, 32)}
    yield "cpu seeds, two pictures", {"sampler": "euler_ancestral", "cfg": 4.0, "seeds": [11, 12]}
    yield "clip skip 3", {"sampler": "ddim", "cfg": 3.0, "skip": 3}
    yield "clip skip 2 is 1", {"sampler": "ddim", "cfg": 3.0, "skip": 2}
    yield "emphasis", {"sampler": "ddim", "cfg": 3.0, "prompt": "a (red:1.4) [cat] on (a (blue) house)"}
    yield "two windows, one negative", {"sampler": "euler", "cfg": 3.0, "prompt": LONG, "apart": True}
    yield "two windows, zeros", {"sampler": "euler", "cfg": 3.0, "prompt": LONG, "negative": ""}


def cases(name, two):
    if two:
        yield from xl_cases(name)
        return
    zero = name == "pipe-zero-snr"
    for sampler in SCHEDULERS:
        for cfg in (1.0, 7.5):
            if zero and sampler == "dpmpp_2m":
                continue                             # diffusers' own last sigma is not finite there
            yield f"{sampler} cfg {cfg:g}", {"sampler": sampler, "cfg": cfg}
    yield "cpu seeds, two pictures", {"sampler": "euler_ancestral", "cfg": 4.0, "seeds": [11, 12]}
    if name != "pipe-zero-snr":                      # its text encoder has one layer
        yield "clip skip 2", {"sampler": "ddim", "cfg": 3.0, "skip": 2}
    yield "emphasis", {"sampler": "ddim", "cfg": 3.0, "prompt": "a (red:1.4) [cat] on (a (blue) house)"}
    yield "two windows each", {"sampler": "euler", "cfg": 3.0, "prompt": LONG, "negative": LONG.replace("red", "green")}
    yield "wide, ddim eta 0.5", {"sampler": "ddim", "cfg": 2.0, "eta": 0.5, "size": (96, 64)}


# ---- A1111's conditioning, from its definitions -------------------------------------------------------------------

def weighted(prompt):
    """The few forms used here: (x:w), (x), [x], nested once more."""
    stack, out, spans, text_, i = [], [], [], "", 0

    def flush():
        nonlocal text_
        out.extend([text_] if text_ else [])
        text_ = ""

    while i < len(prompt):
        c = prompt[i]
        if c in "([":
            flush()
            stack.append((c, len(out)))
        elif c in ")]":
            flush()
            kind, start = stack.pop()
            spans.append((start, len(out), 1.1 if kind == "(" else 1 / 1.1))
        elif m := re.match(r":([\d.]+)\)", prompt[i:]):
            flush()
            spans.append((stack.pop()[1], len(out), float(m.group(1))))
            i += m.end() - 1
        else:
            text_ += c
        i += 1
    flush()
    return [(t, math.prod(f for a, b, f in spans if a <= k < b)) for k, t in enumerate(out)]


def windows(tok, prompt):
    """(ids, weights) of windows of 77, with A1111's rule for commas near the end."""
    comma = tok("a,", add_special_tokens=False).input_ids[-1]
    chunks, ids, weights, last = [], [], [], -1
    for piece, w in weighted(prompt):
        for t in tok(piece, add_special_tokens=False).input_ids:
            if t == comma:
                last = len(ids)
            elif len(ids) == 75 and last != -1 and len(ids) - last <= 20:
                at = last + 1
                chunks.append((ids[:at], weights[:at]))
                ids, weights, last = ids[at:], weights[at:], -1
            if len(ids) == 75:
                chunks.append((ids, weights))
                ids, weights, last = [], [], -1
                if t == comma:
                    last = 0
            ids = ids + [t]
            weights = weights + [w]
    if ids or not chunks:
        chunks.append((ids, weights))
    pad, bos, eos = tok.pad_token_id, tok.bos_token_id, tok.eos_token_id
    for ids, weights in chunks:
        fill = 75 - len(ids)
        yield [bos] + ids + [eos] + [pad] * fill, [1.0] + weights + [1.0] * (1 + fill)


def emphasised(z, weights):
    before = z.mean()
    z = z * torch.tensor(weights)[None, :, None]
    return z * (before / z.mean())


def embed_xl(pipe, prompt, skip):
    """(hidden states of both encoders side by side, each with its own emphasis; pooled text of the first window)"""
    if not prompt:                       # as A1111, and as diffusers without a negative prompt
        a, b = pipe.text_encoder.config, pipe.text_encoder_2.config
        return torch.zeros(1, 77, a.hidden_size + b.hidden_size), torch.zeros(1, b.projection_dim)
    parts, pooled = [], None
    for one, two in zip(windows(pipe.tokenizer, prompt), windows(pipe.tokenizer_2, prompt)):
        x = pipe.text_encoder(torch.tensor([one[0]]), output_hidden_states=True)
        y = pipe.text_encoder_2(torch.tensor([two[0]]), output_hidden_states=True)
        pooled = y.text_embeds if pooled is None else pooled
        parts.append(torch.cat([emphasised(o.hidden_states[-max(skip, 2)], w) for o, (_, w) in ((x, one), (y, two))], -1))
    return torch.cat(parts, 1), pooled


def embed(pipe, prompt, skip):
    parts = []
    for ids, weights in windows(pipe.tokenizer, prompt):
        o = pipe.text_encoder(torch.tensor([ids]), output_hidden_states=True)
        model = getattr(pipe.text_encoder, "text_model", pipe.text_encoder)
        z = o.last_hidden_state if skip == 1 else model.final_layer_norm(o.hidden_states[-skip])
        parts.append(emphasised(z, weights))
    return torch.cat(parts, 1)


# ---- diffusers ------------------------------------------------------------------------------------------------------

def pipeline(base):
    import diffusers
    two, mask = os.path.isdir(os.path.join(base, "text_encoder_2")), reference.read_config(os.path.join(base, "unet"))["in_channels"] == 9
    kind = getattr(diffusers, f"StableDiffusion{'XL' if two else ''}{'Inpaint' if mask else ''}Pipeline")
    none = {} if two else {"safety_checker": None, "requires_safety_checker": False}
    pipe = kind.from_pretrained(base, torch_dtype=torch.float32, **none)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def texts(pipe, case, prompt, negative, n):
    skip = case.get("skip", 1)
    if not hasattr(pipe, "text_encoder_2"):
        c, u = embed(pipe, prompt, skip), embed(pipe, negative, skip)
        return dict(prompt_embeds=c.repeat(n, 1, 1), negative_prompt_embeds=u.repeat(n, 1, 1))
    out = {}
    if "sizes" in case:                  # (width, height), (left, top), (width, height)
        original, crop, target = case["sizes"]
        out = dict(original_size=original[::-1], crops_coords_top_left=crop[::-1], target_size=target[::-1])
    if "prompt" not in case and skip == 1:
        return dict(prompt=[prompt] * n, negative_prompt=[negative] * n if negative else None, **out)
    (c, p), (u, q) = embed_xl(pipe, prompt, skip), embed_xl(pipe, negative, skip)
    if not negative:
        u = torch.zeros_like(c)
    return dict(prompt_embeds=c.repeat(n, 1, 1), negative_prompt_embeds=u.repeat(n, 1, 1), pooled_prompt_embeds=p.repeat(n, 1),
                negative_pooled_prompt_embeds=q.repeat(n, 1), **out)


def guided_apart(pipe, run):
    """Texts of different lengths: diffusers wants equal ones, so the network runs once for each and the two are mixed here."""
    own, cfg, c, u = pipe.unet.forward, run["guidance_scale"], run["prompt_embeds"], run.pop("negative_prompt_embeds")
    p, q = run["pooled_prompt_embeds"], run.pop("negative_pooled_prompt_embeds")

    def both(x, t, encoder_hidden_states=None, added_cond_kwargs=None, **more):
        ids = added_cond_kwargs["time_ids"]
        a = own(x, t, encoder_hidden_states=c, added_cond_kwargs={"text_embeds": p, "time_ids": ids}, return_dict=False)[0]
        b = own(x, t, encoder_hidden_states=u, added_cond_kwargs={"text_embeds": q, "time_ids": ids}, return_dict=False)[0]
        return (b + cfg * (a - b),)
    pipe.unet.forward = both
    try:
        return pipe(output_type="latent", **{**run, "guidance_scale": 1.0}).images
    finally:
        pipe.unet.forward = own


def full_mask(pipe, n, w, h):
    """An inpainting base draws anything: the mask is everywhere, the picture below it is grey."""
    if pipe.unet.config.in_channels != 9:
        return {}
    w, h = w or pipe.unet.config.sample_size * pipe.vae_scale_factor, h or pipe.unet.config.sample_size * pipe.vae_scale_factor
    grey = pipe.vae.encode(torch.zeros(1, 3, h, w)).latent_dist.mode() * pipe.vae.config.scaling_factor
    return dict(image=torch.zeros(n, 3, h, w), mask_image=torch.ones(n, 1, h, w), masked_image_latents=grey.repeat(n, 1, 1, 1), strength=1.0)


def draw(pipe, config, case, noise, injected):
    """Latents, pictures (n, h, w, 3) of diffusers. injected: noise by step, or None where the generators give it."""
    import diffusers
    # clip_sample: StableDiffusionPipeline sets it so whatever a file says; its inpainting sister does not, PNDM's files lack it
    import sampler_pictures
    if case.get("k"):
        return sampler_pictures.draw(pipe, config, case, noise, injected)
    name = {**SCHEDULERS, **MORE}[case["sampler"]]
    spread = {sampler_pictures.BY_ENDS[case["schedule"]]: True} if "schedule" in case else {}
    pipe.scheduler = getattr(diffusers, name).from_config(config, clip_sample=False, **CONFIG.get(case["sampler"], {}), **spread)
    module = sys.modules[type(pipe.scheduler).__module__]
    saved, turn = getattr(module, "randn_tensor", None), iter(injected or ())
    generator = None
    if injected is not None:
        module.randn_tensor = lambda *a, **k: next(turn).clone()
        if name == "DPMSolverSDEScheduler":          # it makes its sampler at the first step, from the seed
            module.BrownianTreeNoiseSampler = lambda *a, **k: (lambda *b: next(turn).clone())
    else:
        generator = [torch.Generator().manual_seed(s) for s in case["seeds"]]
    prompt, negative, n = case.get("prompt", PROMPT), case.get("negative", NEGATIVE), len(case.get("seeds", [0]))
    w, h = case.get("size", (None, None))
    try:
        with torch.no_grad():
            run = dict(num_inference_steps=case["steps"], guidance_scale=case["cfg"], latents=noise, generator=generator, width=w, height=h,
                       eta=case["gamma"] if case["sampler"] == "tcd" else case.get("eta", 0.0), **texts(pipe, case, prompt, negative, n),
                       **case.get("inpaint", full_mask(pipe, n, w, h)), **({"guidance_rescale": case["rescale"]} if "rescale" in case else {}))
            latents = pipe(output_type="latent", **run).images if not case.get("apart") else guided_apart(pipe, run)
            x = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    finally:
        module.randn_tensor = saved
    pixels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return latents, pixels


# ---- the program ------------------------------------------------------------------------------------------------------

def kiwame(o, base, case, noise, injected, work):
    out = os.path.join(work, "out" + str(len(os.listdir(work))))
    line = [*o.kiwame.split(), "generate", case.get("prompt", PROMPT), "--negative", case.get("negative", NEGATIVE), "--base", base,
            "--sampler", case["sampler"], "--spacing", "a1111" if case.get("k") else "diffusers", "--steps", str(case["steps"]), "--cfg", str(case["cfg"]),
            "--clip-skip", str(case.get("skip", 1)), "--out", out, "--save-latents", os.path.join(work, "l.safetensors"), "--no-sheet",
            "--rng", "cpu", "--seed", str(case.get("seeds", [0])[0]), "--count", str(len(case.get("seeds", [0]))), "--batch", "2", "-q"]
    line += ["--gamma", str(case["gamma"])] if case["sampler"] == "tcd" else []
    line += ["--schedule", case["schedule"]] if "schedule" in case else []
    line += ["--cfg-rescale", str(case["rescale"])] if "rescale" in case else []
    if "size" in case:
        line += ["--width", str(case["size"][0]), "--height", str(case["size"][1])]
    if "eta" in case:
        line += ["--eta", str(case["eta"])]
    for option, pair in zip(("original-size", "crop", "target-size"), case.get("sizes", ())):
        line += ["--" + option, f"{pair[0]}{',' if option == 'crop' else 'x'}{pair[1]}"]
    line += case.get("more", [])
    if noise is not None:
        given = {"noise": noise, **{f"noise.{i}": z for i, z in enumerate(injected)}}
        save_file(given, os.path.join(work, "noise.safetensors"))
        line += ["--noise", os.path.join(work, "noise.safetensors")]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr or done.stdout).strip()
    files = [f for f in done.stdout.split("\n") if f]
    pixels = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
    return load_file(os.path.join(work, "l.safetensors"))["latents"], pixels


def compare(ours, theirs, a, b):
    error = ((ours - theirs).norm() / theirs.norm()).item()
    difference = np.abs(a.astype(int) - b.astype(int))
    psnr = 99.0 if not difference.any() else 10 * np.log10(255 ** 2 / np.mean(difference.astype(float) ** 2))
    return error, psnr, int(difference.max())


def noise_for(pipe, case, seed):
    if "seeds" in case:
        return None, None
    w, h = case.get("size", (pipe.unet.config.sample_size * pipe.vae_scale_factor,) * 2)
    shape = (1, pipe.unet.config.out_channels, h // pipe.vae_scale_factor, w // pipe.vae_scale_factor)
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g), [torch.randn(shape, generator=g) for _ in range(2 * case["steps"] + 2)]


def single_is_same(o, base, case, noise, injected, work, latents, pixels):
    """Converted to one file and back, the model draws the same bits."""
    one, back = os.path.join(work, "one.safetensors"), os.path.join(work, "back")
    for a, b in ((base, one), (one, back)):
        subprocess.run([*o.kiwame.split(), "convert", a, b, "-q"], check=True, capture_output=True)
    for model in (one, back):
        ours, got = kiwame(o, model, case, noise, injected, work)
        if ours is None or not torch.equal(ours, latents) or (got != pixels).any():
            return False
    return True


def one(o, name, base, pipe, title, case, seed):
    """(error, PSNR) if it is good; None if not."""
    case["steps"] = case.get("steps", 8)
    noise, injected = noise_for(pipe, case, seed)
    theirs, pixels = draw(pipe, pipe.settings, case, noise, injected)
    with tempfile.TemporaryDirectory() as work:
        ours, got = kiwame(o, base, case, noise, injected, work)
        same = not o.single or ours is None or single_is_same(o, base, case, noise, injected, work, ours, got)
    if ours is None:
        print(f"{name:14} {title:26} FAILED: {got}", flush=True)
        return None
    error, psnr, worst = compare(ours, theirs, got, pixels)
    good = error <= (1e-3 if o.samplers else LATENTS) and psnr >= PSNR and worst <= PIXEL and same
    print(f"{name:14} {title:26} latents {error:.1e}  PSNR {psnr:5.1f} dB  largest {worst}/255  {'ok' if good else 'FAILED'}{'' if same else ': one file draws something else'}", flush=True)
    return (error, psnr) if good else None


def run_all(o, name, base, table, worst):
    pipe, bad = pipeline(base), 0
    pipe.settings = pipe.scheduler.config
    for i, (title, case) in enumerate(table(pipe)):
        if o.cases and not any(word in title for word in o.cases.split(",")):
            continue
        done = one(o, name, base, pipe, title, case, o.seed + i)
        bad += done is None
        if done:
            worst.add(title, *done)
    return bad


def check(o, name):
    import sampler_pictures
    base, bad = os.path.join(o.models, name), 0
    if not o.samplers:
        return run_all(o, name, base, lambda pipe: cases(name, hasattr(pipe, "text_encoder_2")), sampler_pictures.Worst())
    config = reference.read_config(os.path.join(base, "scheduler"), "scheduler_config.json")
    own, zero = config["prediction_type"], config.get("rescale_betas_zero_snr", False)
    for kind in (own,) if zero or own == "sample" else ("epsilon", "v_prediction"):
        with sampler_pictures.predicting(base, kind) as folder:
            worst = sampler_pictures.Worst()
            failed = run_all(o, name, folder, lambda pipe: sampler_pictures.cases(pipe, zero, own == "sample"), worst)
            print(f"= {name}, {kind}: {worst}{f'; {failed} FAILED' if failed else ''}", flush=True)
            bad += failed
    return bad


# ---- the small base of the unit test -------------------------------------------------------------------------------------

def answers(o, name, spec, table, file):
    make_models.write_pipeline(name, spec, o.golden, 7, torch.float16)
    pipe = pipeline(os.path.join(o.golden, name))
    config, out = pipe.scheduler.config, {}
    for i, (title, case) in enumerate(table.items()):
        case["steps"] = 5
        noise, injected = noise_for(pipe, case, 100 + i)
        if "mask" in case:
            mask_case(pipe, case, out, title)
        latents, pixels = draw(pipe, config, case, noise, injected)
        out[title + ".latents"], out[title + ".pixels"] = latents, torch.from_numpy(pixels.copy())
        if noise is not None:
            out[title + ".noise"] = noise
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(o.golden, file))


def mask_case(pipe, case, out, title):
    """The left half is drawn anew; of the rest the picture's latents are given, with grey below the mask."""
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    mask = torch.zeros(1, 1, side, side)
    mask[..., : side // 2] = 1
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        kept = pipe.vae.encode(picture * (mask < 0.5)).latent_dist.mode() * pipe.vae.config.scaling_factor
    case["inpaint"] = dict(image=picture, mask_image=mask, masked_image_latents=kept, strength=1.0)
    out[title + ".mask"], out[title + ".masked"] = torch.nn.functional.interpolate(mask, kept.shape[2:]), kept


def golden(o):
    if o.golden_new:
        table = {"xl": {"sampler": "euler", "cfg": 4.0}, "xl_zeros": {"sampler": "ddim", "cfg": 4.0, "negative": ""},
                 "xl_sizes": {"sampler": "ddim", "cfg": 1.0, "sizes": ((96, 64), (8, 20), (32, 48))},
                 "xl_long": {"sampler": "euler", "cfg": 3.0, "prompt": LONG, "negative": "", "skip": 3}}
        answers(o, "xl", TINY_XL, table, "answers_xl.safetensors")
        table = {"v2": {"sampler": "euler", "cfg": 4.0}, "v2_mask": {"sampler": "ddim", "cfg": 4.0, "mask": True}}
        return answers(o, "v2-inpaint", TINY_V2, table, "answers_v2.safetensors")
    table = {"ddim": {"sampler": "ddim", "cfg": 4.0}, "euler_a": {"sampler": "euler_ancestral", "cfg": 4.0, "seeds": [3, 4]},
             "emphasis": {"sampler": "euler", "cfg": 1.0, "prompt": "a (red:1.4) [cat] on (a (blue) house)", "skip": 2}}
    answers(o, "base", TINY, table, "answers.safetensors")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("models", nargs="?", help="folder of make_models.py --pipelines")
    a.add_argument("--kiwame")
    a.add_argument("--only", help="names of pipelines, comma separated")
    a.add_argument("--golden", metavar="DIR")
    a.add_argument("--golden-new", action="store_true", help="with --golden: SDXL's and SD 2's bases instead of SD 1's")
    a.add_argument("--samplers", action="store_true")
    a.add_argument("--cases", help="words in the titles of cases, comma separated")
    a.add_argument("--seed", type=int, default=100, help="of the noise")
    a.add_argument("--single", action="store_true", help="also convert each model to one file and back: the same bits")
    o = a.parse_args()
    reference.quiet()
    if o.golden:
        return golden(o)
    if not o.models or not o.kiwame:
        a.error("--kiwame BIN and the folder of models are needed")
    names = o.only.split(",") if o.only else sorted(os.listdir(o.models))
    bad = sum(check(o, n) for n in names if os.path.isfile(os.path.join(o.models, n, "model_index.json")))
    print("ok" if not bad else f"{bad} failed")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
