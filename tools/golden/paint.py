#!/usr/bin/env python3
"""paint.py - painting over a picture: answers for tests/unit/diffusion/test_paint.c and tests/unit/picture/test_paint.c.

  paint.py --golden tests/golden            writes pipeline/paint.safetensors and picture/paint.safetensors
  paint.py --kiwame build/kiwame            whole pictures of `kiwame generate --init ...` and `--hires ...` on that folder's base

Pictures to pictures and inpainting by diffusers' pipelines where they say what is meant, by A1111's definitions written
out here (k-diffusion's Euler and Euler a, its DDIM; the mask on the denoised latents) where A1111 differs from them.
"""
import argparse
import math
import os
import random
import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from safetensors.torch import save_file

import generate
import make_models
import reference
from configs import unet

STEPS, STRENGTH, CFG = 5, 0.6, 4.0


def picture(seed, w, h):
    """Smooth colours with an edge, as 8 bits."""
    g = np.random.RandomState(seed)
    y, x = np.mgrid[0:h, 0:w]
    v = np.stack([128 + 90 * np.sin(x / w * a * 6 + b * 6) * np.cos(y / h * c * 6) for a, b, c in g.rand(3, 3)], -1)
    v[h // 3:h // 2, w // 4:w // 2] = g.randint(0, 256, 3)
    return np.clip(v, 0, 255).astype(np.uint8)


# ---- diffusers ------------------------------------------------------------------------------------------------------

def by_diffusers(kind, base, scheduler, image, **more):
    import diffusers
    pipe = getattr(diffusers, kind).from_pretrained(base, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, clip_sample=False)
    c, u = generate.embed(pipe, generate.PROMPT, 1), generate.embed(pipe, generate.NEGATIVE, 1)
    image = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    with torch.no_grad():
        latents = pipe(prompt_embeds=c, negative_prompt_embeds=u, image=image, num_inference_steps=STEPS, strength=STRENGTH, guidance_scale=CFG,
                       generator=torch.Generator().manual_seed(3), output_type="latent", **more).images
        x = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    pixels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return latents, pixels


# ---- A1111 ------------------------------------------------------------------------------------------------------------

class A1111:
    def __init__(self, base):
        self.pipe, self.more = generate.pipeline(base), None           # more: mask and picture of an inpainting base
        self.abar = self.pipe.scheduler.alphas_cumprod.double()
        self.levels = ((1 - self.abar) / self.abar).sqrt()
        self.c, self.u = generate.embed(self.pipe, generate.PROMPT, 1), generate.embed(self.pipe, generate.NEGATIVE, 1)

    def eps(self, x, t):
        with torch.no_grad():
            x = x if self.more is None else torch.cat([x, self.more], 1)
            run = lambda h: self.pipe.unet(x.float(), torch.tensor([float(t)]), encoder_hidden_states=h).sample.double()
            u = run(self.u)
            return u + CFG * (run(self.c) - u)

    def denoised(self, x, sigma, init, mask):
        log = self.levels.log()
        low = int(((math.log(sigma) - log) >= 0).sum().clamp(1, len(log) - 1)) - 1
        w = min(max((log[low] - math.log(sigma)) / (log[low] - log[low + 1]), 0), 1)
        d = x - sigma * self.eps(x / math.sqrt(sigma ** 2 + 1), low + float(w))
        return d * mask + init * (1 - mask)

    def sigmas(self, n):
        t = torch.linspace(len(self.levels) - 1, 0, n, dtype=torch.float64)
        low, high, w = t.floor().long(), t.ceil().long(), t.frac()
        return [*((1 - w) * self.levels.log()[low] + w * self.levels.log()[high]).exp().tolist(), 0.0]

    def euler(self, init, noise, mask, noises=None, steps=STEPS, exact=False):
        steps, t_enc = (int(steps / STRENGTH), steps - 1) if exact else (steps, int(min(STRENGTH, 0.999) * steps))
        sigmas = self.sigmas(steps)[steps - t_enc - 1:]
        x = init + noise * sigmas[0]
        for i, (s, to) in enumerate(zip(sigmas, sigmas[1:])):
            d = self.denoised(x, s, init, mask)
            up = min(to, math.sqrt(to ** 2 * (s ** 2 - to ** 2) / s ** 2)) if noises is not None else 0
            x = x + (x - d) / s * (math.sqrt(to ** 2 - up ** 2) - s)
            if to > 0 and up:
                x = x + noises[steps - t_enc - 1 + i] * up
        return x * mask + init * (1 - mask)

    def second_order(self, init, noise, mask, heun):
        t_enc = int(min(STRENGTH, 0.999) * STEPS)
        sigmas = self.sigmas(STEPS)[STEPS - t_enc - 1:]
        x, old = init + noise * sigmas[0], None
        for i, (s, to) in enumerate(zip(sigmas, sigmas[1:])):
            d = self.denoised(x, s, init, mask)
            if heun and to > 0:
                slope = (x - d) / s
                ahead = x + slope * (to - s)
                x = x + (slope + (ahead - self.denoised(ahead, to, init, mask)) / to) / 2 * (to - s)
            elif heun or to == 0:
                x = d
            else:                                        # k-diffusion's sample_dpmpp_2m
                r = 0 if old is None else math.log(s / to) / math.log(sigmas[i - 1] / s) / 2
                x = to / s * x + (1 - to / s) * ((1 + r) * d - (r * old if r else 0))
            old = d
        return x * mask + init * (1 - mask)

    def ddim(self, init, noise):
        t_enc = int(min(STRENGTH, 0.999) * STEPS)
        times = [min(t + 1, 999) for t in range(0, 1000, 1000 // STEPS)]
        a = self.abar[times]
        x = init * a[t_enc].sqrt() + noise * (1 - a[t_enc]).sqrt()
        for i in range(t_enc - 1, 0, -1):
            e = self.eps(x, times[i])
            x0 = (x - (1 - a[i]).sqrt() * e) / a[i].sqrt()
            x = a[i - 1].sqrt() * x0 + (1 - a[i - 1]).sqrt() * e
        return x


def pipelines(folder):
    base, out = os.path.join(folder, "pipeline", "base"), {}
    image, g = picture(1, 16, 16), torch.Generator().manual_seed(5)
    out["image"] = torch.from_numpy(image)
    for name, scheduler in (("ddim", "DDIMScheduler"), ("euler", "EulerDiscreteScheduler")):
        out[f"img2img.{name}.latents"], out[f"img2img.{name}.pixels"] = by_diffusers("StableDiffusionImg2ImgPipeline", base, scheduler, image)
        mask = torch.zeros(1, 1, 16, 16)
        mask[:, :, 4:12, 6:] = 1
        out[f"inpaint.{name}.latents"], out[f"inpaint.{name}.pixels"] = by_diffusers(
            "StableDiffusionInpaintPipeline", base, scheduler, image, mask_image=mask, height=16, width=16)
    k = A1111(base)
    init, noise = torch.randn(1, 4, 8, 8, generator=g).double(), torch.randn(1, 4, 8, 8, generator=g).double()
    noises = torch.randn(STEPS, 1, 4, 8, 8, generator=g).double()
    mask = torch.rand(1, 1, 8, 8, generator=g).double().mul(2).sub(0.5).clamp(0, 1)
    out.update(init=init, noise=noise, noises=noises, mask=mask)
    out["a1111.euler"] = k.euler(init, noise, mask)
    out["a1111.euler_a"] = k.euler(init, noise, mask, noises)
    out["a1111.heun"] = k.second_order(init, noise, mask, True)
    out["a1111.dpmpp_2m"] = k.second_order(init, noise, mask, False)
    out["a1111.exact"] = k.euler(init, noise, torch.ones_like(mask), exact=True)
    out["a1111.ddim"] = k.ddim(init, noise)
    x = torch.randn(1, 2, 5, 4, generator=g)
    out["latents"] = x
    for i, (mode, smooth) in enumerate((("bilinear", False), ("bilinear", True), ("bicubic", False), ("bicubic", True), ("nearest", None), ("nearest-exact", None))):
        for size in ((9, 7), (10, 8), (3, 2)):
            more = {} if smooth is None else {"antialias": smooth, "align_corners": False}
            out[f"resized.{i}.{size[0]}"] = F.interpolate(x, size=size, mode=mode, **more)
    save_file({n: (v.float() if v.is_floating_point() else v).contiguous() for n, v in out.items()}, os.path.join(folder, "pipeline", "paint.safetensors"))


# ---- pixels: A1111's rules with Pillow -----------------------------------------------------------------------------------

def sized(mode, im, width, height):
    ratio, src = width / height, im.width / im.height
    if mode == 0:
        return im.resize((width, height), Image.LANCZOS)
    wide = ratio > src if mode == 1 else ratio < src
    tall = ratio <= src if mode == 1 else ratio >= src
    w, h = width if wide else im.width * height // im.height, height if tall else im.height * width // im.width
    part = im.resize((w, h), Image.LANCZOS)
    res = Image.new("RGB", (width, height))
    left, top = width // 2 - w // 2, height // 2 - h // 2
    res.paste(part, box=(left, top))
    if mode == 2 and ratio < src and top > 0:
        res.paste(part.resize((width, top), box=(0, 0, width, 0)), box=(0, 0))
        res.paste(part.resize((width, height - top - h), box=(0, h, width, h)), box=(0, top + h))
    if mode == 2 and ratio > src and left > 0:
        res.paste(part.resize((left, height), box=(0, 0, 0, height)), box=(0, 0))
        res.paste(part.resize((width - left - w, height), box=(w, 0, w, height)), box=(left + w, 0))
    return res


def filled(im, mask):
    res, left = Image.new("RGBA", im.size), Image.new("RGBa", im.size)
    left.paste(im.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    for radius, repeats in ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)):
        blurred = left.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            res.alpha_composite(blurred)
    return res.convert("RGB")


def blurred(mask, sigma):
    """OpenCV's GaussianBlur with A1111's kernel, in float64."""
    reach = int(2.5 * sigma + 0.5)
    k = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    v = np.asarray(mask, np.float64)
    for axis in (1, 0):
        pad = np.pad(v, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="reflect")
        v = np.floor(np.apply_along_axis(lambda r: np.convolve(r, k / k.sum(), "valid"), axis, pad) + 0.5)
    return v.astype(np.uint8)


def pixels(folder):
    rgb = picture(2, 46, 30)
    im, out = Image.fromarray(rgb), {"picture": torch.from_numpy(rgb)}
    for mode in (0, 1, 2):
        for w, h in ((24, 40), (40, 16), (64, 64)):
            out[f"sized.{mode}.{w}x{h}"] = torch.from_numpy(np.asarray(sized(mode, im, w, h)).copy())
    for name, f in (("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR), ("nearest", Image.NEAREST), ("lanczos", Image.LANCZOS)):
        for w, h in ((17, 12), (70, 64)):
            out[f"{name}.{w}x{h}"] = torch.from_numpy(np.asarray(im.resize((w, h), f)).copy())
    mask = np.zeros((30, 46), np.uint8)
    mask[8:20, 10:31] = 255
    out["mask"] = torch.from_numpy(mask)
    for sigma in (1, 4):
        out[f"blurred.{sigma}"] = torch.from_numpy(blurred(mask, sigma))
    soft = Image.fromarray(blurred(mask, 4))
    out["filled"] = torch.from_numpy(np.asarray(filled(im, soft)).copy())
    out["grey"] = torch.from_numpy(np.asarray(im.convert("L")).copy())
    save_file({n: v.contiguous() for n, v in out.items()}, os.path.join(folder, "picture", "paint.safetensors"))


# ---- whole pictures of the program: A1111's img2img and second pass, all of it ---------------------------------------------

class Whole(A1111):
    seed = 3

    def encode(self, im):
        x = torch.from_numpy(np.asarray(im.convert("RGB")).copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1
        with torch.no_grad():
            return (self.pipe.vae.encode(x).latent_dist.mean * self.pipe.vae.config.scaling_factor).double()

    def decode(self, z):
        with torch.no_grad():
            x = self.pipe.vae.decode(z.float() / self.pipe.vae.config.scaling_factor).sample
        return Image.fromarray(((x[0] / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())

    def noise(self, seed, h, w):
        return torch.randn(1, 4, h, w, generator=torch.Generator().manual_seed(seed)).double()

    def painted(self, init, mask=None, size=(16, 16), mode=1, blur=4, fill="original", area="whole", padding=32, invert=False):
        (w, h), seed = size, self.seed
        if mask is None:
            z = self.encode(sized(mode, init, w, h))
            return self.decode(self.euler(z, self.noise(seed, h // 2, w // 2), torch.ones(1, 1, h // 2, w // 2)))
        mask = ImageOps.invert(mask) if invert else mask
        mask = Image.fromarray(blurred(mask, blur)) if blur else mask
        under, box = init, None
        if area == "masked":
            x1, y1, x2, y2 = mask.getbbox()
            box = self.expanded([max(x1 - padding, 0), max(y1 - padding, 0), min(x2 + padding, mask.width), min(y2 + padding, mask.height)], size, mask.size)
            over, image, small = mask, sized(2, init.crop(box), w, h), sized(2, mask.crop(box).convert("RGB"), w, h).convert("L")
        else:
            image = under = sized(mode, init, w, h)
            small = sized(mode, mask.convert("RGB"), w, h).convert("L")
            over = Image.fromarray(np.clip(np.asarray(small).astype(np.float32) * 2, 0, 255).astype(np.uint8))
        if fill != "original":
            image = filled(image, small)
        z, noise = self.encode(image), self.noise(seed, h // 2, w // 2)
        if self.pipe.unet.config.in_channels == 9:
            hard = torch.from_numpy((np.asarray(small) >= 128).copy())[None, None].float()
            x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1
            with torch.no_grad():
                masked = self.pipe.vae.encode(x * (1 - hard)).latent_dist.mean * self.pipe.vae.config.scaling_factor
            self.more = torch.cat([F.interpolate(hard, size=(h // 2, w // 2)), masked], 1).double()
        m = np.asarray(small.convert("RGB").resize((w // 2, h // 2)), np.float32)[..., 0] / 255
        m = torch.from_numpy(np.around(m)).double()[None, None]
        z = {"noise": z * (1 - m) + noise * m, "nothing": z * (1 - m)}.get(fill, z)
        out = self.decode(self.euler(z, noise, m))
        if box:
            part, out = sized(1, out, box[2] - box[0], box[3] - box[1]), Image.new("RGB", under.size)
            out.paste(part, box[:2])
        return Image.composite(out, under, over)

    @staticmethod
    def expanded(box, want, size):
        for i, other in ((1, 0), (0, 1)):                # height, then width
            shape, wanted = (box[2] - box[0]) / (box[3] - box[1]), want[0] / want[1]
            if (shape > wanted) != (i == 1):
                continue
            need = (box[2] - box[0]) / wanted if i else (box[3] - box[1]) * wanted
            more = int(need - (box[i + 2] - box[i]))
            box[i] -= more // 2
            box[i + 2] += more - more // 2
            if box[i + 2] >= size[i]:
                box[i], box[i + 2] = box[i] - (box[i + 2] - size[i]), size[i]
            if box[i] < 0:
                box[i], box[i + 2] = 0, box[i + 2] - box[i]
            box[i + 2] = min(box[i + 2], size[i])
            break
        return box

    def hires(self, upscaler, scale=2, steps=4):
        sigmas, seed = self.sigmas(STEPS), self.seed
        x = self.noise(seed, 8, 8) * sigmas[0]
        for s, to in zip(sigmas, sigmas[1:]):
            x = x + (x - self.denoised(x, s, 0, 1)) / s * (to - s)
        if upscaler == "latent":
            x = F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=False, align_corners=False)
        else:
            im = self.decode(x)
            x = self.encode(im.resize((im.width * scale, im.height * scale), Image.LANCZOS))
        return self.decode(self.euler(x, self.noise(seed, *x.shape[2:]), torch.ones(1, 1, *x.shape[2:]), steps=steps, exact=True))


def whole(o):
    import subprocess
    import tempfile
    base, bad = os.path.join(o.base, "pipeline", "base"), 0
    work = tempfile.mkdtemp()
    spec, channels = generate.TINY, [8, 16]
    if o.seed != Whole.seed:
        channels = [4 * random.Random(o.seed).randint(2, 6), 4 * random.Random(o.seed + 1).randint(3, 9)]
        spec = {**spec, "unet": unet(channels, "-x", 4, 2, 16, 1, sample_size=8)}
        make_models.write_pipeline("base", spec, work, o.seed, torch.float32)
        base, Whole.seed = os.path.join(work, "base"), o.seed
    nine = unet(channels, "-x", 4, 2, 16, 1, sample_size=8, in_channels=9)
    make_models.write_pipeline("inpainting", {**spec, "unet": nine}, work, 5 + o.seed, torch.float32)
    k, inpainting = Whole(base), Whole(os.path.join(work, "inpainting"))
    init = Image.fromarray(picture(o.seed, 40, 28))
    mask = np.zeros((28, 40), np.uint8)
    mask[6:17, 12:30] = 255
    mask = Image.fromarray(mask)
    init.save(os.path.join(work, "init.png"))
    mask.save(os.path.join(work, "mask.png"))
    cases = {"picture over picture": {}, "stretched": {"mode": 0}, "borders continued": {"mode": 2}, "tall": {"size": (16, 24)},
             "mask": {"mask": mask}, "inverted, hard": {"mask": mask, "invert": True, "blur": 0}, "fill": {"mask": mask, "fill": "fill", "blur": 2},
             "latent noise": {"mask": mask, "fill": "noise"}, "latent nothing": {"mask": mask, "fill": "nothing"},
             "masked area": {"mask": mask, "area": "masked", "padding": 3, "blur": 1},
             "masked area, tall": {"mask": mask, "area": "masked", "padding": 32, "size": (16, 24), "fill": "fill"}}
    words = {"mode": ("--resize-mode", ("stretch", "crop", "fill")), "blur": ("--mask-blur", None), "fill": ("--mask-fill", None),
             "area": ("--inpaint-area", None), "padding": ("--mask-padding", None)}

    def compare(title, theirs, more, base=base):
        out = os.path.join(work, "out.png")
        subprocess.run([*o.kiwame.split(), "generate", generate.PROMPT, "--negative", generate.NEGATIVE, "--base", base, "--sampler", "euler", "--schedule", "normal",
                        "--cfg", str(CFG), "--rng", "cpu", "--seed", str(o.seed), "--steps", str(STEPS), "--out", out, "-q", *more], check=True, stdout=subprocess.DEVNULL)
        d = np.asarray(Image.open(out)).astype(float) - np.asarray(theirs).astype(float)
        psnr = 99.0 if not d.any() else 10 * math.log10(255 ** 2 / np.mean(d ** 2))
        print(f"{title:26} PSNR {psnr:5.1f} dB  largest {int(np.abs(d).max())}/255  {'ok' if psnr >= 40 else 'FAILED'}", flush=True)
        return psnr < 40

    masked = {f"{t}, 9 channels": c for t, c in cases.items() if "mask" in c}
    for title, case in {**cases, **masked}.items():
        channels9 = title in masked
        w, h = case.get("size", (16, 16))
        more = ["--init", os.path.join(work, "init.png"), "--strength", str(STRENGTH), "--width", str(w), "--height", str(h)]
        more += ["--mask", os.path.join(work, "mask.png")] if "mask" in case else []
        more += ["--mask-invert"] if "invert" in case else []
        for n, (option, names) in words.items():
            more += [option, names[case[n]] if names else str(case[n])] if n in case else []
        if channels9:
            bad += compare(title, inpainting.painted(init, **case), more, os.path.join(work, "inpainting"))
        else:
            bad += compare(title, k.painted(init, **case), more)
    for upscaler in ("latent", "lanczos"):
        bad += compare(f"second pass, {upscaler}", k.hires(upscaler), ["--hires", "2", "--hires-steps", "4", "--hires-strength", str(STRENGTH), "--hires-upscaler", upscaler])
    sys.exit(1 if bad else 0)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--golden", metavar="DIR")
    a.add_argument("--kiwame")
    a.add_argument("--base", default="tests/golden", help="folder in which pipeline/base lies")
    a.add_argument("--seed", type=int, default=3, help="with --kiwame: another noise and picture, bases of other widths")
    o = a.parse_args()
    reference.quiet()
    if o.kiwame:
        return whole(o)
    pixels(o.golden)
    pipelines(o.golden)


if __name__ == "__main__":
    main()
