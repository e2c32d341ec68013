#!/usr/bin/env python3
"""merge.py - what `merge` and `extract` compute, against NumPy and diffusers.

  merge.py --golden tests/golden/merge            values.safetensors of tests/unit/merge: formulas in NumPy, f32
  merge.py --kiwame build/kiwame BASE...          BASE: pipeline folders of make_models.py --pipelines. Whole models: weighted sum
                                                  and TIES of all tensors; LoRAs extracted, concatenated, resized in diffusers

TIES: Yadav et al. 2023, trimmed over the whole difference, signs by mass. DARE: Yu et al. 2023.
"""
import argparse
import json
import os
import shutil
import subprocess
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

SHAPES = {"encoder.layers.0.fc1.weight": (37, 53), "encoder.layers.0.fc2.weight": (64, 9), "encoder.layers.0.fc1.bias": (37,),
          "encoder.layers.1.fc1.weight": (5, 3)}


# ---- formulas -------------------------------------------------------------------------------------------------------

def weighted(models, w):
    out = np.float32(w[0]) * models[0]
    for m, x in zip(models[1:], w[1:]):
        out = out + np.float32(x) * m
    return out


def add_difference(a, others, w, c):
    out = a
    for m, x in zip(others, w):
        out = out + np.float32(x) * (m - c)
    return out


def slerp(a, b, t):
    a64, b64 = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    cosine = a64 @ b64 / np.sqrt((a64 @ a64) * (b64 @ b64))
    theta = np.arccos(cosine)
    return (np.sin((1 - t) * theta) / np.sin(theta) * a64 + np.sin(t * theta) / np.sin(theta) * b64).reshape(a.shape)


def threshold(deltas, density):
    """The smallest magnitude among the largest `density` of all numbers of a model's difference."""
    flat = np.sort(np.abs(np.concatenate([d.ravel() for d in deltas])))
    keep = max(1, int(density * flat.size + 0.5))
    return flat[flat.size - keep]


def elect(c, deltas, w, scale):
    mass, total, share = np.zeros_like(c), np.zeros_like(c), np.zeros_like(c)
    for d, x in zip(deltas, w):
        mass = mass + np.float32(x) * d
    for d, x in zip(deltas, w):
        v = np.float32(x) * d
        agrees = ((mass > 0) & (v > 0)) | ((mass < 0) & (v < 0))
        total = total + np.where(agrees, v, np.float32(0))
        share = share + np.where(agrees, np.abs(np.float32(x)), np.float32(0))
    merged = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    return np.where(share > 0, c + np.float32(scale) * merged, c)


def crc32c(crc, data):
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def philox(counter, key):
    """Philox4x32-10; counter: 4 arrays of uint64 below 2^32."""
    m, k = np.uint64(0xffffffff), [key & 0xffffffff, key >> 32]
    c = [np.asarray(x, np.uint64) for x in counter]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xd2511f53), c[2] * np.uint64(0xcd9e8d57)
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]), p1 & m, (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]), p0 & m]
        k = [(k[0] + 0x9e3779b9) & 0xffffffff, (k[1] + 0xbb67ae85) & 0xffffffff]
    return c


