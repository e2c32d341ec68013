"""Forms of Stable Diffusion files that people have, made here, and what Kiwame makes of them.

    python tools/golden/forms.py build/kiwame FOLDER      FOLDER: where tools/golden/convert.py left its models

Lone parts in every spelling, files without one part, 8 bit numbers with and without scales, f64, files whose numbers lie
at odd bytes, markers, position_ids, names without "text_model.", averages, wrapped state_dicts; each is converted and
compared with the tensors it was made of. Then the refusals: other families, each with what is said.
"""
import json
import os
import struct
import subprocess
import sys

import torch
from safetensors.torch import load_file, save, save_file

KIWAME, ROOT = sys.argv[1], sys.argv[2]
OUT = os.path.join(ROOT, "forms")
os.makedirs(OUT, exist_ok=True)
COUNT = [0, 0]


def call(*args):
    r = subprocess.run([KIWAME, *args], capture_output=True, text=True, env=dict(os.environ, KIWAME_LANG="en"))
    assert r.returncode in (0, 2, 3, 6), (args, r.returncode, r.stderr)
    return r


def look(path, *has):
    r = call("inspect", path)
    for h in has:
        assert h in r.stdout + r.stderr, f"{path}: no '{h}' in\n{r.stdout}{r.stderr}"
    COUNT[0] += 1
    return r


def convert(path, name, *args):
    r = call("convert", path, f"{OUT}/{name}", "--overwrite", "--json", *args)
    assert r.returncode == 0, (path, r.stderr)
    return json.loads(r.stdout)


def same(a, b, what, exact=True):
    assert a.keys() == b.keys(), f"{what}: {sorted(a.keys() ^ b.keys())[:6]}"
    for k in a:
        assert a[k].shape == b[k].shape and a[k].dtype == b[k].dtype, f"{what}: {k} {a[k].dtype} {b[k].dtype}"
        assert torch.equal(a[k].reshape(-1).view(torch.uint8), b[k].reshape(-1).view(torch.uint8)), f"{what}: {k}"
    COUNT[0] += 1


def part(d, *prefixes):
    return {k: v for k, v in d.items() if k.startswith(prefixes)}


def strip(d, prefix, to=""):
    return {to + k[len(prefix):]: v for k, v in d.items() if k.startswith(prefix)}


def odd_bytes(d, path):
    """The same file with a header one byte longer: all numbers at odd places."""
    raw = save(d, metadata={"format": "pt"})
    n = struct.unpack("<Q", raw[:8])[0]
    head = raw[8:8 + n].rstrip()
    head += b" " * ((8 - len(head)) % 8 + 1)
    open(path, "wb").write(struct.pack("<Q", len(head)) + head + raw[8 + n:])


UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."


def parts(ldm, name):
    for what, d, says in (
            ("no-vae", {k: v for k, v in ldm.items() if not k.startswith(VAE)}, "unet"),
            ("no-text", {k: v for k, v in ldm.items() if not k.startswith((TEXT, "conditioner."))}, "vae"),
            ("unet-full", part(ldm, UNET), "unet"),
            ("unet-short", strip(ldm, UNET, "diffusion_model."), "unet"),
            ("unet-bare", strip(ldm, UNET), "unet"),
            ("vae-full", part(ldm, VAE), "vae"), ("vae-bare", strip(ldm, VAE), "vae")):
        path = f"{OUT}/{name}-{what}.safetensors"
        save_file(d, path)
        look(path, "model file", says)
        convert(path, f"{name}-{what}-d")
        back = f"{OUT}/{name}-{what}-d"
        for p in ("unet", "vae"):
            f = f"{back}/{p}/diffusion_pytorch_model.safetensors"
            if os.path.exists(f):
                same(load_file(f"{ROOT}/{name}/{p}/diffusion_pytorch_model.safetensors"), load_file(f), f"{name} {what} {p}")
    for p in ("unet", "vae", "text_encoder"):
        stem = "model" if p == "text_encoder" else "diffusion_pytorch_model"
        look(f"{ROOT}/{name}/{p}/{stem}.safetensors", "model file", p)
        look(f"{ROOT}/{name}/{p}", "model folder", p)


def text_spellings(ldm):
    clip = part(ldm, TEXT)
    rest = {k: v for k, v in ldm.items() if k not in clip}
    bare = {k.replace("transformer.text_model.", "transformer."): v for k, v in clip.items()}
    ids = dict(clip, **{TEXT + "transformer.text_model.embeddings.position_ids": torch.arange(77)[None]})
    for what, d in (("bare", bare), ("ids", ids)):
        path = f"{OUT}/text-{what}.safetensors"
        save_file({**rest, **d}, path)
        look(path, "text_encoder")
        left = convert(path, f"text-{what}-d")["left"]
        assert not left, left
        a = load_file(f"{OUT}/text-{what}-d/text_encoder/model.safetensors")
        a.pop("text_model.embeddings.position_ids", None)
        same(strip(clip, TEXT + "transformer."), a, what)


