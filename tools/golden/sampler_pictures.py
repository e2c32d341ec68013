"""sampler_pictures.py - generate.py --samplers: every sampler on a whole pipeline, with diffusers' lists and with A1111's.

    diffusers   its scheduler of that name, in its pipeline (generate.py draws)
    A1111       samplers.py's definitions - k-diffusion, PLMS, UniPC, LCM - and DDIM, around the pipeline's U-Net, guided; numbers
                between two evaluations are double

8 steps; then each schedule with some samplers, each sampler with 1, 2 and 3 steps, seeds whose noise A1111 draws itself.
"""
import contextlib
import inspect
import json
import math
import os
import tempfile

import diffusers
import numpy as np
import torch

import generate as g

for _name in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):      # before k-diffusion's modules hide torchvision
    getattr(diffusers, _name)
import samplers as k

BY_ENDS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
SPREADS = ("euler", "heun", "lms", "dpm_2", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc_bh2")      # whose class in diffusers has all three
K = ("euler_ancestral", "euler", "heun", "lms", "dpm_2", "dpm_2_ancestral", "dpmpp_2m", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde",
     "dpmpp_2m_sde_heun", "dpmpp_3m_sde")
OWN = ("ddim", "plms", "uni_pc", "uni_pc_bh2", "lcm")
ANY = ("normal", "karras", "exponential", "sgm_uniform", "beta", "simple", "kl_optimal", "ddim", *k.LATER)
NOT_ZERO_SNR = ("heun", "lms", "dpm_2", "dpm_2_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "plms")     # diffusers: not finite there
NOT_X0 = ("plms", "lms", "heun", "dpm_2", "dpm_2_ancestral", "dpmpp_sde", "euler_ancestral")                    # diffusers: not offered
FEWEST = {"ddim": 2, "plms": 2, "uni_pc": 3, "uni_pc_bh2": 3,      # A1111: none with fewer; UniPC stops there, Kiwame does not
          "dpmpp_2m_sde": 2, "dpmpp_2m_sde_heun": 2, "dpmpp_3m_sde": 2}       # k-diffusion: an unset variable with one


def cases(pipe, zero, x0):
    """(title, case); a case with "k" has A1111's list."""
    theirs = [s for s in (*g.SCHEDULERS, *g.MORE) if not (zero and s in NOT_ZERO_SNR) and not (x0 and s in NOT_X0)]
    own = () if zero else OWN
    for steps in (8, 1, 2, 3):
        end = "" if steps == 8 else f", {steps} steps"
        for sampler in theirs:
            if steps > 2 or sampler != "plms":        # PNDM: its second step divides by the difference of equal noise levels
                yield sampler + end, {"sampler": sampler, "cfg": 4.0, "gamma": 0.3, "steps": steps}
        for sampler in (*K, *own):
            if steps >= FEWEST.get(sampler, 1):
                yield f"{sampler}, a1111{end}", {"sampler": sampler, "cfg": 4.0, "k": True, "steps": steps}
    for schedule in () if zero else BY_ENDS:
        for sampler in SPREADS:
            if sampler in theirs:
                yield f"{sampler}, {schedule}", {"sampler": sampler, "cfg": 4.0, "schedule": schedule}
    for schedule in ANY:
        for sampler in K:
            if k.DEFAULT.get(sampler, "normal") != schedule:
                yield f"{sampler}, a1111, {schedule}", {"sampler": sampler, "cfg": 4.0, "k": True, "schedule": schedule}
    for sampler in () if zero or x0 else ("dpmpp_sde", "dpmpp_2m_sde", "euler_ancestral"):      # A1111's noise, "RNG: CPU"
        yield f"{sampler}, a1111, seed", {"sampler": sampler, "cfg": 4.0, "k": True, "seeds": [11]}
    if "guidance_rescale" in inspect.signature(pipe.__call__).parameters:       # SD 1.x's inpainting pipeline takes the word and ignores it
        yield "cfg rescale 0.7", {"sampler": "ddim", "cfg": 7.5, "rescale": 0.7}


@contextlib.contextmanager
def predicting(base, kind):
    """The same weights under a scheduler_config.json that says they predict something else."""
    with tempfile.TemporaryDirectory() as work:
        for name in os.listdir(base):
            if name != "scheduler":
                os.symlink(os.path.join(os.path.abspath(base), name), os.path.join(work, name))
        os.mkdir(os.path.join(work, "scheduler"))
        with open(os.path.join(base, "scheduler", "scheduler_config.json"), encoding="utf-8") as f:
            config = json.load(f)
        with open(os.path.join(work, "scheduler", "scheduler_config.json"), "w", encoding="utf-8") as f:
            json.dump({**config, "prediction_type": kind}, f)
        yield work


# ---- the network ------------------------------------------------------------------------------------------------------------

def inputs(pipe, case, h, w):
    """What the U-Net is told beside x and t: (negative and positive texts, SDXL's added numbers, an inpainting base's channels)."""
    prompt, negative, scale = case.get("prompt", g.PROMPT), case.get("negative", g.NEGATIVE), pipe.vae_scale_factor
    added, channels = None, []
    if hasattr(pipe, "text_encoder_2"):
        (c, p), (u, q) = g.embed_xl(pipe, prompt, 1), g.embed_xl(pipe, negative, 1)
        ids = torch.tensor([[h * scale, w * scale, 0, 0, h * scale, w * scale]] * 2, dtype=torch.float32)
        added = {"text_embeds": torch.cat([q, p]), "time_ids": ids}
    else:
        c, u = g.embed(pipe, prompt, 1), g.embed(pipe, negative, 1)
    more = g.full_mask(pipe, 1, w * scale, h * scale)
    if more:
        channels = [torch.ones(1, 1, h, w), more["masked_image_latents"]]
    return torch.cat([u, c]), added, channels


def network(pipe, case, h, w):
    words, added, channels = inputs(pipe, case, h, w)

    def answer(x, t):
        torch.set_default_dtype(torch.float32)
        z = torch.cat([torch.from_numpy(np.asarray(x)).float()[None], *channels], 1).repeat(2, 1, 1, 1)
        u, c = pipe.unet(z, torch.tensor(float(t)), encoder_hidden_states=words, added_cond_kwargs=added).sample.double()
        torch.set_default_dtype(torch.float64)
        return (u + case["cfg"] * (c - u)).numpy()
    return answer


def ddim(config, steps):
    """A1111's: t = 1 + i (N/n), from the last down to the second."""
    abar = diffusers.DDIMScheduler(**config).alphas_cumprod.double().numpy()
    t = np.clip(np.arange(0, 1000, 1000 // steps) + 1, 0, 999)
    answer, x = k.eps_of(config, abar), k.start_noise()
    for i in range(len(t) - 1, 0, -1):
        e, x0 = answer(x, t[i], abar[t[i]])
        x = np.sqrt(abar[t[i - 1]]) * x0 + np.sqrt(1 - abar[t[i - 1]]) * e
    return None, x


# ---- A1111's run --------------------------------------------------------------------------------------------------------------

def seeded(name, noise, seed, generator):
    """A1111's own draws: one generator goes on, or a Brownian path of that seed between the outermost levels."""
    if name == "euler_ancestral":
        return lambda *_: torch.randn(noise.shape, generator=generator, dtype=torch.float32).double()
    made = []

    def path(a, b):
        return made[0](a.float(), b.float()).double()

    def begin(sigmas):
        torch.set_default_dtype(torch.float32)
        made.append(k.K.BrownianTreeNoiseSampler(noise, sigmas[-2].float(), sigmas[0].float(), seed=[seed]))
        torch.set_default_dtype(torch.float64)
    path.begin = begin
    return path


def sampled(config, case, noise, injected, sdxl):
    name, steps, more = case["sampler"], case["steps"], {}
    spread = case.get("schedule") or k.DEFAULT.get(name, "normal")
    if name in OWN:
        kind = {"ddim": ddim, "plms": k.a1111_plms, "lcm": k.a1111_lcm}.get(name)
        return kind(config, steps)[1] if kind else k.a1111_unipc(config, steps, "bh2" if name.endswith("bh2") else "bh1")[1]
    if injected is None:
        seed = case["seeds"][0]
        generator = torch.Generator().manual_seed(seed)
        torch.randn(noise.shape, generator=generator, dtype=torch.float32)
        more["noise_sampler"] = seeded(name, noise, seed, generator)
        if hasattr(more["noise_sampler"], "begin"):
            model = k.Denoiser(config)
            cut = name in k.DISCARD
            levels = k.schedule(spread, model, steps + cut)
            more["noise_sampler"].begin(torch.tensor((levels[:-1] if cut else levels) + [0.0]))
    return k.run_k(name, spread, config, steps, sdxl=sdxl, **more)[1]


def draw(pipe, config, case, noise, injected):
    """Latents and pictures, as generate.draw."""
    spec = {key: config[key] for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type",
                                         "rescale_betas_zero_snr") if key in config}
    side = pipe.unet.config.sample_size
    if noise is None:
        noise = torch.randn((1, pipe.unet.config.out_channels, side, side), generator=torch.Generator().manual_seed(case["seeds"][0]))
    saved = k.network, k.start_noise, k.step_noise
    with torch.no_grad():
        k.network = network(pipe, case, *noise.shape[2:])
        k.start_noise = lambda: noise[0].double().numpy()
        k.step_noise = lambda i: injected[i][0].double().numpy()
        torch.set_default_dtype(torch.float64)
        try:
            x = sampled(spec, case, noise, injected, hasattr(pipe, "text_encoder_2"))
        finally:
            torch.set_default_dtype(torch.float32)
            k.network, k.start_noise, k.step_noise = saved
        latents = torch.from_numpy(x).float().reshape(noise.shape)
        x = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return latents, ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


# ---- the summary ----------------------------------------------------------------------------------------------------------------

class Worst:
    """The worst figures of a pipeline, and whose they are."""
    def __init__(self):
        self.n, self.latents, self.psnr = 0, (0.0, "-"), (math.inf, "-")

    def add(self, title, latents, psnr):
        self.n += 1
        self.latents, self.psnr = max(self.latents, (latents, title)), min(self.psnr, (psnr, title))

    def __str__(self):
        return f"{self.n} cases; latents within {self.latents[0]:.1e} ({self.latents[1]}), PSNR {self.psnr[0]:.1f} dB and more ({self.psnr[1]})"
