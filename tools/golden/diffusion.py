"""Golden files of tests/golden/diffusion: random numbers, noise schedules, samplers.

    python tools/golden/diffusion.py OUT_DIR [--k-diffusion DIR]

Made with torch 2.15.0 on a CPU with AVX2, diffusers 0.42.1, numpy 2. DIR is where the wheel k-diffusion 0.1.1.post1 was
unpacked (`pip download --no-deps k-diffusion==0.1.1.post1`); only its sampling.py and external.py are used.
"""
import argparse
import pathlib

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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--k-diffusion", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_rng(args.out)


if __name__ == "__main__":
    main()
