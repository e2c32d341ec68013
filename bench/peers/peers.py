r"""peers.py - the same work by Kiwame, PyTorch + diffusers and stable-diffusion.cpp, in turns; a table of ratios.

    python bench/peers/peers.py run --kiwame build/kiwame --work forward,lora --sizes 256x256,512x512
    python bench/peers/peers.py run --kiwame build/kiwame --work sample,vae-decode --sizes 512x512 \\
        --sd-cpp PATH/bin/sd-cli --sd-cpp-model sd15.safetensors
    python bench/peers/peers.py table                        # docs/PERFORMANCE.md, between its markers
    python bench/peers/peers.py gpu --models sd15,sdxl       # on a machine with CUDA: PyTorch's figures there

Every measurement is a process of its own on the same number of threads, ours and theirs in turns (--rounds), with the
peak of this machine measured beside each by `kiwame bench peak`. Figures go to --results, one JSON object a line; the
newest of each kind counts. Their best setting counts, whatever it is. Needs requirements.txt.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import sdcpp
import table
from torch_work import SETTINGS

HERE = pathlib.Path(__file__).resolve().parent
WORK = ("forward", "lora", "full", "vae-encode", "vae-decode", "sample")
# Their settings for each of our types of activations; all-bf16 is beside it, never like with like when training.
RIVALS = {
    "f32": ("f32", "f32-channels_last"),
    "bf16": ("f32", "bf16", "bf16-autocast", "bf16-channels_last", "all-bf16", "all-bf16-channels_last"),
}
COMPILED = {"f32": ("f32-compile",), "bf16": ("bf16-compile", "all-bf16-compile")}


def environment(threads):
    """Without what makes OpenBLAS guess wrong, and with the same number of threads for all."""
    e = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    return e | {"OMP_NUM_THREADS": str(threads), "KIWAME_THREADS": str(threads), "KIWAME_LANG": "en"}


class Bench:
    def __init__(self, o):
        self.o, self.env, self.runner = o, environment(o.threads), shlex.split(o.runner)

    def call(self, *command):
        """The last line that a process prints, which is a JSON object; None and a remark if it fails."""
        done = subprocess.run([*self.runner, *map(str, command)], env=self.env, text=True, capture_output=True,
                              cwd=HERE.parents[1])
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["?"]
            print(f"  failed ({done.returncode}): {shlex.join(map(str, command))}\n  {said[0][:300]}", file=sys.stderr)
            return None
        return json.loads(done.stdout.strip().splitlines()[-1])

    def peak(self, dtype):
        """FLOP/s of multiply-adds on registers; f32 where the machine has no bf16 dot products."""
        found = self.call(self.o.kiwame, "bench", "peak", "--seconds", "1", "--json")
        kinds = {p["kind"]: p["tflops"] for p in found["peaks"]} if found else {}
        return kinds.get(dtype) or kinds.get("f32")

    def ours(self, work, size, dtype):
        base = ["--model", self.o.model, "--size", size, "--batch", self.o.batch, "--dtype", dtype,
                "--seconds", self.o.seconds, "--runs", self.o.runs, "--json"]
        if work == "sample":                       # a sampling step with guidance is two evaluations of the U-Net
            base[base.index("--batch") + 1] = 2 * self.o.batch
        rank = ["--rank", self.o.rank] if work == "lora" else []
        norm = ["--max-grad-norm", "off"] if work in ("lora", "full") else []      # theirs has no limit
        return self.call(self.o.kiwame, "bench", "step", "--pass", "forward" if work == "sample" else work, *base, *rank,
                         *norm)

    def torch(self, work, size, setting):
        if work == "sample":
            return None
        return self.call(sys.executable, HERE / "torch_work.py", "--work", work, "--model", self.o.model, "--size", size,
                         "--batch", self.o.batch, "--rank", self.o.rank, "--setting", setting, "--threads",
                         self.o.threads, "--runs", self.o.runs, "--seconds", self.o.seconds,
                         *(["--profile"] if self.o.profile else []))


def beside(bench, dtype, measure):
    """A measurement of theirs between two looks at the peak."""
    before = bench.peak(dtype)
    found = measure()
    after = bench.peak(dtype)
    if found and before and after:
        found |= {"peak_tflops": max(before, after), "steady": min(before, after) >= 0.95 * max(before, after)}
    return found


def rivals(bench, work, dtype, keep):
    o = bench.o
    names = o.settings.split(",") if o.settings else RIVALS[dtype] + (COMPILED[dtype] if o.compile else ())
    if work in ("lora", "full", "forward", "vae-encode", "vae-decode"):
        for name in names:
            yield name, lambda size, name=name: bench.torch(work, size, name)
    if o.sd_cpp and work in ("sample", "vae-decode"):
        yield "sd.cpp", lambda size: sdcpp.measure(o, bench, work, size, keep)


def middle(found):
    """Several measurements of one kind as one: the median of their seconds, the most memory."""
    one = dict(found[len(found) // 2])
    one["seconds"] = statistics.median(f["seconds"] for f in found)
    one["rss_bytes"] = max(f["rss_bytes"] for f in found)
    one["rounds"] = len(found)
    peaks = [f["peak_tflops"] for f in found if f.get("peak_tflops")]
    if peaks:
        one["peak_tflops"] = statistics.median(peaks)
    return one


def compare(bench, work, size, dtype, keep):
    o, ours, theirs = bench.o, [], {}
    for r in range(o.rounds):
        print(f"{work} {size} {dtype}: round {r + 1} of {o.rounds}", flush=True)
        mine = bench.ours(work, size, dtype)
        if not mine:
            return
        ours.append(mine)
        for name, measure in rivals(bench, work, dtype, keep):
            found = beside(bench, dtype, lambda m=measure: m(size))
            if found:
                theirs.setdefault(name, []).append(found)
                print(f"  kiwame {mine['seconds']:.3f} s, {name} {found['seconds']:.3f} s", flush=True)
    record(o, {"kind": "ratio", "work": work, "size": size, "dtype": dtype, "model": o.model, "batch": o.batch,
               "rank": o.rank if work == "lora" else None, "ours": middle(ours),
               "theirs": {k: middle(v) for k, v in theirs.items()}})


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count()}


def record(o, found):
    found |= {"machine": machine(), "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
    o.results.parent.mkdir(parents=True, exist_ok=True)
    with open(o.results, "a") as f:
        f.write(json.dumps(found) + "\n")


def run(o):
    bench = Bench(o)
    with tempfile.TemporaryDirectory(prefix="peers-") as keep:
        for size in o.sizes.split(","):
            for work in o.work.split(","):
                for dtype in o.dtypes.split(","):
                    compare(bench, work, size, dtype, pathlib.Path(keep))


def gpu(o):
    """PyTorch's figures on this machine's GPU: the anchors of a later CUDA back end. Ours are not run."""
    try:
        import torch
    except ImportError:
        sys.exit("peers.py gpu: PyTorch is not installed; see bench/peers/requirements.txt")
    if not torch.cuda.is_available():
        sys.exit(f"peers.py gpu: there is no CUDA device here (torch {torch.__version__}, "
                 f"built for CUDA {torch.version.cuda or 'none'}); nothing was recorded")
    sizes = {"sd15": "512x512", "sdxl": "1024x1024"}
    bench = Bench(o)
    settings = ["f32", "bf16-autocast", "bf16-channels_last", "all-bf16"] + ["bf16-compile-cl"] * o.compile
    for model in o.models.split(","):
        for work in ("forward", "lora", "full"):
            for batch in (1, 4):
                found = {}
                for name in settings:
                    one = bench.call(sys.executable, HERE / "torch_work.py", "--work", work, "--model", model, "--size",
                                     sizes[model], "--batch", batch, "--setting", name, "--device", "cuda", "--runs",
                                     o.runs, "--seconds", o.seconds, "--warm", 5, "--profile")
                    if one:
                        found[name] = one
                        print(f"{model} {work} batch {batch} {name}: {one['seconds']:.4f} s", flush=True)
                if found:
                    record(o, {"kind": "gpu", "work": work, "size": sizes[model], "model": model, "batch": batch,
                               "rank": 16 if work == "lora" else None, "theirs": found})


def options():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    p.add_argument("what", choices=("run", "table", "gpu"))
    p.add_argument("--kiwame", default="build/kiwame", help="the program")
    p.add_argument("--model", default="sd15", choices=("sd15", "sdxl", "emoji", "shapes"))
    p.add_argument("--models", default="sd15,sdxl", help="gpu: which")
    p.add_argument("--work", default="forward,lora,full,vae-encode,vae-decode", help=f"of {', '.join(WORK)}")
    p.add_argument("--sizes", default="256x256,512x512")
    p.add_argument("--dtypes", default="f32", help="of ours: f32, bf16 or both")
    p.add_argument("--settings", help=f"of theirs, instead of the usual ones: {', '.join(SETTINGS)}")
    p.add_argument("--compile", action="store_true", help="torch.compile too: needs a C++ compiler and minutes")
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--rounds", type=int, default=2, help="ours and theirs, in turns")
    p.add_argument("--runs", type=int, default=3, help="in each process, after the first")
    p.add_argument("--seconds", type=float, default=0, help="runs go on for so long")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--runner", default="", help="put before each process: 'taskset -c 0,1', 'numactl -m 0'")
    p.add_argument("--profile", action="store_true", help="theirs by families of ops, in one run more")
    p.add_argument("--sd-cpp", type=pathlib.Path, help="the program of stable-diffusion.cpp")
    p.add_argument("--sd-cpp-model", type=pathlib.Path, help="its model: a file; random weights serve")
    p.add_argument("--sd-cpp-args", default="", help="more options for it")
    p.add_argument("--results", type=pathlib.Path, default=HERE / "results.jsonl")
    p.add_argument("--page", type=pathlib.Path, default=HERE.parents[1] / "docs" / "PERFORMANCE.md")
    o = p.parse_args()
    for w in o.work.split(","):
        if w not in WORK:
            p.error(f"--work {w}: one of {', '.join(WORK)}")
    o.kiwame = os.path.abspath(o.kiwame)
    return o


def main():
    o = options()
    start = time.monotonic()
    {"run": run, "gpu": gpu, "table": lambda o: None}[o.what](o)
    if o.what == "table":
        table.write(o.results, o.page)
    else:
        print(f"took {time.monotonic() - start:.0f} s; {o.results}")


if __name__ == "__main__":
    main()
