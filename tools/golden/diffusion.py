"""Golden files of tests/golden/diffusion: random numbers, noise schedules, samplers.

    python tools/golden/diffusion.py OUT_DIR [--k-diffusion DIR]

Made with torch 2.15.0 on a CPU with AVX2, diffusers 0.42.1, numpy 2. DIR is where the wheel k-diffusion 0.1.1.post1 was
unpacked (`pip download --no-deps k-diffusion==0.1.1.post1`); only its sampling.py and external.py are used.
"""
import argparse
import json
import pathlib

import diffusers
import diffusers.schedulers.scheduling_euler_ancestral_discrete as ancestral
import numpy as np
import torch

SEEDS = (0, 1, 42, 12345, 2**32 + 5)
SIZES = (1, 5, 15, 16, 17, 64, 4 * 64 * 64, 3, 4, 30)


def fnv(x):
    h = 14695981039346656037
    for b in x.tobytes():
        h = (h ^ b) * 1099511628211 & (2**64 - 1)
    return h


def philox(counter, key):
    """Philox4x32-10 on arrays of uint64 holding 32-bit words."""
    word, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a, b, c, d = counter
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (q >> half) ^ b ^ k0, q & word, (p >> half) ^ d ^ k1, p & word
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & word, (k1 + np.uint64(0xBB67AE85)) & word
    return a, b


def cuda_randn(seed, call, n):
    """The recipe of A1111's rng_philox: float constants, arithmetic in double."""
    zero = np.zeros(n, np.uint64)
    a, b = philox((zero + np.uint64(call), zero, np.arange(n, dtype=np.uint64), zero), seed)
    step, turn = np.float32(2.3283064e-10), np.float32(2.3283064e-10 * 6.2831855)
    u = a.astype(np.float64) * np.float64(step) + np.float64(step / 2)
    v = b.astype(np.float64) * np.float64(turn) + np.float64(turn / 2)
    return (np.sqrt(-2.0 * np.log(u)) * np.sin(v)).astype(np.float32)


def write_rng(out):
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    lines = ["# generator seed n fnv1a(float32 bytes) first last; calls of one seed follow each other"]
    for seed in SEEDS:
        torch.manual_seed(seed)
        for n in SIZES:
            x = torch.randn(n).numpy()
            lines.append(f"torch {seed} {n} {fnv(x):016x} {x[0]:.9g} {x[-1]:.9g}")
    for seed in SEEDS:
        for call, n in enumerate((1, 12, 4 * 64 * 64)):
            x = cuda_randn(seed, call, n)
            lines.append(f"cuda {seed} {n} {fnv(x):016x} {x[0]:.9g} {x[-1]:.9g}")
    (out / "rng.txt").write_text("\n".join(lines) + "\n")



# ---- noise schedules -----------------------------------------------------------------------------------------------

SD = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
SCHEDULES = {
    "sd": SD,
    "linear": dict(beta_schedule="linear"),
    "cosine": dict(beta_schedule="squaredcos_cap_v2"),
    "sd-333": dict(SD, num_train_timesteps=333),
    "trained": dict(num_train_timesteps=5, trained_betas=[0.1, 0.2, 0.25, 0.5, 0.75]),
    "sd-zero": dict(SD, rescale_betas_zero_snr=True),
    "linear-zero": dict(beta_schedule="linear", num_train_timesteps=777, rescale_betas_zero_snr=True),
    "cosine-zero": dict(beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=True),
}


def numbers(values):
    return " ".join(f"{float(v):.17g}" for v in values)


def scheduler_json(config):
    return json.dumps(dict(config, _class_name="EulerDiscreteScheduler", clip_sample=config.get("clip_sample", False)))


def write_schedules(out):
    """One block per schedule: its configuration, alphas_cumprod (hash of the float32 bytes; every 37th)."""
    lines = ["# name / configuration / n fnv1a / every 37th alphas_cumprod, then the last two"]
    for name, config in SCHEDULES.items():
        x = diffusers.DDIMScheduler(**config).alphas_cumprod.numpy()
        lines += [name, scheduler_json(config), f"{len(x)} {fnv(x):016x}", numbers([*x[::37], *x[-2:]])]
    (out / "schedules.txt").write_text("\n".join(lines) + "\n")


# ---- diffusers' timestep lists for every step count -----------------------------------------------------------------

