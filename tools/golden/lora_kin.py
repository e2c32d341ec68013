#!/usr/bin/env python3
"""lora_kin.py - LoRAs and their kin as PEFT, diffusers and LyCORIS write them: does Kiwame read all of it, and draw the same?

  lora_kin.py --kiwame build/kiwame BASE...       BASE: pipeline folders of make_models.py --pipelines (SD 1.x and 2.x)
  lora_kin.py --kiwame build/kiwame --spellings [BASE...]        what `convert --names` writes, in diffusers and PEFT; SDXL's names
  lora_kin.py --golden tests/golden/lora          the files and answers of tests/unit/adapter and tests/unit/diffusion

For each method a random adapter is put on the U-Net and the text encoder by the program that defines it, saved by that
program, and the picture is drawn with its modules active. Kiwame's must agree: latents 1e-4, PSNR >= 40 dB.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import generate
import reference

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
LINEAR = ATTENTION + ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
SMALL = []                                # truth: few layers, for files that live in git
CONV = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")

LYCORIS = {
    "lora": {"algo": "lora", "preset": "unet-transformer-only"}, "locon": {"algo": "locon"},
    "locon-tucker": {"algo": "locon", "use_tucker": True},
    "dora": {"algo": "lora", "dora_wd": True}, "dora-in": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "dora-tucker": {"algo": "locon", "dora_wd": True, "use_tucker": True},
    "loha": {"algo": "loha"}, "loha-tucker": {"algo": "loha", "use_tucker": True}, "doha": {"algo": "loha", "dora_wd": True},
    "lokr": {"algo": "lokr"}, "lokr-both": {"algo": "lokr", "decompose_both": True, "factor": 4, "linear_dim": 1, "conv_dim": 1},
    "lokr-full": {"algo": "lokr", "full_matrix": True}, "lokr-tucker": {"algo": "lokr", "use_tucker": True, "factor": 2, "linear_dim": 2, "conv_dim": 2},
    "lokr-factor": {"algo": "lokr", "factor": 4, "linear_dim": 1, "conv_dim": 1}, "dokr": {"algo": "lokr", "dora_wd": True, "factor": 2},
    "ia3": {"algo": "ia3"}, "full": {"algo": "full"}, "full-norm": {"algo": "full", "train_norm": True},
    "glora": {"algo": "glora"}, "diag-oft": {"algo": "diag-oft"},
    "diag-oft-rescaled": {"algo": "diag-oft", "rescaled": True, "constraint": 0.01}, "boft": {"algo": "boft"},
    "boft-rescaled": {"algo": "boft", "rescaled": True, "constraint": 0.01}, "rslora": {"algo": "locon", "rs_lora": True},
}
PEFT = ("lora", "rslora", "dora", "bias", "patterns", "loha", "lokr", "ia3", "saved", "bin", "conv-dora")
DIFFUSERS = ("weights", "adapter", "old", "2023", "kohya", "comfy", "dora")


def noise_in(net, seed):
    """Random values around what the method starts from; keyed by the names."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in [(f"{l.lora_name}.{n}", p) for l in net.loras for n, p in l.named_parameters()]:
            z = torch.randn(p.shape, generator=g)
            leaf = name.rsplit(".", 1)[-1]
            if leaf in ("dora_scale", "rescale") or "magnitude" in name:
                p.mul_(1 + 0.1 * z)
            elif leaf in ("oft_blocks",):
                p.copy_(0.1 * z)
            elif "ia3_l" in name:
                p.copy_(1 + 0.2 * z)
            elif leaf in ("w_norm", "b_norm", "bias"):
                p.copy_(0.1 * z)
            elif "lora_" in name or "hada" in name or "lokr" in name or leaf.endswith("weight"):
                p.copy_(z / max(p.shape[-1] if p.dim() < 4 else p[0].numel(), 1) ** 0.5 * 0.5)


def lycoris(module, options, seed):
    from lycoris import create_lycoris
    options = dict(options)
    dim = options.pop("linear_dim", 4)
    options.pop("preset", None)
    net = create_lycoris(module, 1.0, linear_dim=dim, linear_alpha=dim / 2, conv_alpha=1, **options)
    noise_in(net, seed)
    net.apply_to()
    return net