def numbers(ldm):
    for kind in (torch.float64, torch.float8_e4m3fn, torch.float8_e5m2):
        path = f"{OUT}/kind.safetensors"
        save_file({k: v.to(kind) if v.is_floating_point() else v for k, v in ldm.items()}, path)
        look(path, {torch.float64: "F64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}[kind])
        for to, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            convert(path, "kind-to.safetensors", "--dtype", to)
            same({k: v.to(kind).to(dtype) if v.is_floating_point() else v for k, v in ldm.items()},
                 load_file(f"{OUT}/kind-to.safetensors"), f"{kind} {to}")
    path = f"{OUT}/odd.safetensors"
    odd_bytes(ldm, path)
    look(path, "model file")
    convert(path, "odd-out.safetensors")
    same(ldm, load_file(f"{OUT}/odd-out.safetensors"), "odd bytes")
    convert(path, "odd-f16.safetensors", "--dtype", "f16")
    same({k: v.half() if v.is_floating_point() else v for k, v in ldm.items()}, load_file(f"{OUT}/odd-f16.safetensors"), "odd")
    hashes = [[p["hash"] for p in json.loads(call("inspect", f, "--json").stdout)["parts"].values()]
              for f in (path, f"{OUT}/odd-out.safetensors")]
    assert hashes[0] == hashes[1]


def scaled(ldm, weight, rows):
    """ComfyUI's fp8: matrices of the U-Net and text encoder, w = weight * scale."""
    d, want = {}, {}
    for k, v in ldm.items():
        small = v.dim() != 2 or not k.endswith(".weight") or not k.startswith((UNET, TEXT)) or "embedding" in k
        if small:
            d[k], want[k] = v, v.bfloat16() if v.is_floating_point() else v
            continue
        s = (v.abs().amax(1, keepdim=rows == 2) if rows else v.abs().amax()) / 448
        s = s.float().clamp(min=1e-12)
        by = s if rows != 1 else s[:, None]
        d[k] = (v / by).to(torch.float8_e4m3fn)
        d[k[:-len("weight")] + weight] = s.contiguous()
        want[k] = (d[k].float() * by).bfloat16()
    d[UNET + "scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    path = f"{OUT}/scaled.safetensors"
    save_file(d, path)
    look(path, "have scales", "F8_E4M3")
    convert(path, "scaled-out.safetensors", "--dtype", "bf16")
    same(want, load_file(f"{OUT}/scaled-out.safetensors"), weight)
    convert(path, "scaled-keep.safetensors")
    same(d, load_file(f"{OUT}/scaled-keep.safetensors"), "kept")
    convert(path, "scaled-d")
    convert(f"{OUT}/scaled-d", "scaled-d.safetensors", "--dtype", "bf16")
    same(want, load_file(f"{OUT}/scaled-d.safetensors"), "by a folder")
    assert not convert(path, "scaled-d2")["left"]


def markers(ldm):
    for add, says in (({}, "epsilon"), ({"v_pred": torch.zeros(0)}, "v_pred in the file"),
                      ({"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, "ztsnr")):
        path = f"{OUT}/marked.safetensors"
        save_file({**ldm, **add}, path)
        look(path, says)
        left = convert(path, "marked-d")["left"]
        assert not left, left
        s = json.load(open(f"{OUT}/marked-d/scheduler/scheduler_config.json"))
        assert s["prediction_type"] == ("v_prediction" if add else "epsilon") and s["rescale_betas_zero_snr"] == ("ztsnr" in add)
        convert(f"{OUT}/marked-d", "marked-back.safetensors")
        assert {"v_pred", "ztsnr"} & load_file(f"{OUT}/marked-back.safetensors").keys() == add.keys()
    save_file(ldm, path, metadata={"modelspec.prediction_type": "v"})
    look(path, "modelspec")


def sd2(ldm):
    """The published rule: the spread of one bias."""
    k = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
    for v in (False, True):
        d = {**ldm, k: torch.randn(64) * (0.2 if v else 0.01)}
        d = {n: (torch.randn(t.shape[0], 1024, dtype=t.dtype) if "attn2.to_k" in n or "attn2.to_v" in n else t)
             for n, t in d.items()}
        save_file(d, f"{OUT}/sd2.safetensors")
        look(f"{OUT}/sd2.safetensors", "is a guess from its weights")


def sgm(ldm):
    """SD 2 as sgm's training writes it: another prefix, all 24 layers."""
    old, new = "cond_stage_model.model.", "conditioner.embedders.0.model."
    d = {k.replace(old, new): v for k, v in ldm.items()}
    d |= {k.replace("resblocks.22.", "resblocks.23."): v + 1 for k, v in d.items() if "resblocks.22." in k}
    save_file(d, f"{OUT}/sgm.safetensors")
    convert(f"{OUT}/sgm.safetensors", "sgm-d")
    same(load_file(f"{ROOT}/sd21-back/text_encoder/model.safetensors"),
         load_file(f"{OUT}/sgm-d/text_encoder/model.safetensors"), "sgm")


def wrapped(ldm):
    torch.save({"state_dict": ldm, "epoch": 1}, f"{OUT}/wrapped.ckpt")
    torch.save({"model": {"state_dict": ldm}}, f"{OUT}/deep.ckpt")
    ema = {"model_ema." + k[len("model."):].replace(".", ""): v + 1 for k, v in part(ldm, UNET).items()}
    torch.save({"state_dict": {**ldm, **ema}}, f"{OUT}/ema.ckpt")
    look(f"{OUT}/wrapped.ckpt", "entries beside the weights are left out: epoch")
    look(f"{OUT}/ema.ckpt", "averaged weights (model_ema)")
    convert(f"{OUT}/ema.ckpt", "ema.safetensors", "--averages")
    same({k: v + 1 if k.startswith(UNET) else v for k, v in ldm.items()}, load_file(f"{OUT}/ema.safetensors"), "averages")


def refused():
    t, vae = torch.zeros(4, 4), {"first_stage_model.encoder.conv_in.weight": torch.zeros(8, 3, 3, 3)}
    unet = part(load_file(f"{ROOT}/sd15.safetensors"), UNET)
    for names, says in (
            (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "a Stable Diffusion 3 model"),
            (["transformer_blocks.0.attn.add_q_proj.weight"], "a Stable Diffusion 3 or FLUX model"),
            (["double_blocks.0.img_attn.qkv.weight"], "a FLUX model"),
            (["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "a FLUX model"),
            (["adaln_single.linear.weight"], "a PixArt model"), (["clip_txt_mapper.weight", "clf.1.weight"], "Cascade"),
            (["motion_modules.0.weight"], "an AnimateDiff motion module"),
            (["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"], "an AnimateDiff motion module"),
            (["control_model.input_blocks.0.0.weight", "control_model.input_hint_block.0.weight"], "a ControlNet"),
            (["controlnet_cond_embedding.conv_in.weight", "time_embedding.linear_1.weight"], "a ControlNet"),
            (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "a LoRA"),
            (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "a LoRA"),
            (["lora_unet_x.hada_w1_a"], "LoRA, not a base|LyCORIS"), (["emb_params"], "a textual inversion embedding"),
            (["encoder.block.0.layer.0.SelfAttention.q.weight"], "a T5 text encoder"),
            (["model.layers.0.self_attn.q_proj.weight"], "a language model"),
            (["double_layers.0.attn.w1q.weight"], "AuraFlow"), (["mlp_t5.0.weight"], "HunyuanDiT"),
            (["transformer_blocks.0.img_mod.1.weight"], "Qwen-Image"), (["noise_refiner.0.weight"], "Lumina or Z-Image"),
            (["ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"], "an IP-Adapter"),
            (["body.0.rdb1.conv1.weight"], "ESRGAN"), (["adapter.body.0.in_conv.weight"], "T2I-Adapter"),
            (["blocks.0.cross_attn.q.weight"], "Wan"), (["lllite_unet_x.down.0.weight"], "LLLite")):
        for extra in ({}, vae):
            path = f"{OUT}/stranger.safetensors"
            save_file({**{n: t.clone() for n in names}, **extra}, path)
            r = call("generate", "x", "--base", path, "--out", f"{OUT}/never")
            assert r.returncode == 3 and any(s in r.stderr for s in says.split("|")), (names, says, r.returncode, r.stderr)
            COUNT[1] += 1
    for name, says in (("edm_mean", "Playground"), ("edm_vpred.sigma_max", "CosXL"), ("cc_projection.weight", "Zero123"),
                       (UNET + "input_blocks.1.1.time_stack.0.norm1.weight", "video"),
                       (UNET + "label_emb.weight", "upscaler"),
                       (UNET + "input_blocks.1.1.proj_in.weight.absmax", "bitsandbytes")):
        path = f"{OUT}/stranger.safetensors"
        save_file({**unet, name: t.clone()}, path)
        r = call("generate", "x", "--base", path, "--out", f"{OUT}/never")
        assert r.returncode == 3 and says in r.stderr, (name, says, r.stderr)
        COUNT[1] += 1


def main():
    ldm = load_file(f"{ROOT}/sd15.safetensors")
    parts(ldm, "sd15")
    text_spellings(ldm)
    numbers(ldm)
    for weight, rows in (("scale_weight", 0), ("weight_scale", 0), ("weight_scale", 1), ("weight_scale", 2)):
        scaled(ldm, weight, rows)
    markers(load_file(f"{ROOT}/sdxl.safetensors"))
    sd2(load_file(f"{ROOT}/sd21.safetensors"))
    sgm(load_file(f"{ROOT}/sd21.safetensors"))
    wrapped(ldm)
    refused()
    print(f"{COUNT[0]} forms read as they are, {COUNT[1]} refused by name")


main()