def write_lists(out):
    """One line per scheduler class, spacing and training length: a hash over the lists of 1 .. 1000 steps."""
    lines = ["# sampler spacing training-steps fnv1a(int32 timesteps of every count that works) how-many"]
    for label, cls in (("ddim", diffusers.DDIMScheduler), ("dpmpp_2m", diffusers.DPMSolverMultistepScheduler)):
        for spacing in ("leading", "trailing", "linspace"):
            for n in (1000, 777):
                s = cls(**dict(SD, num_train_timesteps=n), timestep_spacing=spacing, steps_offset=1)
                rows = []
                for steps in range(1, n + 1):
                    if spacing == "leading" and cls is diffusers.DPMSolverMultistepScheduler and steps + 1 > n:
                        continue
                    s.set_timesteps(steps)
                    t = s.timesteps.numpy()
                    t = t[t >= 0]                         # rounding makes "trailing" end in -1 at 62 of 1000 counts
                    if t.max() < n:
                        rows.append(t.astype(np.int32))
                lines.append(f"{label} {spacing} {n} {fnv(np.concatenate(rows)):016x} {sum(map(len, rows))}")
    (out / "lists.txt").write_text("\n".join(lines) + "\n")


# ---- samplers --------------------------------------------------------------------------------------------------------

SIZE = 24


def start_noise():
    i = np.arange(SIZE)
    return 1.5 * np.sin(0.9 * i + 0.3) + 0.4 * np.cos(2.3 * i)


def step_noise(step):
    i = np.arange(SIZE)
    return 1.3 * np.sin(1.7 * i + 2.3 * step + 0.1)


def network(x, t):
    """The synthetic model: smooth in x and t, the same in the C test."""
    i = np.arange(SIZE)
    return 0.3 * x + 0.5 * np.sin(0.7 * i + 0.004 * t) + 0.2 * np.cos(x)


def run_diffusers(scheduler, steps, **kwargs):
    """Double precision where the scheduler allows; its noise comes from step_noise."""
    scheduler.set_timesteps(steps)
    if isinstance(scheduler, diffusers.DDIMScheduler):    # the same values; 1 - a - std^2 no longer cancels in float32
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)                      # else two equal timesteps at the start skip a step
    x = torch.from_numpy(start_noise()) * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, t)
        model = torch.from_numpy(network(seen.double().numpy(), float(t)))
        extra = dict(kwargs)
        if isinstance(scheduler, diffusers.EulerAncestralDiscreteScheduler):
            ancestral.randn_tensor = lambda *a, i=i, **k: torch.from_numpy(step_noise(i))
        elif extra.get("eta"):
            extra["variance_noise"] = torch.from_numpy(step_noise(i))
        x = scheduler.step(model, t, x, **extra).prev_sample
    return scheduler.timesteps.double().numpy(), x.double().numpy()


def diffusers_cases():
    v = dict(prediction_type="v_prediction")
    zero = dict(v, rescale_betas_zero_snr=True)
    sets = {"eps": {}, "v": v, "zero": zero}
    ddim, euler = diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler
    a, dpm = diffusers.EulerAncestralDiscreteScheduler, diffusers.DPMSolverMultistepScheduler
    for spacing in ("leading", "trailing", "linspace"):
        for name, extra in sets.items():
            config = dict(SD, timestep_spacing=spacing, steps_offset=1, **extra)
            for steps in (25, 7):
                if not (name == "zero" and spacing == "leading"):
                    yield "ddim", config, steps, 0, ddim(**config, clip_sample=False), {}
            yield "ddim", dict(config, set_alpha_to_one=False), 30, 0.7, \
                ddim(**config, clip_sample=False, set_alpha_to_one=False), dict(eta=0.7)
            yield "euler", config, 20, -1, euler(**config), {}
            yield "euler", dict(config, use_karras_sigmas=True), 12, -1, euler(**config, use_karras_sigmas=True), {}
            yield "euler_ancestral", config, 20, -1, a(**config), {}
            yield "dpmpp_2m", config, 20, -1, dpm(**config), {}
            yield "dpmpp_2m", dict(config, use_karras_sigmas=True), 12, -1, dpm(**config, use_karras_sigmas=True), {}
    clip = dict(SD, timestep_spacing="leading", steps_offset=1, clip_sample=True, clip_sample_range=1.5)
    yield "ddim", clip, 10, 0, ddim(**clip), {}
    cosine = dict(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing")
    yield "ddim", cosine, 10, 1, ddim(**cosine, clip_sample=False), dict(eta=1.0)
    yield "dpmpp_2m", dict(cosine, use_karras_sigmas=True), 10, -1, dpm(**cosine, use_karras_sigmas=True), {}
    for name, cls in (("ddim", ddim), ("euler", euler), ("dpmpp_2m", dpm)):         # configurations without a spacing
        config = dict(SD, steps_offset=1)
        yield name, config, 11, 0, cls(**config, **(dict(clip_sample=False) if cls is ddim else {})), {}


def load_k_diffusion(folder):
    """sampling.py and external.py of the wheel, without the packages that only other samplers need."""
    import importlib
    import sys
    import types
    for name, members in (("torchdiffeq", ("odeint",)), ("torchsde", ()), ("scipy", ("integrate",))):
        sys.modules[name] = types.ModuleType(name)
        for m in members:
            setattr(sys.modules[name], m, None)
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(folder / "k_diffusion")]
    sys.modules["k_diffusion"] = package
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    sys.modules["k_diffusion.utils"] = package.utils = utils
    package.sampling = importlib.import_module("k_diffusion.sampling")
    return package.sampling, importlib.import_module("k_diffusion.external")