def lycoris_case(pipe, name, folder, strength):
    nets = [lycoris(m, LYCORIS[name], 5 + i) for i, m in enumerate((pipe.unet, pipe.text_encoder))]
    tensors = {}
    for net in nets:
        tensors.update({k: v.detach().clone().contiguous() for k, v in net.state_dict().items()})
    for net in nets:
        net.set_multiplier(strength)
    path = os.path.join(folder, name + ".safetensors")
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def peft_config(name, part):
    from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig
    target = list(("to_q", "to_v", "conv1") if SMALL else LINEAR + ("conv1", "time_emb_proj")) if part == "unet" else list(TEXT)
    if name == "loha":
        return LoHaConfig(r=3, alpha=6, target_modules=target, use_effective_conv2d=True)
    if name == "lokr":
        return LoKrConfig(r=2, alpha=3, target_modules=target, decompose_both=False)
    if name == "ia3":
        return IA3Config(target_modules=["to_k", "to_v", "ff.net.2", "k_proj", "v_proj", "fc2"], feedforward_modules=["ff.net.2", "fc2"])
    more = {"rslora": {"use_rslora": True}, "dora": {"use_dora": True}, "bias": {"lora_bias": True},
            "patterns": {"rank_pattern": {"attn1.to_q": 2, "q_proj": 1}, "alpha_pattern": {"attn2.to_v": 9, "fc1": 2}},
            "saved": {"modules_to_save": ["conv_in"] if part == "unet" else ["final_layer_norm"]},
            "conv-dora": {"use_dora": True}}.get(name, {})
    if name == "dora":
        target = [t for t in target if t != "conv1"]
    return LoraConfig(r=4, lora_alpha=6, target_modules=target, **more)


def peft_case(pipe, name, folder, strength):
    """A folder for each part."""
    from peft import get_peft_model
    out = []
    for i, part in enumerate(("unet", "text_encoder")):
        model = get_peft_model(getattr(pipe, part), peft_config(name, part))
        trained = torch.nn.Module()
        params = [(n.replace(".", "/"), p) for n, p in model.named_parameters() if p.requires_grad]
        g = torch.Generator().manual_seed(50 + i)
        with torch.no_grad():
            for n, p in params:
                z = torch.randn(p.shape, generator=g)
                if "magnitude" in n:
                    p.mul_(1 + 0.1 * z)
                elif "ia3_l" in n:
                    p.copy_(1 + 0.2 * z)
                elif "modules_to_save" in n:
                    p.add_(0.1 * z)
                else:
                    p.copy_(z / max(p[0].numel(), 1) ** 0.5 * 0.5 if p.dim() > 1 else 0.1 * z)
        path = os.path.join(folder, name, part)
        model.save_pretrained(path, safe_serialization=name != "bin")
        out.append(path)
    return out


