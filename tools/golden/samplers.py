#!/usr/bin/env python3
"""Golden values in tests/golden/diffusion for the samplers: every one against k-diffusion, diffusers or A1111's definition.

    python tools/golden/samplers.py OUT_DIR

Made with torch 2.15.0, diffusers 0.42.1, k-diffusion 0.1.1 (its sampling.py and external.py), torchsde 0.2.6, scipy, numpy.
Writes more_samplers.txt (trajectories), sigmas.txt (schedules), brownian.txt (paths), variations.txt (mixed seeds).
"""
import argparse
import math
import pathlib
import sys

import diffusers
import numpy as np
import scipy.stats
import torch
import torchsde._brownian.brownian_interval as interval

from diffusion import SD, SIZE, cuda_randn, fnv, network, scheduler_json, start_noise, step_noise

sys.modules.setdefault("torchvision", None)
PREDICT = {"eps": {}, "v": dict(prediction_type="v_prediction"), "x0": dict(prediction_type="sample")}
ZERO = dict(prediction_type="v_prediction", rescale_betas_zero_snr=True)


def load_k():
    """sampling.py and external.py alone: the package wants much that only training needs."""
    import importlib
    import importlib.util
    import types
    folder = pathlib.Path(importlib.util.find_spec("k_diffusion").submodule_search_locations[0])
    for name in ("torchdiffeq",):
        sys.modules.setdefault(name, types.ModuleType(name)).odeint = None
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(folder)]
    sys.modules["k_diffusion"] = package
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    sys.modules["k_diffusion.utils"] = package.utils = utils
    return importlib.import_module("k_diffusion.sampling"), importlib.import_module("k_diffusion.external")


K, EXTERNAL = load_k()


def numbers(values):
    return " ".join(f"{float(v):.10g}" for v in values)


# ---- A1111's schedules, from their definitions, in double ---------------------------------------------------------

ALIGNED = {                              # A1111's and ComfyUI's tables of Align Your Steps, SD 1.5's and SDXL's
    "align_your_steps": ([14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
                         [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]),
    "align_your_steps_comfyui": (
        [14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904, 0.6523686016,
         0.3977456272, 0.1515232662, 0.0291671582],
        [14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289, 0.3798540708,
         0.2332364134, 0.1114188177, 0.0291671582])}


def aligned(name, sdxl, n):
    """Log sigma linear between the table's; ComfyUI's has a point more, of which the last becomes 0."""
    table, points = ALIGNED[name][sdxl], n + name.endswith("comfyui")
    if points == 1:                      # A1111 begins at its last then
        return table[:1]
    y = np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(table)), np.log(table[::-1]))
    return np.exp(y)[::-1][:n].tolist()