def k_cases(folder):
    """k-diffusion as A1111 runs it: x = noise * sigmas[0], sigmas by get_sigmas or Karras between the model's ends."""
    sampling, external = load_k_diffusion(folder)
    a1111_zero = 4.8973451890853435e-08
    for kind, extra in (("eps", {}), ("v", dict(prediction_type="v_prediction")),
                        ("zero", dict(prediction_type="v_prediction", rescale_betas_zero_snr=True))):
        config = dict(SD, **extra)
        abar = diffusers.DDIMScheduler(**config).alphas_cumprod.double()
        abar[-1] = abar[-1] if abar[-1] > 0 else a1111_zero
        base = external.DiscreteEpsDDPMDenoiser if kind == "eps" else external.DiscreteVDDPMDenoiser

        class Model(base):
            def __init__(self):
                super().__init__(None, abar, quantize=False)
                self.t = []

            def answer(self, x, t):
                self.t.append(float(t[0]))
                return torch.from_numpy(network(x[0].numpy(), float(t[0])))[None]

            get_eps = get_v = answer

            def t_to_sigma(self, t):                      # as published, but t stays double
                low, high, w = t.floor().long(), t.ceil().long(), t.frac()
                return ((1 - w) * self.log_sigmas[low] + w * self.log_sigmas[high]).exp()

        for name in ("euler", "euler_ancestral", "dpmpp_2m"):
            for schedule, steps in (("normal", 20), ("karras", 20), ("normal", 5), ("karras", 6)):
                model = Model()
                sigmas = (model.get_sigmas(steps) if schedule == "normal" else
                          sampling.get_sigmas_karras(steps, model.sigma_min.item(), model.sigma_max.item()))
                more, count = {}, [0]
                if name == "euler_ancestral":
                    def noise(*_, count=count):
                        count[0] += 1
                        return torch.from_numpy(step_noise(count[0] - 1))[None]
                    more["noise_sampler"] = noise
                x = torch.from_numpy(start_noise())[None] * sigmas[0]
                x = getattr(sampling, "sample_" + name)(model, x, sigmas, disable=True, **more)
                yield name, schedule, config, steps, -1, np.array(model.t), x[0].numpy()


def a1111_ddim_cases():
    """A1111's own DDIM: timesteps 1 + i*(1000//steps), the lowest never evaluated."""
    for extra, steps, eta in (({}, 20, 0), ({}, 30, 0.8), (dict(prediction_type="v_prediction"), 12, 0)):
        config = dict(SD, **extra)
        abar = diffusers.DDIMScheduler(**config).alphas_cumprod.double().numpy()
        t = np.clip(np.arange(0, 1000, 1000 // steps) + 1, 0, 999)
        x, seen = start_noise(), []
        for i, k in enumerate(range(len(t) - 1, 0, -1)):
            a, b = abar[t[k]], abar[t[k - 1]]
            y = network(x, float(t[k]))
            eps = y if not extra else np.sqrt(a) * y + np.sqrt(1 - a) * x
            std = eta * np.sqrt((1 - b) / (1 - a) * (1 - a / b))
            x0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
            x = np.sqrt(b) * x0 + np.sqrt(1 - b - std**2) * eps + std * step_noise(i)
            seen.append(t[k])
        yield "ddim", "normal", config, steps, eta, np.array(seen, float), x


def write_samplers(out, k_folder):
    lines = ["# source sampler schedule steps eta / configuration / timesteps / x at the end"]

    def case(source, sampler, schedule, config, steps, eta, t, x):
        lines.extend([f"{source} {sampler} {schedule} {steps} {eta}", scheduler_json(config), numbers(t), numbers(x)])

    for sampler, config, steps, eta, scheduler, kwargs in diffusers_cases():
        t, x = run_diffusers(scheduler, steps, **kwargs)
        case("diffusers", sampler, "auto", config, steps, eta, t, x)
    for row in a1111_ddim_cases():
        case("a1111", *row)
    if k_folder:
        torch.set_default_dtype(torch.float64)
        for row in k_cases(k_folder):
            case("a1111", *row)
    (out / "samplers.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--k-diffusion", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_rng(args.out)
    write_schedules(args.out)
    write_lists(args.out)
    write_samplers(args.out, args.k_diffusion)


if __name__ == "__main__":
    main()