def diffusers_case(pipe, name, folder, strength):
    """As diffusers' LoRA training scripts save it; older spellings are made from it by its own conversion's tables."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict
    states = {}
    for i, part in enumerate(("unet", "text_encoder")):
        module = getattr(pipe, part)
        target = list(ATTENTION if name == "2023" else ("attn2.to_k", "to_out.0", "proj_in", "conv1") if SMALL else LINEAR + CONV) if part == "unet" else list(TEXT[:4] if name == "2023" else TEXT)
        alpha = 4 if name in ("old", "2023") else 6
        module.add_adapter(LoraConfig(r=4, lora_alpha=alpha, target_modules=target, use_dora=name == "dora"))
        g = torch.Generator().manual_seed(70 + i)
        with torch.no_grad():
            for n, p in module.named_parameters():
                if "lora_" in n:
                    z = torch.randn(p.shape, generator=g)
                    p.mul_(1 + 0.1 * z) if "magnitude" in n else p.copy_(z / p[0].numel() ** 0.5 * 0.5)
        states[part] = module
    os.makedirs(os.path.join(folder, name), exist_ok=True)
    if name == "adapter":
        pipe.unet.save_lora_adapter(os.path.join(folder, name, "unet"))
        pipe.text_encoder.set_adapter("default")
        from peft.utils import get_peft_model_state_dict as state
        save_file({"text_encoder." + k: v.contiguous() for k, v in state(pipe.text_encoder).items()}, os.path.join(folder, name, "te.safetensors"),
                  metadata={"lora_adapter_metadata": json.dumps({"text_encoder.r": 4, "text_encoder.lora_alpha": 6})})
        return [os.path.join(folder, name, "unet"), os.path.join(folder, name, "te.safetensors")]
    unet = get_peft_model_state_dict(states["unet"])
    text = get_peft_model_state_dict(states["text_encoder"])
    if name in ("weights", "dora"):
        from diffusers.training_utils import _collate_lora_metadata
        StableDiffusionPipeline.save_lora_weights(os.path.join(folder, name), unet_lora_layers=convert_state_dict_to_diffusers(unet),
                                                  text_encoder_lora_layers=convert_state_dict_to_diffusers(text),
                                                  **_collate_lora_metadata({"unet": pipe.unet, "text_encoder": pipe.text_encoder}))
        return [os.path.join(folder, name)]
    path, out = os.path.join(folder, name, "file.safetensors"), {}
    if name == "old":
        for k, v in unet.items():
            out["unet." + k.replace("lora_A", "lora.down").replace("lora_B", "lora.up")] = v
        for k, v in text.items():
            out["text_encoder." + text_name(k).replace("lora_A", "lora_linear_layer.down").replace("lora_B", "lora_linear_layer.up")] = v
    elif name == "2023":
        for k, v in unet.items():
            head, leaf = k.split(".lora_")
            head = head.removesuffix(".0")
            block, layer = head.rsplit(".", 1)
            out[f"unet.{block}.processor.{layer}_lora." + leaf.replace("A", "down").replace("B", "up")] = v
        for k, v in text.items():
            out["text_encoder." + text_name(k).replace("lora_A", "lora_linear_layer.down").replace("lora_B", "lora_linear_layer.up")] = v
    elif name == "kohya":
        both = {"unet." + k: v for k, v in unet.items()} | {"text_encoder." + text_name(k): v for k, v in text.items()}
        out = convert_state_dict_to_kohya(both)
        for k in [k for k in out if k.endswith(".alpha")]:
            out[k] = torch.tensor(6.0)
    elif name == "comfy":
        import single_file
        for k, v in unet.items():
            head, leaf = k.split(".lora_")
            ldm = ldm_name(pipe, head)
            out["diffusion_model." + ldm + ".lora_" + leaf] = v
            out["diffusion_model." + ldm + ".alpha"] = torch.tensor(6.0)
        for k, v in text.items():
            head, leaf = text_name(k).split(".lora_")
            out["text_encoders.clip_l.transformer." + head + ".lora_" + leaf] = v
            out["text_encoders.clip_l.transformer." + head + ".alpha"] = torch.tensor(6.0)
    save_file({k: v.detach().contiguous() for k, v in out.items()}, path)
    return [path]


def text_name(key):
    return key if key.startswith("text_model.") else "text_model." + key


def ldm_name(pipe, path):
    """Of a layer of the U-Net, by the rule in diffusers' convert_original checkpoints, written out for any depth."""
    layers, p = pipe.unet.config.layers_per_block, path.split(".")
    leaf = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
    if p[0] == "mid_block":
        at = {("resnets", "0"): "0", ("attentions", "0"): "1", ("resnets", "1"): "2"}[(p[1], p[2])]
        rest = [leaf[p[3]]] if p[1] == "resnets" else p[3:]
        return ".".join(["middle_block", at] + rest)
    i, kind = int(p[1]), p[2]
    if p[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(layers + 1) * (i + 1)}.0.op"
        n = (layers + 1) * i + int(p[3]) + 1
        return ".".join([f"input_blocks.{n}", "0" if kind == "resnets" else "1"] + ([leaf[p[4]]] if kind == "resnets" else p[4:]))
    if kind == "upsamplers":
        k = 2 if "Cross" in pipe.unet.config.up_block_types[i] else 1
        return f"output_blocks.{(layers + 1) * i + layers}.{k}.conv"
    n = (layers + 1) * i + int(p[3])
    return ".".join([f"output_blocks.{n}", "0" if kind == "resnets" else "1"] + ([leaf[p[4]]] if kind == "resnets" else p[4:]))


def cases():
    for n in LYCORIS:
        yield "lycoris", n, lycoris_case
    for n in PEFT:
        yield "peft", n, peft_case
    for n in DIFFUSERS:
        yield "diffusers", n, diffusers_case


