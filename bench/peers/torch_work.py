"""torch_work.py - one pass of PyTorch + diffusers, timed; prints one JSON object as `kiwame bench step --json` does.

    python bench/peers/torch_work.py --work lora --size 512x512 --setting f32 --threads 2
    python bench/peers/torch_work.py --work forward --model sdxl --size 1024x1024 --setting bf16-compile --device cuda

Run by peers.py in a process of its own, so that the peak of memory is that pass's alone. Needs requirements.txt.
"""
import argparse
import contextlib
import importlib.metadata
import json
import os
import sys
import time

# name: type of the frozen or only weights, type of what is trained, autocast, channels_last, compiled
SETTINGS = {
    "f32":                    ("float32", "float32", None, False, False),
    "f32-channels_last":      ("float32", "float32", None, True, False),
    "f32-compile":            ("float32", "float32", None, False, True),
    "f32-compile-cl":         ("float32", "float32", None, True, True),
    "bf16":                   ("bfloat16", "float32", None, False, False),     # adapters and masters in f32
    "bf16-autocast":          ("bfloat16", "float32", "bfloat16", False, False),
    "bf16-channels_last":     ("bfloat16", "float32", "bfloat16", True, False),
    "bf16-compile":           ("bfloat16", "float32", "bfloat16", False, True),
    "bf16-compile-cl":        ("bfloat16", "float32", "bfloat16", True, True),
    "all-bf16":               ("bfloat16", "bfloat16", None, False, False),    # moments too: not numerically honest
    "all-bf16-channels_last": ("bfloat16", "bfloat16", None, True, False),
    "all-bf16-compile":       ("bfloat16", "bfloat16", None, False, True),
}


class Setting:
    """How a pass is run: a row of SETTINGS on a device."""

    def __init__(self, name, device, checkpointing):
        import torch
        weights, master, cast, self.channels_last, self.compiled = SETTINGS[name]
        self.weights, self.master = getattr(torch, weights), getattr(torch, master)
        self.cast = getattr(torch, cast) if cast else None
        self.device, self.checkpointing, self.fused = device, checkpointing, True

    def autocast(self):
        import torch
        return torch.autocast(self.device, dtype=self.cast) if self.cast else contextlib.nullcontext()

    def compile(self, model):
        import torch
        return torch.compile(model) if self.compiled else model


def peak_rss():
    """VmHWM: the most this process ever had in memory, loading included."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))


# Families of ops as kiwame bench has them, by how an ATen op's name goes on after "aten::"
FAMILIES = (
    ("conv", ("mkldnn_convolution", "convolution_backward", "cudnn_convolution", "slow_conv", "_slow_conv", "thnn_conv")),
    ("linear", ("addmm", "mm", "linear", "mkldnn_linear")),
    ("attention", ("_scaled_dot_product", "_flash_attention", "_efficient_attention", "bmm", "baddbmm", "_softmax")),
    ("norm", ("native_group_norm", "native_layer_norm", "native_batch_norm", "batch_norm")),
    ("activation", ("silu", "gelu", "sigmoid")),
    ("update", ("_fused_adam", "_foreach", "linalg_vector_norm")),
    ("layout", ("copy_", "cat", "clone", "contiguous", "upsample", "_to_copy", "constant_pad", "index", "split", "slice")),
)


def family_of(name):
    rest = name.removeprefix("aten::")
    for family, heads in FAMILIES:
        if any(rest == h or rest.startswith(h + ("" if h.startswith("_") or h.endswith("_") else "_"))
               for h in heads):
            return family
    return "sum" if name.startswith("aten::") else "outside"


def breakdown(once):
    """Seconds of one run by family: self time on the calling thread, or on the GPU."""
    from torch.profiler import ProfilerActivity, profile
    import torch
    cuda = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])) as p:
        once()
    found = {}
    for e in p.key_averages():
        us = getattr(e, "self_device_time_total", 0) if cuda else e.self_cpu_time_total
        family = family_of(e.key)
        found[family] = found.get(family, 0) + us * 1e-6
    return dict(sorted(found.items(), key=lambda x: -x[1]))


def synchronize(device):
    if device == "cuda":
        import torch
        torch.cuda.synchronize()


def timed(once, o):
    """The first run, then at least o.runs and o.seconds of them."""
    each, start = [], time.perf_counter()
    once()
    synchronize(o.device)
    first = time.perf_counter() - start
    for _ in range(o.warm):
        once()
    synchronize(o.device)
    begun = time.perf_counter()
    while len(each) < o.runs or time.perf_counter() - begun < o.seconds:
        start = time.perf_counter()
        once()
        synchronize(o.device)
        each.append(time.perf_counter() - start)
    return first, sorted(each)


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def options(argv=None):
    p = argparse.ArgumentParser(description="one pass of PyTorch + diffusers, timed", allow_abbrev=False)
    p.add_argument("--work", required=True, choices=("forward", "lora", "full", "vae-encode", "vae-decode", "text"))
    p.add_argument("--model", default="sd15", choices=("sd15", "sdxl", "emoji", "shapes"))
    p.add_argument("--size", default="512x512")
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--setting", default="f32", choices=SETTINGS)
    p.add_argument("--checkpointing", action="store_true", help="activations are computed again in the backward pass")
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--warm", type=int, default=0, help="runs after the first that do not count")
    p.add_argument("--seconds", type=float, default=0)
    p.add_argument("--profile", action="store_true", help="one more run, by families of ops")
    o = p.parse_args(argv)
    o.width, o.height = (int(x) for x in o.size.split("x"))
    return o


def main():
    o = options()
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    os.environ["OMP_NUM_THREADS"] = str(o.threads)                 # before torch reads it
    import torch
    if o.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch_work.py: there is no CUDA device here (torch.cuda.is_available() is false)")
    torch.set_num_threads(o.threads)
    if o.device == "cuda":
        torch.set_float32_matmul_precision("high")                 # tf32, the usual setting of trainers
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(1)
    import torch_models
    start = time.perf_counter()
    once = torch_models.make_pass(o, Setting(o.setting, o.device, o.checkpointing))
    setup = time.perf_counter() - start
    first, each = timed(once, o)
    n = len(each)
    found = {
        "engine": "torch", "model": o.model, "pass": o.work, "width": o.width, "height": o.height, "batch": o.batch,
        "setting": o.setting + ("-checkpointing" if o.checkpointing else ""), "device": o.device, "threads": o.threads,
        "seconds": each[n // 2] if n % 2 else (each[n // 2 - 1] + each[n // 2]) / 2, "seconds_low": each[0],
        "seconds_high": each[-1], "runs": n, "setup_seconds": setup, "first_seconds": first, "rss_bytes": peak_rss(),
        "versions": {k: version(k) for k in ("torch", "diffusers", "peft")},
    }
    if o.device == "cuda":
        found["device_name"] = torch.cuda.get_device_name()
        found["device_bytes"] = torch.cuda.max_memory_allocated()
    if o.profile:
        found["families"] = breakdown(once)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