def dare(d, part, name, model, drop, seed):
    n = d.size
    block = np.arange((n + 3) // 4, dtype=np.uint64)
    same = np.ones_like(block)
    words = philox([block, same * np.uint64(crc32c(part, name.encode())), same * np.uint64(model), same * np.uint64(5)], seed)
    u = (np.stack(words, 1).reshape(-1)[:n] >> np.uint64(8)).astype(np.float32) * np.float32(2.0 ** -24)
    p = np.float32(drop)
    return np.where(u.reshape(d.shape) < p, np.float32(0), d / (np.float32(1) - p))


def golden(out):
    g = np.random.default_rng(7)
    c = {k: g.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
    models = [{k: (v + 0.1 * g.standard_normal(v.shape)).astype(np.float32) for k, v in c.items()} for _ in range(3)]
    t = {f"c.{k}": v for k, v in c.items()}
    for i, m in enumerate(models):
        t.update({f"m{i}.{k}": v for k, v in m.items()})
    w = [0.5, 1.0, 1.5]
    thresholds = [threshold([m[k] - c[k] for k in SHAPES], 0.3) for m in models]
    for k in SHAPES:
        x = [m[k] for m in models]
        d = [m - c[k] for m in x]
        t[f"sum.{k}"] = weighted(x, [1 - 0.3 - 0.2, 0.3, 0.2])
        t[f"add-difference.{k}"] = add_difference(x[0], x[1:], [0.3, 0.8], c[k])
        t[f"slerp.{k}"] = slerp(x[0], x[1], 0.3).astype(np.float32)
        t[f"ties.{k}"] = elect(c[k], [np.where(np.abs(a) >= h, a, np.float32(0)) for a, h in zip(d, thresholds)], w, 0.7)
        dropped = [dare(a, 2, k, i, 0.6, 42) for i, a in enumerate(d)]
        t[f"dare.{k}"] = c[k] + np.float32(0.7) * weighted(dropped, w)
        t[f"dare-ties.{k}"] = elect(c[k], dropped, w, 0.7)
    t["thresholds"] = np.array(thresholds, np.float32)
    for name, rows, columns, rank in (("wide", 20, 300, 20), ("tall", 261, 33, 33), ("low", 40, 60, 5), ("square", 65, 65, 65)):
        m = g.standard_normal((rows, rank)) * np.logspace(0, -3, rank) @ g.standard_normal((rank, columns))
        t[f"svd.{name}"] = m.astype(np.float32)
        t[f"values.{name}"] = np.linalg.svd(t[f"svd.{name}"].astype(np.float64), compute_uv=False)
    # An inpainting model beside ones without a mask: nine input channels, of which four take part
    conv = lambda n, like=None: (g.standard_normal((6, n, 3, 3)) if like is None else like + 0.1 * g.standard_normal(like.shape)).astype(np.float32)
    base = conv(4)
    custom, other, wide = conv(4, base), conv(4, base), conv(9)
    wide[:, :4] = conv(4, base)
    t |= {"in.wide": wide, "in.custom": custom, "in.other": other, "in.base": base}
    four = wide[:, :4]
    limits = [threshold([m - base], 0.3) for m in (four, custom)]
    dropped = [dare(m - base, 0, "conv_in.weight", i, 0.6, 42) for i, m in enumerate((four, custom))]
    for k, merged in {
        "sum": weighted([four, custom, other], [0.5, 0.3, 0.2]), "add-difference": add_difference(four, [custom, other], [1.0, 0.5], base),
        "slerp": slerp(four, custom, 0.3).astype(np.float32),
        "ties": elect(base, [np.where(np.abs(m - base) >= h, m - base, np.float32(0)) for m, h in zip((four, custom), limits)], [1, 1], 0.7),
        "dare": base + np.float32(0.7) * weighted(dropped, [1, 1]),
    }.items():
        t[f"in.{k}"] = np.concatenate([merged, wide[:, 4:]], 1)
    os.makedirs(out, exist_ok=True)
    save_file(t, f"{out}/values.safetensors")


# ---- whole models -----------------------------------------------------------------------------------------------------

def run(kiwame, *args, code=0):
    r = subprocess.run([kiwame, *args], capture_output=True, text=True)
    assert r.returncode == code, f"{' '.join(args)}: {r.returncode}\n{r.stdout}{r.stderr}"
    return r.stdout


PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model", "text_encoder_2": "model"}


def tensors(folder):
    t = {}
    for part, stem in PARTS.items():
        if os.path.exists(f"{folder}/{part}/{stem}.safetensors"):
            t.update({f"{part}/{k}": v for k, v in load_file(f"{folder}/{part}/{stem}.safetensors").items()})
    return t


def variant(base, out, seed, low=0, scale=0.02):
    """base with changes: of full rank, or of rank `low` in matrices of layers that LoRAs are hung on."""
    shutil.copytree(base, out)
    g = np.random.default_rng(seed)
    for part, stem in PARTS.items():
        f = f"{out}/{part}/{stem}.safetensors"
        if part == "vae" or not os.path.exists(f):
            continue
        t = load_file(f)
        for k, v in t.items():
            if v.dtype.kind != "f" or k.endswith("position_ids"):
                continue
            v = v.astype(np.float32)
            inner = any(x in k for x in (".attn", ".ff.", ".resnets.", "proj_in", "proj_out", "samplers", "encoder.layers"))
            if not low:
                t[k] = v + scale * g.standard_normal(v.shape).astype(np.float32) * np.float32(np.abs(v).mean() + 1e-3)
            elif v.ndim >= 2 and inner and k.endswith(".weight"):
                r = min(low, v.shape[0], v[0].size)
                d = g.standard_normal((v.shape[0], r)) @ g.standard_normal((r, v[0].size))
                t[k] = v + (scale * np.abs(v).mean() * d.reshape(v.shape)).astype(np.float32)
        save_file(t, f, metadata={"format": "pt"})


def check(what, error, limit):
    print(f"{'ok  ' if error <= limit else 'FAIL'} {what}: {error:.3g} (limit {limit:g})")
    if not error <= limit:
        raise SystemExit(1)


def largest(a, b):
    return max(float(np.abs(a[k].astype(np.float64) - b[k].astype(np.float64)).max()) for k in a if not k.endswith("position_ids"))


def arithmetic(kiwame, base, a, b, work):
    x, y, c = tensors(a), tensors(b), tensors(base)
    run(kiwame, "merge", f"{work}/sum", "--model", a, "--model", f"{b}:0.3", "--dtype", "f32")
    made = tensors(f"{work}/sum")
    assert made.keys() == x.keys()
    check("weighted sum, bits that differ from NumPy's",
          sum(int((made[k] != (x[k] if k.startswith("vae/") or k.endswith("position_ids") else weighted([x[k], y[k]], [0.7, 0.3]))).sum()) for k in x), 0)
    run(kiwame, "merge", f"{work}/ties", "--model", a, "--model", b, "--base", base, "--method", "ties", "--density", "0.25", "--dtype", "f32")
    made = tensors(f"{work}/ties")
    names = [k for k in x if not k.startswith("vae/") and not k.endswith("position_ids")]
    limits = [threshold([m[k] - c[k] for k in names], 0.25) for m in (x, y)]
    wrong = 0
    for k in names:
        d = [np.where(np.abs(m[k] - c[k]) >= h, m[k] - c[k], np.float32(0)) for m, h in zip((x, y), limits)]
        wrong += int((made[k] != elect(c[k], d, [1, 1], 1)).sum())
    check("TIES, bits that differ from NumPy's", wrong, 0)
    run(kiwame, "merge", f"{work}/sum.safetensors", "--model", a, "--model", f"{b}:0.3", "--dtype", "f32")
    run(kiwame, "convert", f"{work}/sum.safetensors", f"{work}/sum2")
    check("weighted sum as one file, and back as a folder", largest(tensors(f"{work}/sum"), tensors(f"{work}/sum2")), 0)


def unet_output(pipe):
    import torch
    u = pipe.unet
    g = torch.Generator().manual_seed(3)
    x = torch.randn(1, u.config.in_channels, 16, 16, generator=g)
    context = u.config.cross_attention_dim
    h = torch.randn(1, 7, context if isinstance(context, int) else context[-1], generator=g)
    more = None
    if u.config.addition_embed_type == "text_time":
        width = u.config.projection_class_embeddings_input_dim - 6 * u.config.addition_time_embed_dim
        more = {"text_embeds": torch.randn(1, width, generator=g), "time_ids": torch.tensor([[64., 64, 0, 0, 64, 64]])}
    texts = [getattr(pipe, n) for n in ("text_encoder", "text_encoder_2") if getattr(pipe, n, None) is not None]
    with torch.no_grad():
        ids = torch.arange(1, 8)[None]
        return [u(x, torch.tensor([300]), h, added_cond_kwargs=more).sample] + [t(ids % t.config.vocab_size, output_hidden_states=True).hidden_states[-2] for t in texts]


def relative(a, b):
    return max(float((p - q).norm() / q.norm()) for p, q in zip(a, b))


def key_of(d, layer):
    """transformers writes text encoders with "text_model." in front of the names, or without."""
    return next(k for k in (f"{layer['part']}/{x}{layer['path']}.weight" for x in ("", "text_model.")) if k in d)


def loras(kiwame, base, tuned, work):
    import torch
    from diffusers import DiffusionPipeline
    load = lambda d: DiffusionPipeline.from_pretrained(d, torch_dtype=torch.float32, safety_checker=None)
    plain = unet_output(load(base))
    said = json.loads(run(kiwame, "extract", tuned, "--base", base, "--rank", "4096", "--dtype", "f32", "--out", f"{work}/full.safetensors", "--json"))
    pipe = load(base)
    pipe.load_lora_weights(f"{work}/full.safetensors")
    want, got = unet_output(load(tuned)), unet_output(pipe)
    print(f"     the tuned model itself is {relative(want, plain):.3g} from its base; energy {said['energy']:.6f}")
    check("extracted at full rank, in diffusers: the tuned model's outputs", relative(got, want), 1e-5)
    keys = len(load_file(f"{work}/full.safetensors")) // 3
    assert keys == len(said["layers"]), (keys, len(said["layers"]))
    d = {k: tensors(tuned)[k].astype(np.float64) - tensors(base)[k] for k in tensors(base)}
    for l in said["layers"]:
        assert abs(l["energy"] - 1) < 1e-9
        norm = np.linalg.norm(d[key_of(d, l)])
        assert abs(l["norm"] - norm) < 1e-6 * norm, l
    for r in (2, 4):
        said = json.loads(run(kiwame, "extract", tuned, "--base", base, "--rank", str(r), "--dtype", "f32", "--out", f"{work}/r{r}.safetensors", "--json", "--overwrite"))
        worst = 0
        for l in said["layers"]:
            k = key_of(d, l)
            s = np.linalg.svd(d[k].reshape(d[k].shape[0], -1), compute_uv=False)
            worst = max(worst, abs(l["energy"] - (s[:r] ** 2).sum() / (s ** 2).sum()))
        check(f"energy kept at rank {r}, against NumPy's singular values", worst, 1e-8)
    # two LoRAs together, and as one
    pipe = load(base)
    pipe.load_lora_weights(f"{work}/r2.safetensors", adapter_name="a")
    pipe.load_lora_weights(f"{work}/r4.safetensors", adapter_name="b")
    pipe.set_adapters(["a", "b"], [0.7, 0.4])
    both = unet_output(pipe)
    run(kiwame, "merge", f"{work}/both.safetensors", "--lora", f"{work}/r2.safetensors:0.7", "--lora", f"{work}/r4.safetensors:0.4", "--base", base)
    pipe = load(base)
    pipe.load_lora_weights(f"{work}/both.safetensors")
    check("concatenated, in diffusers: the outputs of both together", relative(unet_output(pipe), both), 1e-5)
    run(kiwame, "merge", f"{work}/baked", "--model", base, "--lora", f"{work}/r2.safetensors:0.7", "--lora", f"{work}/r4.safetensors:0.4", "--dtype", "f32")
    check("both into the model, in diffusers", relative(unet_output(load(f"{work}/baked")), both), 1e-5)
    run(kiwame, "merge", f"{work}/svd.safetensors", "--lora", f"{work}/r2.safetensors:0.7", "--lora", f"{work}/r4.safetensors:0.4", "--rank", "6", "--base", base)
    pipe = load(base)
    pipe.load_lora_weights(f"{work}/svd.safetensors")
    check("by singular values at rank 2 + 4, in diffusers", relative(unet_output(pipe), both), 1e-5)
    resize(kiwame, base, work)


def resize(kiwame, base, work):
    """kohya's resize_lora: ranks of its rules, and the best approximation at a fixed one."""
    t = load_file(f"{work}/full.safetensors")
    names = [k[:-len(".lora_down.weight")] for k in t if k.endswith(".lora_down.weight")]
    scale = {n: float(t[f"{n}.alpha"]) / t[f"{n}.lora_down.weight"].shape[0] for n in names}
    m = {n: scale[n] * t[f"{n}.lora_up.weight"].reshape(t[f"{n}.lora_up.weight"].shape[0], -1).astype(np.float64)
         @ t[f"{n}.lora_down.weight"].reshape(t[f"{n}.lora_down.weight"].shape[0], -1) for n in names}
    for rule, target in (("sv_ratio", 4), ("sv_cumulative", 0.6), ("sv_fro", 0.9)):
        run(kiwame, "extract", "--resize", f"{work}/full.safetensors", "--dynamic", rule, "--dynamic-param", str(target), "--rank", "12",
            "--dtype", "f32", "--out", f"{work}/{rule}.safetensors", "--base", base)
        made, wrong = load_file(f"{work}/{rule}.safetensors"), 0
        for n in names:
            s = np.linalg.svd(m[n], compute_uv=False)
            r = {"sv_ratio": int((s > s[0] / target).sum()), "sv_cumulative": int(np.searchsorted(np.cumsum(s) / s.sum(), target)) + 1,
                 "sv_fro": int(np.searchsorted(np.cumsum(s ** 2) / (s ** 2).sum(), target ** 2)) + 1}[rule]
            r = max(1, min(r, 12, len(s)))
            wrong += made[f"{n}.lora_down.weight"].shape[0] != r
        check(f"ranks of --dynamic {rule}, layers that differ", wrong, 0)
    run(kiwame, "extract", "--resize", f"{work}/full.safetensors", "--rank", "3", "--dtype", "f32", "--out", f"{work}/three.safetensors", "--base", base)
    made, worst = load_file(f"{work}/three.safetensors"), 0
    for n in names:
        up, down, alpha = (made[f"{n}.{x}"] for x in ("lora_up.weight", "lora_down.weight", "alpha"))
        r = down.shape[0]
        u, s, v = np.linalg.svd(m[n], full_matrices=False)
        best = np.linalg.norm(m[n] - u[:, :r] * s[:r] @ v[:r])
        ours = np.linalg.norm(m[n] - float(alpha) / r * up.reshape(-1, r).astype(np.float64) @ down.reshape(r, -1))
        worst = max(worst, (ours - best) / np.linalg.norm(m[n]))
    check("resized to rank 3: error above the least possible, as a share of the norm", worst, 1e-6)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--golden")
    p.add_argument("--kiwame")
    p.add_argument("bases", nargs="*")
    o = p.parse_args()
    if o.golden:
        golden(o.golden)
    for base in o.bases:
        with tempfile.TemporaryDirectory() as work:
            print(base)
            variant(base, f"{work}/a", 1)
            variant(base, f"{work}/b", 2)
            variant(base, f"{work}/tuned", 3, low=5)
            arithmetic(o.kiwame, base, f"{work}/a", f"{work}/b", work)
            loras(o.kiwame, base, f"{work}/tuned", work)


if __name__ == "__main__":
    main()