def program(o, base, files, strength, case, noise, work, more=()):
    run = o.kiwame.split()
    o2 = argparse.Namespace(kiwame=" ".join(run))
    line = dict(case)
    old = generate.subprocess.run

    def with_loras(args, **kw):
        for f in files:
            args = args + ["--lora", f"{f}:{strength}"]
        return old(args + list(more), **kw)
    generate.subprocess.run = with_loras
    try:
        return generate.kiwame(o2, base, line, noise, [], work)
    finally:
        generate.subprocess.run = old


def check(o, base, who, name, make, work):
    bad = 0
    case = {"sampler": "ddim", "cfg": 3.0, "steps": 5}
    pipe = generate.pipeline(base)
    config = pipe.scheduler.config
    noise, _ = generate.noise_for(pipe, case, 3)
    plain, _ = generate.draw(pipe, config, case, noise, [])
    whole = who != "lycoris" or "do" in name or "oft" in name            # other strengths: LyCORIS alone, where it agrees with A1111
    for strength in (1.0,) if whole and name != "diag-oft" else (1.0, 0.6):
        pipe = generate.pipeline(base)
        files = make(pipe, name, work, strength)
        files = files if isinstance(files, list) else [files]
        theirs, pixels = generate.draw(pipe, config, case, noise, [])
        moved = ((theirs - plain).norm() / plain.norm()).item()
        for more in ((), ("--lora-apply", "merge")) if name in ("locon", "conv", "kohya", "weights") else ((),):
            ours, got = program(o, base, files, strength, case, noise, work, more)
            title = f"{who} {name} x{strength:g} {'merged' if more else ''}"
            if ours is None:
                print(f"{os.path.basename(base):10} {title:36} FAILED: {got[:300]}", flush=True)
                bad += 1
                continue
            error, psnr, worst = generate.compare(ours, theirs, got, pixels)
            good = error <= generate.LATENTS and psnr >= generate.PSNR and moved > 1e-3 and moved > 100 * error
            bad += not good
            print(f"{os.path.basename(base):10} {title:36} latents {error:.1e} (moved {moved:.1e})  PSNR {psnr:5.1f} dB  {'ok' if good else 'FAILED'}", flush=True)
    return bad


# ---- `convert --names`: written in other names, read by who defines those -----------------------------------------------

def convert(o, source, to, names):
    import subprocess
    done = subprocess.run([*o.kiwame.split(), "convert", source, to, "--names", names], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())


def layers_of(module):
    from peft.tuners.lora import LoraLayer
    return {n: l for n, l in module.named_modules() if isinstance(l, LoraLayer)}


def compare_layers(title, want, got, lines):
    """Two {name: (down, up, strength)}."""
    if set(want) != set(got):
        lines.append(f"{title}: other layers: {sorted(set(want) ^ set(got))[:3]}")
    for n in set(want) & set(got):
        if not (torch.equal(want[n][0], got[n][0]) and torch.equal(want[n][1], got[n][1])):
            lines.append(f"{title}: {n}: other values")
        if abs(want[n][2] - got[n][2]) > 1e-6 * abs(want[n][2]):
            lines.append(f"{title}: {n}: strength {got[n][2]}, not {want[n][2]}")
    print(f"{title:44} {len(got)} layers", flush=True)


def found(module, adapter=None):
    out = {}
    for n, l in layers_of(module).items():
        a = adapter or next(iter(l.lora_A.keys()))
        out[n.removeprefix("base_model.model.")] = (l.lora_A[a].weight.detach().clone(), l.lora_B[a].weight.detach().clone(), l.scaling[a])
    return out


def random_alphas(tensors, seed=9):
    """kohya's file with ranks and alphas that differ from layer to layer."""
    g, out = torch.Generator().manual_seed(seed), {}
    for i, name in enumerate(sorted({k.split(".")[0] for k in tensors})):
        r = 4 if i % 3 else 2
        out[name + ".lora_down.weight"] = tensors[name + ".lora_down.weight"][:r].clone()
        out[name + ".lora_up.weight"] = tensors[name + ".lora_up.weight"][:, :r].clone()
        out[name + ".alpha"] = torch.tensor(float(torch.randint(1, 9, (), generator=g)))
    return out


