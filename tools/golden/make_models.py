#!/usr/bin/env python3
"""make_models.py - writes random-weight Stable Diffusion models as diffusers folders (and LDM single files).

  make_models.py --out DIR                      every geometry of configs.py, one folder each
  make_models.py --out DIR --only unet-2-levels,text-short
  make_models.py --out DIR --pipelines          small whole pipelines: tokenizer, scheduler, model_index.json
  make_models.py --out DIR --pipelines --widths 7 --seed 7      the same families with widths that a seed draws
  make_models.py --out DIR --full sd15 [--dtype f16] [--single-file FILE]     Stable Diffusion 1.5's own size
  make_models.py --list

Weights are far from an initialisation on purpose: no tensor is zero or one, norms have scales around 1 and biases,
convolutions that models start at zero are random, so that every path carries signal and gradient.
"""
import argparse
import gc
import hashlib
import json
import os
import shutil

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import configs
import drawn
import reference
import single_file
import tiny_tokenizer

RESIDUAL = ("conv2", "to_out.0", "ff.net.2", "proj_out", "self_attn.out_proj", "mlp.fc2")
LOGITS = ("to_q", "to_k", "q_proj", "k_proj")


def spread(name, p, norms):
    """(mean, standard deviation) of a parameter. Products keep unit variance, residual branches add a bit less than 1."""
    owner, _, leaf = name.rpartition(".")
    if owner in norms:
        return (1.0, 0.2) if leaf == "weight" else (0.0, 0.2)
    if leaf == "bias":
        return 0.0, 0.1
    if owner.endswith("token_embedding"):
        return 0.0, 0.4
    if owner.endswith("position_embedding"):
        return 0.0, 0.2
    gain = 0.7 if owner.endswith(RESIDUAL) else 1.3 if owner.endswith(LOGITS) else 1.0
    return 0.0, gain / (p.numel() / p.shape[0]) ** 0.5


def fill(module, seed, dtype):
    """Random values, each tensor from its own name and the seed: a change elsewhere in the model changes nothing here."""
    norms = {n for n, m in module.named_modules() if isinstance(m, (torch.nn.GroupNorm, torch.nn.LayerNorm))}
    with torch.no_grad():
        for name, p in module.named_parameters():
            key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "little")
            mean, deviation = spread(name, p, norms)
            p.normal_(mean, deviation, generator=torch.Generator().manual_seed(key))
            p.copy_(p.to(dtype))


def rename(part, name, file):
    if part == "text":
        return file.get("prefix", "text_model.") + name
    if part == "text2":
        return name if name.startswith("text_") else "text_model." + name
    if part == "vae" and file.get("old_attention"):
        for new_word, old_word in reference.OLD_ATTENTION.items():
            name = name.replace("." + new_word + ".", "." + old_word + ".")
    return name


def write_part(part, config, folder, seed, file=None, dtype=torch.float32):
    file = file or {}
    dtype = torch.float16 if file.get("f16") else dtype
    module = reference.new_module(part, config)
    fill(module, seed, dtype)
    os.makedirs(folder, exist_ok=True)
    if part in ("text", "text2"):
        module.config.architectures = ["CLIPTextModelWithProjection" if part == "text2" else "CLIPTextModel"]
        module.config.save_pretrained(folder)
    else:
        module.save_config(folder)
    tensors = {rename(part, n, file): p.detach().to(dtype).contiguous() for n, p in module.named_parameters()}
    if file.get("position_ids"):
        tensors[rename(part, "embeddings.position_ids", file)] = torch.arange(config["max_position_embeddings"])[None]
    save_file(tensors, os.path.join(folder, reference.WEIGHTS[part]), metadata={"format": "pt"})
    count = sum(p.numel() for p in module.parameters())
    del module, tensors
    gc.collect()
    return count


def write_model(name, spec, out, seed, dtype, flat=False):
    """One part as DIR/NAME/<unet|vae|text_encoder>/, with the shapes of its check in parity.json. flat: no sub-folder."""
    part = spec["part"]
    base = os.path.join(out, name)
    folder = base if flat else os.path.join(base, reference.FOLDER[part])
    count = write_part(part, spec["config"], folder, seed, spec["file"], dtype)
    if not flat:
        with open(os.path.join(base, "parity.json"), "w", encoding="utf-8") as f:
            json.dump({"group": spec["group"], "inputs": spec["inputs"]}, f)
    return count


