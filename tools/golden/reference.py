"""reference.py - the PyTorch side of every comparison: loads one part of a model, runs it in a given precision.

A part is named as `kiwame debug run` names it: unet, text, text2, vae-encode, vae-decode. A base folder may be a whole
pipeline (unet/, text_encoder/, vae/ below it) or the part's own folder (config.json in it).
"""
import json
import logging
import math
import os
import warnings

import torch
from safetensors.torch import load_file

FOLDER = {"unet": "unet", "text": "text_encoder", "text2": "text_encoder_2", "vae": "vae", "vae-encode": "vae", "vae-decode": "vae"}
WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors", "text": "model.safetensors", "text2": "model.safetensors"}
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
INPUTS_WITH_GRADIENT = {"unet": ("sample", "encoder_hidden_states", "add_text_embeds"), "text": (), "text2": (),
                        "vae-encode": ("image",), "vae-decode": ("latents",)}
OUTPUT = {"unet": "sample", "text": "last_hidden_state", "text2": "text_embeds", "vae-encode": "moments", "vae-decode": "image"}


def quiet():
    """Exact, repeatable PyTorch: one thread, full-precision products, no warnings about tiny vocabularies."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True)
    warnings.filterwarnings("ignore")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import diffusers
    import transformers
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    logging.getLogger("peft").setLevel(logging.ERROR)


def kind(part):
    return "vae" if part.startswith("vae") else part


def part_folder(base, part):
    sub = os.path.join(base, FOLDER[part])
    return sub if os.path.isfile(os.path.join(sub, "config.json")) else base


def parts_in(base):
    """The parts a base folder holds, as `debug run` names them."""
    found = []
    for part in ("unet", "text", "text2", "vae"):
        folder = part_folder(base, part)
        if os.path.isfile(os.path.join(folder, "config.json")) and kind_of_config(read_config(folder)) == part:
            found += ["vae-encode", "vae-decode"] if part == "vae" else [part]
    return found


def read_config(folder, name="config.json"):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return json.load(f)


def kind_of_config(config):
    name = config.get("_class_name") or (config.get("architectures") or [config.get("model_type", "")])[0]
    return {"UNet2DConditionModel": "unet", "AutoencoderKL": "vae", "CLIPTextModelWithProjection": "text2"}.get(name, "text" if "CLIPText" in name or "clip_text" in name else "")


def file_name(part, module_name, present):
    """The spelling of a parameter in the part's file, given the names present there."""
    spellings = [module_name, "text_model." + module_name]
    if part == "vae":
        old = module_name
        for new_word, old_word in OLD_ATTENTION.items():
            old = old.replace("." + new_word + ".", "." + old_word + ".")
        spellings.append(old)
    for s in spellings:
        if s in present:
            return s
    raise KeyError(f"no tensor for {module_name}")


def new_module(part, config):
    if part == "unet":
        from diffusers import UNet2DConditionModel
        return UNet2DConditionModel.from_config(config)
    if part == "vae":
        from diffusers import AutoencoderKL
        return AutoencoderKL.from_config(config)
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
    return (CLIPTextModelWithProjection if part == "text2" else CLIPTextModel)(CLIPTextConfig(**{k: v for k, v in config.items() if k not in ("architectures", "transformers_version")}))


def load_part(base, part):
    """A module in f32 and {parameter name in the module: name in the file}. Every tensor of both sides must be used."""
    part = kind(part)
    folder = part_folder(base, part)
    config = read_config(folder)
    tensors = load_file(os.path.join(folder, WEIGHTS[part]))
    tensors = {k: v for k, v in tensors.items() if not k.endswith("position_ids")}
    module = new_module(part, config)
    names = {n: file_name(part, n, tensors) for n, _ in module.named_parameters()}
    left = set(tensors) - set(names.values())
    if left:
        raise KeyError(f"{folder}: tensors that no parameter takes: {sorted(left)[:5]}")
    with torch.no_grad():
        for n, p in module.named_parameters():
            p.copy_(tensors[names[n]].float())
    return module.eval(), names, config