def spellings(o, base, work, lines):
    """kohya -> diffusers, PEFT, and back, on a pipeline of SD 1.x or 2.x."""
    from peft import PeftModel
    import training
    title = os.path.basename(base)
    start = training.lora_start(base, {"method": "lora", "rank": 4, "alpha": 4, "targets": "attention,ff,conv,text"}, {"b": True}, 5)
    kohya = os.path.join(work, "kohya.safetensors")
    save_file(random_alphas(start), kohya)
    pipe, tensors, want = generate.pipeline(base), load_file(kohya), {}
    for part, module in (("unet", pipe.unet), ("text_encoder", pipe.text_encoder)):
        names = {training.kohya("unet" if part == "unet" else "text", n): n for n, _ in module.named_modules()}
        want[part] = {n: (tensors[k + ".lora_down.weight"], tensors[k + ".lora_up.weight"],
                          float(tensors[k + ".alpha"]) / tensors[k + ".lora_down.weight"].shape[0]) for k, n in names.items() if k + ".alpha" in tensors}
    convert(o, kohya, os.path.join(work, "diffusers"), "diffusers")
    convert(o, kohya, os.path.join(work, "peft"), "peft")
    convert(o, os.path.join(work, "diffusers"), os.path.join(work, "again.safetensors"), "kohya")
    pipe.load_lora_weights(os.path.join(work, "diffusers"))
    for part in want:
        compare_layers(f"{title} diffusers {part}", want[part], found(getattr(pipe, part)), lines)
    pipe = generate.pipeline(base)
    model = PeftModel.from_pretrained(pipe.unet, os.path.join(work, "peft", "unet"))
    compare_layers(f"{title} PEFT unet", want["unet"], found(model), lines)
    a, b = load_file(kohya), load_file(os.path.join(work, "again.safetensors"))
    if {k: v.tolist() for k, v in a.items()} != {k: v.tolist() for k, v in b.items()}:
        lines.append(f"{title}: kohya's names after the way there and back differ")


def plainly(state):
    """Without what diffusers spells in two ways."""
    pairs = (("self_attn.to_out_lora.", "self_attn.out_proj.lora."), *((f"self_attn.to_{c}_lora.", f"self_attn.{c}_proj.lora.") for c in "qkv"),
             (".processor.", "."), ("to_out_lora.", "to_out.0.lora."), *((f"to_{c}_lora.", f"to_{c}.lora.") for c in "qkv"),
             ("lora_linear_layer.down", "lora_A"), ("lora_linear_layer.up", "lora_B"), ("lora.down", "lora_A"), ("lora.up", "lora_B"), ("text_model.", ""))
    out = {}
    for k, v in state.items():
        for a, b in pairs:
            k = k.replace(a, b)
        out[k] = v
    return out