def write_scheduler(spec, folder):
    import diffusers
    kind = getattr(diffusers, spec["scheduler"])
    euler = "Euler" in spec["scheduler"]
    s = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
             prediction_type=spec["prediction"], steps_offset=1, **({} if euler else {"set_alpha_to_one": False}))
    if euler:                            # SDXL's own file has DDIM's fields as well
        s.register_to_config(set_alpha_to_one=False, clip_sample=False, timestep_spacing="leading")
    if spec.get("zero_snr"):
        s.register_to_config(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    s.save_config(folder)


def write_pipeline(name, spec, out, seed, dtype, tokenizer=None):
    base = os.path.join(out, name)
    os.makedirs(base, exist_ok=True)
    own = spec["text"]["vocab_size"] == 0
    target = os.path.join(base, "tokenizer")
    if own:
        vocab = tiny_tokenizer.write(target, pad=spec.get("pad", "<|endoftext|>"))
        if "text2" in spec:
            tiny_tokenizer.write(os.path.join(base, "tokenizer_2"), pad="!")
    elif tokenizer and os.path.isdir(tokenizer):
        shutil.copytree(tokenizer, target, dirs_exist_ok=True)
    elif tokenizer:
        tiny_tokenizer.write_from_bpe(tokenizer, target)
    count = 0
    for i, part in enumerate(("unet", "text", "vae", "text2")):
        if part not in spec:
            continue
        config = dict(spec[part])
        if part.startswith("text") and own:
            config.update(vocab_size=vocab, bos_token_id=vocab - 2, eos_token_id=vocab - 1)
        file = {"position_ids": True} if part == "text" else {}
        count += write_part(part, config, os.path.join(base, reference.FOLDER[part]), seed + i, file, dtype)
    write_scheduler(spec, os.path.join(base, "scheduler"))
    import diffusers
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__,
             "feature_extractor": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
             "image_encoder": [None, None], "scheduler": ["diffusers", spec["scheduler"]],
             "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
             "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    if "text2" in spec:
        index = {"_class_name": "StableDiffusionXLPipeline", "_diffusers_version": diffusers.__version__,
                 "feature_extractor": [None, None], "image_encoder": [None, None], "force_zeros_for_empty_prompt": True,
                 "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
                 "tokenizer_2": ["transformers", "CLIPTokenizer"],
                 **{k: index[k] for k in ("scheduler", "text_encoder", "tokenizer", "unet", "vae")}}
    with open(os.path.join(base, "model_index.json"), "w", encoding="utf-8") as f:
        json.dump(index, f, indent=2)
    return count


def write_single_file(base, path):
    """All parts of a pipeline folder as one LDM file (the layout of SD 1.x checkpoints)."""
    tensors = {}
    for part in ("unet", "vae", "text"):
        folder = reference.part_folder(base, part)
        config = reference.read_config(folder)
        with safe_open(os.path.join(folder, reference.WEIGHTS[part]), "pt") as f:
            for key in f.keys():
                name, value = single_file.to_ldm(part, key, f.get_tensor(key), config)
                tensors[name] = value
    from diffusers import DDPMScheduler
    s = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    tensors["betas"], tensors["alphas_cumprod"] = s.betas.float(), s.alphas_cumprod.float()
    save_file(tensors, path)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out")
    a.add_argument("--only", help="names, comma separated")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--dtype", choices=("f32", "f16", "bf16"), default="f32", help="of the written weights")
    a.add_argument("--pipelines", action="store_true")
    a.add_argument("--widths", type=int, metavar="SEED", help="with --pipelines: widths unlike those of configs.py")
    a.add_argument("--golden", action="store_true", help="the tiny models of tests/golden/models, flat folders")
    a.add_argument("--full", choices=("sd15",))
    a.add_argument("--single-file", help="also write the full model (or the one pipeline of --only) as one LDM file")
    a.add_argument("--tokenizer", help="a tokenizer folder, or bpe_simple_vocab_16e6.txt(.gz), for the full model")
    a.add_argument("--list", action="store_true")
    o = a.parse_args()
    if o.list:
        for title, table in (("models", configs.MODELS), ("golden", configs.GOLDEN), ("pipelines", configs.PIPELINES)):
            print(title + ":", *table)
        return
    if not o.out:
        a.error("--out is needed")
    reference.quiet()
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[o.dtype]
    only = set(o.only.split(",")) if o.only else None
    if o.full:
        table, write = {"sd15": configs.SD15}, lambda n, s: write_pipeline(n, s, o.out, o.seed, dtype, o.tokenizer)
    elif o.pipelines:
        table = configs.PIPELINES if o.widths is None else drawn.drawn(o.widths)
        write = lambda n, s: write_pipeline(n, s, o.out, o.seed, dtype)
    else:
        table = configs.GOLDEN if o.golden else configs.MODELS
        write = lambda n, s: write_model(n, s, o.out, o.seed, dtype, flat=o.golden)
    unknown = (only or set()) - set(table)
    if unknown:
        a.error(f"no such model: {', '.join(sorted(unknown))} (see --list)")
    for name, spec in table.items():
        if only is None or name in only:
            print(f"{name:24} {write(name, spec):>13,} parameters", flush=True)
            if o.single_file:
                write_single_file(os.path.join(o.out, name), o.single_file)


if __name__ == "__main__":
    main()