def schedule(name, d, n, sdxl=False):
    low, high = d.sigmas[0].item(), d.sigmas[-1].item()
    first, last = d.sigma_to_t(d.sigmas[-1]).item(), d.sigma_to_t(d.sigmas[0]).item()
    at = lambda t: float(d.t_to_sigma(torch.tensor(float(t))))
    if name in ("normal", "uniform"):
        out = [at(t) for t in np.linspace(first, last, n)]
    elif name == "karras":
        out = K.get_sigmas_karras(n, low, high)[:-1].tolist()
    elif name == "exponential":
        out = K.get_sigmas_exponential(n, low, high)[:-1].tolist()
    elif name == "sgm_uniform":
        out = [at(t) for t in np.linspace(first, last, n + 1)[:-1]]
    elif name == "simple":
        out = [float(d.sigmas[-(1 + int(i * (len(d.sigmas) / n)))]) for i in range(n)]
    elif name == "ddim":
        out = [float(s) for s in d.sigmas[1::max(len(d.sigmas) // n, 1)]][::-1]
    elif name == "beta":
        out = [low + scipy.stats.beta.ppf(1 - i / max(n - 1, 1), 0.6, 0.6) * (high - low) for i in range(n)]
    elif name == "beta_comfyui":         # of whole timesteps, none twice
        t = np.rint(scipy.stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6) * (len(d.sigmas) - 1)).astype(int)
        out = [float(d.sigmas[j]) for i, j in enumerate(t) if not i or j != t[i - 1]]
    elif name in ALIGNED:
        out = aligned(name, sdxl, n)
    elif name == "kl_optimal":
        a, b = math.atan(low), math.atan(high)
        out = [math.tan(i / n * a + (1 - i / n) * b) for i in range(n)]
    return out


SCHEDULES = ("normal", "uniform", "karras", "exponential", "sgm_uniform", "simple", "ddim", "beta", "kl_optimal")
LATER = ("beta_comfyui", *ALIGNED)


class Denoiser(EXTERNAL.DiscreteSchedule):
    """k-diffusion's wrappers in one, the network synthetic; t stays double."""
    def __init__(self, config, subset=None):
        abar = diffusers.DDIMScheduler(**config).alphas_cumprod.double()
        abar[-1] = abar[-1] if abar[-1] > 0 else 4.8973451890853435e-08
        if subset is not None:
            abar = abar[subset]
        super().__init__(((1 - abar) / abar) ** 0.5, quantize=False)
        self.kind, self.subset, self.t = config.get("prediction_type", "epsilon"), subset, []

    def t_to_sigma(self, t):
        low, high, w = t.floor().long(), t.ceil().long(), t.frac()
        return ((1 - w) * self.log_sigmas[low] + w * self.log_sigmas[high]).exp()

    def told(self, sigma):
        if self.subset is None:
            return float(self.sigma_to_t(sigma)[0])
        return float(self.subset[(sigma[0].log() - self.log_sigmas).abs().argmin()])

    def forward(self, x, sigma):
        s, t = float(sigma[0]), self.told(sigma)
        self.t.append(t)
        r = math.sqrt(1 + s * s)
        y = torch.from_numpy(network((x[0] / r).numpy(), t))[None]
        return {"epsilon": x - s * y, "v_prediction": x / r ** 2 - s / r * y, "sample": y}[self.kind]


# ---- k-diffusion ---------------------------------------------------------------------------------------------------

DISCARD = ("dpm_2", "dpm_2_ancestral", "dpmpp_3m_sde")
DEFAULT = {"dpm_2": "karras", "dpm_2_ancestral": "karras", "dpmpp_2m": "karras", "dpmpp_2s_ancestral": "karras",
           "dpmpp_sde": "karras", "dpmpp_2m_sde": "exponential", "dpmpp_2m_sde_heun": "exponential", "dpmpp_3m_sde": "exponential"}
STOCHASTIC = ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun",
              "dpmpp_3m_sde")


def run_k(name, spread, config, steps, first=0, sdxl=False, **more):
    model = Denoiser(config)
    sigmas = schedule(spread, model, steps + (name in DISCARD), sdxl)
    sigmas = torch.tensor((sigmas[:-1] if name in DISCARD else sigmas)[first:] + [0.0])
    per, count = 2 if name == "dpmpp_sde" else 1, [0]

    def noise(*_):
        count[0] += 1
        return torch.from_numpy(step_noise(count[0] - 1 + per * first))[None]

    if name in STOCHASTIC:
        more.setdefault("noise_sampler", noise)
    if name == "dpmpp_2m_sde_heun":
        more["solver_type"] = "heun"
    if name == "dpmpp_2m_sde" and "solver_type" not in more:
        more["solver_type"] = "midpoint"
    x = torch.from_numpy(start_noise())[None] * sigmas[0]
    K.torch.randn_like, saved = noise, torch.randn_like
    try:
        x = getattr(K, "sample_" + name.removesuffix("_heun"))(model, x, sigmas, disable=True, **more)
    finally:
        torch.randn_like = saved
    return np.array(model.t), x[0].numpy()


def k_cases():
    names = ("euler_ancestral", "euler", "heun", "lms", "dpm_2", "dpm_2_ancestral", "dpmpp_2m", "dpmpp_2s_ancestral", "dpmpp_sde",
             "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde")
    for name in names:
        own = DEFAULT.get(name, "normal")
        for kind, extra in [*PREDICT.items(), ("zero", ZERO)]:
            yield name, own, dict(SD, **extra), 9, "", *run_k(name, own, dict(SD, **extra), 9)
        for spread in SCHEDULES:
            if spread not in ("uniform", own):
                yield name, spread, SD, 8, "", *run_k(name, spread, SD, 8)
        yield name, own, SD, 2, "", *run_k(name, own, SD, 2)
        yield name, own, SD, 12, "first=7", *run_k(name, own, SD, 12, first=7)
        if name in STOCHASTIC:
            yield name, own, SD, 9, "eta=0.6 noise=0.9", *run_k(name, own, SD, 9, eta=0.6, s_noise=0.9)
            yield name, own, SD, 9, "eta=0", *run_k(name, own, SD, 9, eta=0.0)
    for name in ("euler", "heun", "dpm_2"):
        yield name, "karras", SD, 9, "churn=3 from=0.1 to=8 noise=1.05", *run_k(name, "karras", SD, 9, s_churn=3.0, s_tmin=0.1,
                                                                               s_tmax=8.0, s_noise=1.05)


# ---- A1111's own: PLMS, UniPC, LCM ---------------------------------------------------------------------------------

def eps_of(config, abar):
    def answer(x, t, a):
        y = network(x, float(t))
        kind = config.get("prediction_type", "epsilon")
        s = np.sqrt(1 - a)
        x0 = {"epsilon": (x - s * y) / np.sqrt(a), "v_prediction": np.sqrt(a) * x - s * y, "sample": y}[kind]
        return (x - np.sqrt(a) * x0) / s, x0
    return answer


def a1111_plms(config, steps):
    abar = diffusers.DDIMScheduler(**config).alphas_cumprod.double().numpy()
    t = np.clip(np.arange(0, 1000, 1000 // steps) + 1, 0, 999)
    answer, x, old, seen = eps_of(config, abar), start_noise(), [], []
    for k in range(len(t) - 1, 0, -1):
        a, b = abar[t[k]], abar[t[k - 1]]
        go = lambda e: np.sqrt(b) * (x - np.sqrt(1 - a) * e) / np.sqrt(a) + np.sqrt(1 - b) * e
        e = answer(x, t[k], a)[0]
        seen.append(t[k])
        if not old:
            seen.append(t[k - 1])
            mean = (e + answer(go(e), t[k - 1], b)[0]) / 2
        else:
            w = {1: [3 / 2, -1 / 2], 2: [23 / 12, -16 / 12, 5 / 12]}.get(len(old), [55 / 24, -59 / 24, 37 / 24, -9 / 24])
            mean = sum(f * v for f, v in zip(w, [e, *old]))
        x, old = go(mean), [e, *old][:3]
    return np.array(seen, float), x


def a1111_unipc(config, steps, variant, order=3):
    """UniPC with data prediction as its authors' code in A1111 has it; times 1 .. 1/1000, ln a linear between."""
    base = diffusers.DDIMScheduler(**config).alphas_cumprod.double().numpy()
    grid = np.linspace(1, 1 / 1000, steps + 1)
    la = np.interp(grid, np.arange(1, 1001) / 1000, 0.5 * np.log(base))
    a, s = np.exp(la), np.sqrt(1 - np.exp(2 * la))
    lam, told = la - np.log(s), (grid - 1 / 1000) * 1000
    seen, order = [], min(order, steps)

    def picture(x, i):
        seen.append(told[i])
        return eps_of(config, base)(x, told[i], a[i] ** 2)[1]

    def update(x, models, at, i, p, correct):
        h = lam[i] - lam[at[-1]]
        rk = [(lam[at[-k - 1]] - lam[at[-1]]) / h for k in range(1, p)]
        D = [(models[-k - 1] - models[-1]) / rk[k - 1] for k in range(1, p)]
        r = np.array(rk + [1.0])
        hh = -h
        B = hh if variant == "bh1" else np.expm1(hh)
        phi, f, R, b = np.expm1(hh) / hh - 1, 1, [], []
        for k in range(1, p + 1):
            R.append(r ** (k - 1))
            b.append(phi * f / B)
            f *= k + 1
            phi = phi / hh - 1 / f
        R, b = np.array(R), np.array(b)
        plain = s[i] / s[at[-1]] * x - a[i] * np.expm1(hh) * models[-1]
        rho = [] if p == 1 else [0.5] if p == 2 else np.linalg.solve(R[:-1, :-1], b[:-1])
        y = plain - a[i] * B * sum(q * d for q, d in zip(rho, D))
        if not correct:
            return y, None
        rho = [0.5] if p == 1 else np.linalg.solve(R, b)
        m = picture(y, i)
        return plain - a[i] * B * (sum(q * d for q, d in zip(rho[:-1], D)) + rho[-1] * (m - models[-1])), m

    x, at = start_noise(), [0]
    models = [picture(x, 0)]
    for i in range(1, steps + 1):
        p = i if i < order else min(order, steps + 1 - i)
        x, m = update(x, models, at, i, p, i < steps)
        models, at = models + [m], at + [i]
    return np.array(seen), x


def a1111_lcm(config, steps):
    subset = np.arange(19, 1000, 20)
    model = Denoiser(config, subset)
    sigmas = [float(model.t_to_sigma(torch.tensor(float(t)))) for t in np.linspace(49, 0, steps)] + [0.0]
    x = torch.from_numpy(start_noise())[None] * sigmas[0]
    for i in range(steps):
        d = model(x, torch.tensor([sigmas[i]]))
        k = model.t[-1] * 10
        x = k / math.sqrt(k * k + 0.25) * d + 0.25 / (k * k + 0.25) * x
        if sigmas[i + 1] > 0:
            x = x + sigmas[i + 1] * torch.from_numpy(step_noise(i))[None]
    return np.array(model.t), x[0].numpy()


def a1111_cases():
    for kind, extra in PREDICT.items():
        config = dict(SD, **extra)
        for steps in (4, 10, 21):
            yield "plms", "auto", config, steps, "", *a1111_plms(config, steps)
            yield "uni_pc", "auto", config, steps, "", *a1111_unipc(config, steps, "bh1")
            yield "uni_pc_bh2", "auto", config, steps, "", *a1111_unipc(config, steps, "bh2")
        for steps in (1, 4, 8):
            yield "lcm", "auto", config, steps, "", *a1111_lcm(config, steps)


# ---- diffusers -----------------------------------------------------------------------------------------------------

def run_diffusers(scheduler, steps, draws=1, **kwargs):
    module = sys.modules[type(scheduler).__module__]
    scheduler.set_timesteps(steps)
    for name in ("alphas_cumprod", "final_alpha_cumprod", "sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down"):
        if torch.is_tensor(getattr(scheduler, name, None)) and isinstance(scheduler, (diffusers.PNDMScheduler, diffusers.LCMScheduler,
                                                                                        diffusers.TCDScheduler)):
            setattr(scheduler, name, getattr(scheduler, name).double())
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    count = [0]

    def noise(*_, **__):
        count[0] += 1
        return torch.from_numpy(step_noise(count[0] - 1))[None]

    saved = getattr(module, "randn_tensor", None)
    if saved:
        module.randn_tensor = noise
    if isinstance(scheduler, diffusers.DPMSolverSDEScheduler):
        scheduler.noise_sampler = noise
    x, seen = torch.from_numpy(start_noise())[None] * scheduler.init_noise_sigma, []
    try:
        for t in scheduler.timesteps:
            y = torch.from_numpy(network(scheduler.scale_model_input(x, t).double().numpy(), float(t)))
            seen.append(float(t))
            x = scheduler.step(y, t, x, **kwargs).prev_sample
    finally:
        if saved:
            module.randn_tensor = saved
    return np.array(seen), x[0].double().numpy()


def diffusers_cases():
    d = diffusers
    euler_like = {"heun": d.HeunDiscreteScheduler, "lms": d.LMSDiscreteScheduler, "dpm_2": d.KDPM2DiscreteScheduler,
                  "dpm_2_ancestral": d.KDPM2AncestralDiscreteScheduler}
    for name, cls in euler_like.items():
        for spacing in ("leading", "trailing", "linspace"):
            for kind in ("eps", "v"):
                config = dict(SD, timestep_spacing=spacing, **PREDICT[kind])
                config.update(dict(steps_offset=1) if spacing == "leading" else {})
                yield name, "auto", config, 9, "", *run_diffusers(cls(**config), 9)
        config = dict(SD, timestep_spacing="linspace", use_karras_sigmas=True)
        yield name, "auto", config, 8, "", *run_diffusers(cls(**config), 8)
    for flag, spread in (("use_exponential_sigmas", "exponential"), ("use_beta_sigmas", "beta")):
        for name, cls in (("euler", d.EulerDiscreteScheduler), ("heun", d.HeunDiscreteScheduler), ("lms", d.LMSDiscreteScheduler),
                          ("dpmpp_2m", d.DPMSolverMultistepScheduler), ("uni_pc_bh2", d.UniPCMultistepScheduler)):
            config = dict(SD, timestep_spacing="linspace")
            yield name, spread, config, 8, "", *run_diffusers(cls(**config, **{flag: True}), 8)
    for kind in ("eps", "v", "x0"):
        for spacing in ("leading", "trailing", "linspace"):
            config = dict(SD, timestep_spacing=spacing, steps_offset=1, **PREDICT[kind])
            for steps in (10, 20):
                yield "dpmpp_2m_sde", "auto", config, steps, "", *run_diffusers(
                    d.DPMSolverMultistepScheduler(**config, algorithm_type="sde-dpmsolver++"), steps)
                yield "uni_pc_bh2", "auto", config, steps, "", *run_diffusers(d.UniPCMultistepScheduler(**config, solver_type="bh2"), steps)
        plain = dict(SD, timestep_spacing="leading", steps_offset=1, **PREDICT[kind])
        if kind != "x0":
            for steps in (1, 4, 20):
                config = dict(plain, set_alpha_to_one=False)
                yield "plms", "auto", config, steps, "", *run_diffusers(
                    d.PNDMScheduler(**config, skip_prk_steps=True), steps)
        for steps in (1, 4, 7):
            yield "lcm", "auto", dict(SD, **PREDICT[kind]), steps, "", *run_diffusers(d.LCMScheduler(**SD, **PREDICT[kind]), steps)
            for gamma in (0.0, 0.3, 1.0):
                yield "tcd", "auto", dict(SD, **PREDICT[kind]), steps, f"gamma={gamma}", *run_diffusers(
                    d.TCDScheduler(**SD, **PREDICT[kind]), steps, eta=gamma)
    zero = dict(SD, **ZERO, timestep_spacing="trailing")
    yield "uni_pc_bh2", "auto", zero, 10, "", *run_diffusers(d.UniPCMultistepScheduler(**zero), 10)
    yield "lcm", "auto", dict(SD, **ZERO), 4, "", *run_diffusers(d.LCMScheduler(**SD, **ZERO), 4)
    for kind in ("eps", "v"):
        config = dict(SD, timestep_spacing="linspace", **PREDICT[kind])
        yield "dpmpp_sde", "auto", config, 8, "", *run_diffusers(d.DPMSolverSDEScheduler(**config), 8)


def write_samplers(out):
    lines = ["# source sampler schedule steps options / configuration / timesteps of all evaluations / x at the end"]

    def cases(source, rows):
        for sampler, spread, config, steps, options, t, x in rows:
            if not np.isfinite(x).all():
                print("not finite:", source, sampler, spread, config, steps)
                continue
            lines.extend([f"{source} {sampler} {spread} {steps} {options}".strip(), scheduler_json(config), numbers(t), numbers(x)])

    cases("diffusers", diffusers_cases())
    torch.set_default_dtype(torch.float64)
    cases("a1111", a1111_cases())
    cases("a1111", k_cases())
    torch.set_default_dtype(torch.float32)
    (out / "more_samplers.txt").write_text("\n".join(lines) + "\n")
    print(len(lines) // 4, "trajectories")


def write_sigmas(out):
    lines = ["# schedule base n / sigmas; base: 0 Stable Diffusion's levels, 1 with zero terminal SNR, 2 SDXL"]
    torch.set_default_dtype(torch.float64)
    for base in (0, 1, 2):
        d = Denoiser(dict(SD, **(ZERO if base == 1 else {})))
        for name in (*SCHEDULES, *LATER) if base < 2 else ALIGNED:
            for n in (1, 2, 7, 20, 31) if name in SCHEDULES else (1, 2, 7, 10, 11, 20, 31, 400):
                lines += [f"{name} {base} {n}", " ".join(f"{v:.14g}" for v in schedule(name, d, n, base == 2))]
    torch.set_default_dtype(torch.float32)
    (out / "sigmas.txt").write_text("\n".join(lines) + "\n")


# ---- noise -----------------------------------------------------------------------------------------------------------

def gpu_randn(size, dtype, device, seed):
    return torch.from_numpy(cuda_randn(int(seed), 0, math.prod(size))).reshape(size).to(dtype)


def write_brownian(out):
    """BrownianTreeNoiseSampler over Karras' sigmas; draws of DPM++ SDE (two a step, overlapping) from two seeds."""
    lines = ["# generator seed / the sigmas of the draws, from and to / first eight of each draw's 64 numbers"]
    d = Denoiser(SD)
    sigmas = K.get_sigmas_karras(6, d.sigmas[0].item(), d.sigmas[-1].item())
    saved = interval._randn
    for generator, draw in (("cpu", saved), ("gpu", gpu_randn)):
        interval._randn = draw
        for seed in (0, 42, 2**32 + 5):
            noise = K.BrownianTreeNoiseSampler(torch.zeros(1, 4, 4, 4), sigmas[-2], sigmas[0], seed=[seed])
            points, values = [], []
            for i in range(5):
                for to in ((sigmas[i] * sigmas[i + 1]).sqrt(), sigmas[i + 1]):
                    points += [sigmas[i], to]
                    values += noise(sigmas[i], to).flatten()[:8].tolist()
            lines += [f"{generator} {seed}", " ".join(f"{float(p):.9g}" for p in points), " ".join(f"{v:.8g}" for v in values)]
    interval._randn = saved
    for entropy in (0, 42, 2**32 + 5):
        for key in ((), (3, 2), (2**33 + 1, 34)):
            s = np.random.SeedSequence(entropy=entropy, spawn_key=key, pool_size=24).generate_state(4)
            lines.append(f"words {entropy} {len(key)} {' '.join(map(str, [*key, *s]))}")
    (out / "brownian.txt").write_text("\n".join(lines) + "\n")


def slerp(f, low, high):
    a, b = low / low.norm(dim=1, keepdim=True), high / high.norm(dim=1, keepdim=True)
    w = (a * b).sum(1)
    if w.mean() > 0.9995:
        return low * f + high * (1 - f)
    w = torch.acos(w)
    return (torch.sin((1 - f) * w) / torch.sin(w)).unsqueeze(1) * low + (torch.sin(f * w) / torch.sin(w)).unsqueeze(1) * high


def randn(kind, seed, shape):
    if kind == "gpu":
        return torch.from_numpy(cuda_randn(seed, 0, math.prod(shape))).reshape(shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def write_variations(out):
    lines = ["# generator seed other strength from-h from-w delta / 4 x 6 x 8 starting noise, every 7th / first draw after it, likewise"]
    for kind in ("cpu", "gpu"):
        for seed, other, f, h, w, delta in ((1, 2, 0.25, 0, 0, 0), (1, 1, 0.4, 0, 0, 0), (5, 9, 1.0, 0, 0, 31337), (7, 8, 0.0, 4, 12, 0),
                                            (7, 8, 0.3, 9, 4, 3)):
            shape = (4, 6, 8)
            drawn = (4, h or 6, w or 8)
            noise = randn(kind, seed, drawn)
            if f:
                noise = slerp(f, noise, randn(kind, other, drawn))
            if h:
                x = randn(kind, seed, shape)
                dx, dy = (shape[2] - w) // 2, (shape[1] - h) // 2
                ww, hh = (w if dx >= 0 else w + 2 * dx), (h if dy >= 0 else h + 2 * dy)
                tx, ty, dx, dy = max(dx, 0), max(dy, 0), max(-dx, 0), max(-dy, 0)
                x[:, ty:ty + hh, tx:tx + ww] = noise[:, dy:dy + hh, dx:dx + ww]
                noise = x
            if kind == "gpu":
                after = torch.from_numpy(cuda_randn(seed + delta, 0 if delta else 1, 192))
            else:
                g = torch.Generator().manual_seed(seed + delta)
                after = torch.randn(shape, generator=g)
                after = after if delta else torch.randn(shape, generator=g)
            lines += [f"{kind} {seed} {other} {f} {h} {w} {delta}", numbers(noise.flatten()[::7]), numbers(after.flatten()[::7])]
    (out / "variations.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_sigmas(args.out)
    write_brownian(args.out)
    write_variations(args.out)
    write_samplers(args.out)


if __name__ == "__main__":
    main()