def sdxl_spellings(o, work, lines):
    """diffusers -> kohya's SDXL names (LDM's numbers, te1, te2), read back by diffusers."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
    import configs
    unet = UNet2DConditionModel(**configs.MODELS["unet-sdxl"]["config"])
    text = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, vocab_size=1000, projection_dim=16)
    parts = {"unet": unet, "text_encoder": CLIPTextModel(CLIPTextConfig(**text)),
             "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**text))}
    layers = {}
    for i, (part, module) in enumerate(parts.items()):
        target = list(LINEAR + CONV + ("linear_1", "linear_2", "conv_in", "conv_out")) if part == "unet" else list(TEXT)
        module.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=target))
        g = torch.Generator().manual_seed(70 + i)
        with torch.no_grad():
            for n, p in module.named_parameters():
                if "lora_" in n:
                    p.copy_(torch.randn(p.shape, generator=g))
        layers[part] = convert_state_dict_to_diffusers(get_peft_model_state_dict(module))
    from diffusers.training_utils import _collate_lora_metadata
    first, kohya = os.path.join(work, "xl"), os.path.join(work, "xl-kohya.safetensors")
    StableDiffusionXLPipeline.save_lora_weights(first, unet_lora_layers=layers["unet"], text_encoder_lora_layers=layers["text_encoder"],
                                                text_encoder_2_lora_layers=layers["text_encoder_2"], **_collate_lora_metadata(parts))
    convert(o, first, kohya, "kohya")
    want = load_file(os.path.join(first, "pytorch_lora_weights.safetensors"))
    blocks = {k.split("lora_unet_")[1].split("_")[0] for k in load_file(kohya) if k.startswith("lora_unet_")}
    got, alphas = StableDiffusionXLPipeline.lora_state_dict(kohya, unet_config=unet.config)
    rename, plain = plainly(got), plainly(want)
    same = [k for k in plain if k in rename and torch.equal(plain[k], rename[k])]
    print(f"SDXL: {len(load_file(kohya))} kohya keys ({', '.join(sorted(blocks))}); of {len(plain)} tensors diffusers reads {len(same)} back the same", flush=True)
    if os.environ.get("KW_TRACE"):
        print(sorted(set(plain) - set(rename))[:8], sorted(set(rename) - set(plain))[:8])
        print(sorted(k for k in plain if k in rename and not torch.equal(plain[k], rename[k]))[:8])
    if len(same) != len(plain) or len(rename) != len(plain) or any(v != 6 for v in alphas.values()):
        lines.append(f"SDXL: {sorted(set(plain) ^ set(rename))[:4]}")
    again = os.path.join(work, "xl-again")
    convert(o, kohya, again, "diffusers")
    back = load_file(os.path.join(again, "pytorch_lora_weights.safetensors"))
    back = plainly(back)
    if set(back) != set(plain) or not all(torch.equal(back[k], plain[k]) for k in plain):
        lines.append(f"SDXL: back in diffusers' names: {sorted(set(plain) ^ set(back))[:4]}")


# ---- small files for the unit tests ----------------------------------------------------------------------------------

class Layers(torch.nn.Module):
    """Three layers under paths of a U-Net: a linear one, a 3x3 and a 1x1 convolution."""
    def __init__(self):
        super().__init__()
        self.mid_block = torch.nn.Module()
        self.mid_block.attentions = torch.nn.ModuleList([torch.nn.Module()])
        self.mid_block.resnets = torch.nn.ModuleList([torch.nn.Module()])
        self.mid_block.attentions[0].proj_in = torch.nn.Linear(12, 8)
        self.mid_block.resnets[0].conv1 = torch.nn.Conv2d(6, 8, 3, padding=1)
        self.mid_block.resnets[0].conv_shortcut = torch.nn.Conv2d(6, 4, 1)
        g = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in self.parameters():
                p.normal_(0, 0.5, generator=g)

    def layers(self):
        return {"mid_block.attentions.0.proj_in": self.mid_block.attentions[0].proj_in, "mid_block.resnets.0.conv1": self.mid_block.resnets[0].conv1,
                "mid_block.resnets.0.conv_shortcut": self.mid_block.resnets[0].conv_shortcut}


def effective(layer, shape):
    """The weight and the bias that a layer's forward has, whatever modules hang on it."""
    out, n, *window = shape
    with torch.no_grad():
        if not window:
            b = layer(torch.zeros(1, n))
            return (layer(torch.eye(n)) - b).T.contiguous(), b[0].contiguous()
        k = window[0]
        b = layer(torch.zeros(1, n, 3, 3))
        x = torch.zeros(n, n, 3, 3)
        x[torch.arange(n), torch.arange(n), 1, 1] = 1
        y = (layer(x) - b).transpose(0, 1)
        y = y.flip(2, 3) if k == 3 else y[:, :, 1:2, 1:2]
        return y.contiguous(), b[0, :, 1, 1].contiguous()


def golden_delta(folder, who, name):
    """One file: the tensors as their program saves them, W and W' at strengths 1 and 0.6 as answer.*."""
    out = {}
    for strength in (1.0, 0.6):
        model = Layers()
        shapes = {k: tuple(v.weight.shape) for k, v in model.layers().items()}
        for k, v in model.layers().items():
            out[f"answer.{k}.w"], out[f"answer.{k}.b"] = v.weight.detach().clone(), v.bias.detach().clone()
        if who == "lycoris":
            net = lycoris(model, LYCORIS[name], 5)
            out.update({k: v.detach().clone().contiguous() for k, v in net.state_dict().items()})
            net.set_multiplier(strength)
        else:
            if strength != 1:
                continue
            from peft import get_peft_model
            config = peft_config(name, "unet")
            config.target_modules = ["proj_in", "conv1", "conv_shortcut"]
            if name == "ia3":
                config.feedforward_modules = ["proj_in"]
            peft = get_peft_model(model, config)
            g = torch.Generator().manual_seed(50)
            with torch.no_grad():
                for n, p in peft.named_parameters():
                    z = torch.randn(p.shape, generator=g)
                    if p.requires_grad:
                        p.mul_(1 + 0.1 * z) if "magnitude" in n else p.copy_(1 + 0.2 * z if "ia3_l" in n else 0.5 * z)
            peft.save_pretrained(folder)
            out.update(load_file(os.path.join(folder, "adapter_model.safetensors")))
        for k, v in model.layers().items():
            w, b = effective(v, shapes[k])
            out[f"answer.{k}.w{strength:g}"], out[f"answer.{k}.b{strength:g}"] = w, b
    path = os.path.join(folder, "adapter_model.safetensors" if who == "peft" else f"{name}.safetensors")
    save_file({k: v.contiguous() for k, v in out.items()}, path, metadata={"format": "pt"})