def make_inputs(part, config, shape, seed):
    """Seeded inputs of a part, f32 and NCHW; integers are I64."""
    g = torch.Generator().manual_seed(seed)
    rand = lambda *s: torch.randn(*s, generator=g)
    n, t = shape.get("batch", 2), shape.get("tokens", 9)
    h, w = shape.get("height", 8), shape.get("width", 8)
    if part in ("text", "text2"):
        vocab, t = config["vocab_size"], min(t, config["max_position_embeddings"])
        return {"input_ids": torch.randint(0, vocab, (n, t), generator=g)}
    if part == "vae-encode":
        return {"image": rand(n, config["in_channels"], h, w).clamp(-1.5, 1.5)}
    if part == "vae-decode":
        factor = 2 ** (len(config["block_out_channels"]) - 1)
        return {"latents": rand(n, config["latent_channels"], max(1, h // factor), max(1, w // factor))}
    cross = config["cross_attention_dim"]
    out = {"sample": rand(n, config["in_channels"], h, w), "timestep": torch.randint(0, 1000, (n,), generator=g),
           "encoder_hidden_states": rand(n, t, cross if isinstance(cross, int) else cross[0])}
    if config.get("addition_embed_type") == "text_time":
        dim = config["addition_time_embed_dim"]
        out["add_text_embeds"] = rand(n, config["projection_class_embeddings_input_dim"] - 6 * dim)
        ids = torch.randint(0, 1024, (n, 6), generator=g)
        out["add_time_ids"] = ids if shape.get("integer_time_ids") else ids.float()
    return out


def forward(part, module, x):
    if part == "unet":
        added = {"text_embeds": x["add_text_embeds"], "time_ids": x["add_time_ids"]} if "add_text_embeds" in x else None
        return {"sample": module(x["sample"], x["timestep"], x["encoder_hidden_states"], added_cond_kwargs=added).sample}
    if part in ("text", "text2"):
        y = module(input_ids=x["input_ids"], output_hidden_states=True)
        out = {"last_hidden_state": y.last_hidden_state, **({"text_embeds": y.text_embeds} if part == "text2" else {})}
        out.update({f"hidden_states.{i}": h for i, h in enumerate(y.hidden_states)})
        return out
    if part == "vae-encode":
        return {"moments": module.encode(x["image"]).latent_dist.parameters}
    return {"image": module.decode(x["latents"]).sample}


class exact_time:
    """Within it, time embeddings are computed in f64; diffusers computes them in f32 whatever the model's precision
    (t up to 999 times a rounded frequency: about 1e-5 of the embedding, up to 2e-6 of a U-Net's output)."""

    def __enter__(self):
        from diffusers.models import embeddings
        self.own = embeddings.get_timestep_embedding
        embeddings.get_timestep_embedding = self.embed

    def __exit__(self, *_):
        from diffusers.models import embeddings
        embeddings.get_timestep_embedding = self.own

    @staticmethod
    def embed(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
        half = embedding_dim // 2
        step = -math.log(max_period) / (half - downscale_freq_shift)
        angle = scale * timesteps[:, None].double() * torch.exp(step * torch.arange(half).double())[None]
        both = [angle.cos(), angle.sin()] if flip_sin_to_cos else [angle.sin(), angle.cos()]
        return torch.cat(both + [torch.zeros(len(angle), embedding_dim % 2).double()], 1)


def belongs(part, name):
    """Whether a parameter takes part in a run (an encoder's gradient says nothing about the decoder)."""
    if part == "vae-encode":
        return name.startswith(("encoder.", "quant_conv."))
    if part == "vae-decode":
        return name.startswith(("decoder.", "post_quant_conv."))
    return True


def run(part, module, names, inputs, dtype, grad):
    """Outputs, and with grad `grad.NAME` of each parameter and input, as {name: f64 tensor}."""
    module = module.to(dtype)
    x = {k: v.to(dtype) if v.is_floating_point() and k not in ("grad_output", "grad_penultimate", "add_time_ids") else v for k, v in inputs.items()}
    module.zero_grad(set_to_none=True)
    for k in INPUTS_WITH_GRADIENT[part]:
        if k in x:
            x[k] = x[k].detach().clone().requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        y = forward(part, module, x)
    out = {k: v.detach().double() for k, v in y.items()}
    if grad:
        ends, dends = [y[OUTPUT[part]]], [inputs["grad_output"].to(dtype)]
        if part == "text2":              # what SDXL's U-Net looks at: the pooled output and the layer before the last
            hidden = [k for k in y if k.startswith("hidden_states.")]
            ends.append(y[hidden[-2]])
            dends.append(inputs["grad_penultimate"].to(dtype))
        torch.autograd.backward(ends, dends)
        for n, p in module.named_parameters():
            if belongs(part, n):
                out["grad." + names[n]] = (p.grad if p.grad is not None else torch.zeros_like(p)).double().clone()
        for k in INPUTS_WITH_GRADIENT[part]:
            if k in x:
                out["grad." + k] = x[k].grad.double()
    return out