def golden(o):
    """Deltas of each method; whole files over the base of tests/golden/pipeline, with latents."""
    SMALL.append(True)
    shutil.rmtree(o.golden, ignore_errors=True)
    os.makedirs(os.path.join(o.golden, "lycoris"))
    for name in LYCORIS:
        golden_delta(os.path.join(o.golden, "lycoris"), "lycoris", name)
    for name in ("lora", "rslora", "dora", "bias", "loha", "lokr", "ia3", "conv-dora"):
        os.makedirs(os.path.join(o.golden, "peft", name))
        golden_delta(os.path.join(o.golden, "peft", name), "peft", name)
        for extra in ("README.md",):
            if os.path.exists(os.path.join(o.golden, "peft", name, extra)):
                os.remove(os.path.join(o.golden, "peft", name, extra))
    base, answers = os.path.join(os.path.dirname(o.golden), "pipeline", "base"), {}
    case = {"sampler": "ddim", "cfg": 4.0, "steps": 5}
    for who, name, make in [c for c in cases() if (c[0], c[1]) in (("diffusers", "weights"), ("diffusers", "old"), ("diffusers", "2023"), ("diffusers", "comfy"),
                                                                   ("diffusers", "kohya"), ("peft", "patterns"), ("lycoris", "lokr-factor"))]:
        pipe = generate.pipeline(base)
        config = pipe.scheduler.config
        noise, _ = generate.noise_for(pipe, case, 100)
        folder = os.path.join(o.golden, "files", who)
        os.makedirs(folder, exist_ok=True)
        make(pipe, name, folder, 1.0)
        answers[f"{who}.{name}"], _ = generate.draw(pipe, config, case, noise, [])
        answers["noise"] = noise
    for root, _, files in os.walk(o.golden):
        for f in files:
            if f == "README.md":
                os.remove(os.path.join(root, f))
    save_file({k: v.contiguous() for k, v in answers.items()}, os.path.join(o.golden, "answers.safetensors"))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("bases", nargs="*")
    a.add_argument("--kiwame")
    a.add_argument("--only", help="words in the names of cases, comma separated")
    a.add_argument("--keep", metavar="DIR", help="the files stay there")
    a.add_argument("--golden", metavar="DIR")
    a.add_argument("--spellings", action="store_true")
    o = a.parse_args()
    reference.quiet()
    import logging
    logging.disable(logging.WARNING)
    bad = 0
    if o.golden:
        return golden(o)
    if o.spellings:
        lines = []
        for base in o.bases + [None]:
            with tempfile.TemporaryDirectory() as work:
                spellings(o, base, work, lines) if base else sdxl_spellings(o, work, lines)
        print("\n".join("    " + line for line in lines) or "ok")
        sys.exit(1 if lines else 0)
    for base in o.bases:
        work = tempfile.mkdtemp() if not o.keep else os.path.join(o.keep, os.path.basename(base))
        os.makedirs(work, exist_ok=True)
        for who, name, make in cases():
            if o.only and not any(w in f"{who} {name}" for w in o.only.split(",")):
                continue
            folder = os.path.join(work, who)
            os.makedirs(folder, exist_ok=True)
            try:
                bad += check(o, base, who, name, make, folder)
            except Exception as e:      # the oracle itself
                if os.environ.get("KW_TRACE"):
                    raise
                print(f"{os.path.basename(base):10} {who} {name}: the reference fails: {type(e).__name__}: {str(e)[:300]}", flush=True)
                bad += 1
        if not o.keep:
            shutil.rmtree(work)
    print("ok" if not bad else f"{bad} failed")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
