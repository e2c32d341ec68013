"""training.py - PyTorch's side of training: the loop that `kiwame debug train` is to follow, with PEFT and torch AdamW.

Names on disk are kohya's for LoRA, `unet.` / `text_encoder.` / `vae.` + the name in the part's file for full training.
"""
import math
import os

import torch

import reference
import single_file

ATTENTION = tuple(f"{a}.{m}" for a in ("attn1", "attn2") for m in ("to_q", "to_k", "to_v", "to_out.0"))
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTION = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def lora_modules(part, names, targets):
    """Full names of the modules a set of targets means, in one part."""
    wanted = {"unet": (ATTENTION if "attention" in targets else ()) + (FEED_FORWARD if "ff" in targets else ())
              + (CONVOLUTION if "conv" in targets else ()), "text": TEXT if "text" in targets else (), "text2": TEXT if "text" in targets else ()}[part]
    return [n for n in names if any(n.endswith("." + w) for w in wanted)]


def kohya(part, module, xl=None):
    """xl: the U-Net's configuration where the model is SDXL; its layers are called as in LDM's files then."""
    if part == "unet" and xl:
        name, _ = single_file.to_ldm("unet", module + ".weight", torch.zeros(1, 1), xl)
        module = name.removeprefix("model.diffusion_model.").removesuffix(".weight")
    module = module.removeprefix("text_model.")
    prefix = {"unet": "lora_unet_", "text": f"lora_te{'1' if xl else ''}_text_model_", "text2": "lora_te2_text_model_"}[part]
    return prefix + module.replace(".", "_")


def config_of_xl(base):
    """The U-Net's configuration of an SDXL model, else None."""
    config = reference.read_config(reference.part_folder(base, "unet"))
    return config if config.get("addition_embed_type") else None


def add_lora(part, module, options, xl=None):
    """PEFT's layers on one part: {kohya name: the LoRA layer}."""
    from peft import LoraConfig, inject_adapter_in_model
    names = lora_modules(part, [n for n, _ in module.named_modules()], options["targets"].split(","))
    if not names:
        return {}
    inject_adapter_in_model(LoraConfig(r=options["rank"], lora_alpha=options["alpha"], target_modules=names), module)
    layers = dict(module.named_modules())
    return {kohya(part, n, xl): layers[n] for n in names}


def load_parts(base, options):
    parts = {}
    wanted = ("vae",) if options.get("part") == "vae" else ("unet", "text")
    if wanted[0] == "unet" and os.path.isdir(os.path.join(base, "text_encoder_2")):
        wanted += ("text2",)
    for part in wanted:
        module, names, _ = reference.load_part(base, part)
        parts[part] = (module.requires_grad_(False), names)
    return parts


def lora_start(base, options, setup, seed):
    """The starting weights as a kohya file: PEFT's own initial state, B random as well where the case asks for it."""
    if options["method"] != "lora":
        return None
    torch.manual_seed(seed)
    out = {}
    for part, (module, _) in load_parts(base, options).items():
        for name, layer in add_lora(part, module, options, config_of_xl(base)).items():
            down, up = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
            if setup.get("b"):
                up = up + 0.05 * torch.randn(up.shape)
            out[name + ".lora_down.weight"], out[name + ".lora_up.weight"] = down.clone(), up.clone()
            out[name + ".alpha"] = torch.tensor(float(options["alpha"]))
    return out


def make_batches(base, options, setup, steps, seed):
    """i.latents, i.noise, i.timesteps, i.encoder_hidden_states or i.input_ids; for the autoencoder i.image (and i.noise)."""
    g = torch.Generator().manual_seed(seed)
    config = {p: reference.read_config(reference.part_folder(base, p)) for p in ("unet", "text", "vae")}
    size, count = 2, steps * options.get("gradient_accumulation_steps", 1)
    text = "text" in options.get("targets", "") or "text" in options.get("part", "")
    scale = setup.get("scale", 1.0)
    out = {}
    for i in range(count):
        rand = lambda *s: torch.randn(*s, generator=g)
        if options.get("part") == "vae":
            h, w = 16, 24
            out[f"{i}.image"] = (scale * rand(size, 3, h, w)).clamp(-1, 1)
            factor = 2 ** (len(config["vae"]["block_out_channels"]) - 1)
            if setup.get("posterior"):
                out[f"{i}.noise"] = rand(size, config["vae"]["latent_channels"], h // factor, w // factor)
            continue
        channels = config["unet"]["out_channels"]
        out[f"{i}.latents"] = scale * rand(size, channels, 8, 8)
        out[f"{i}.noise"] = scale * rand(size, channels, 8, 8)
        out[f"{i}.timesteps"] = torch.randint(0, 1000, (size,), generator=g)
        if config["unet"]["in_channels"] == 2 * channels + 1:    # an inpainting base: mask and masked latents
            mask = (torch.rand(size, 1, 8, 8, generator=g) < 0.5).float()
            out[f"{i}.beside"] = torch.cat([mask, scale * rand(size, channels, 8, 8)], 1)
        if setup.get("zero_time") and i % 4 == 0:
            out[f"{i}.timesteps"][0] = 999
        if text:
            vocab = config["text"]["vocab_size"]
            ids = torch.randint(0, vocab - 2, (size, 77), generator=g)
            ids[:, 0], ids[:, 12:] = vocab - 2, vocab - 1       # BOS, ten or so tokens, EOS and padding
            out[f"{i}.input_ids"] = ids
            if config["unet"].get("addition_embed_type"):
                out[f"{i}.input_ids_2"] = ids.clone()
                out[f"{i}.input_ids_2"][:, 13:] = 0             # OpenCLIP's padding
        else:
            out[f"{i}.encoder_hidden_states"] = rand(size, 77, config["unet"]["cross_attention_dim"])
        if config["unet"].get("addition_embed_type"):
            out[f"{i}.add_time_ids"] = torch.randint(0, 1024, (size, 6), generator=g).float()
            if not text:
                dim = config["unet"]["projection_class_embeddings_input_dim"] - 6 * config["unet"]["addition_time_embed_dim"]
                out[f"{i}.add_text_embeds"] = rand(size, dim)
    return out


def diffusion_loss(parts, scheduler, batch, options, dtype):
    """Mean over the batch of (weight of the timestep) x (mean squared error over the sample's elements)."""
    latents, noise, t = batch["latents"].to(dtype), batch["noise"].to(dtype), batch["timesteps"]
    added = None
    if "input_ids_2" in batch:
        one = parts["text"][0](input_ids=batch["input_ids"], output_hidden_states=True)
        two = parts["text2"][0](input_ids=batch["input_ids_2"], output_hidden_states=True)
        context = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        added = {"text_embeds": two.text_embeds, "time_ids": batch["add_time_ids"]}
    elif "input_ids" in batch:
        context = parts["text"][0](input_ids=batch["input_ids"]).last_hidden_state
    else:
        context = batch["encoder_hidden_states"].to(dtype)
        if "add_text_embeds" in batch:
            added = {"text_embeds": batch["add_text_embeds"].to(dtype), "time_ids": batch["add_time_ids"]}
    v = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, t) if v else noise
    sample = scheduler.add_noise(latents, noise, t)
    if "beside" in batch:                 # as train_dreambooth_inpaint.py: noisy latents, mask, masked latents
        sample = torch.cat([sample, batch["beside"].to(dtype)], dim=1)
    predicted = parts["unet"][0](sample, t, context, added_cond_kwargs=added).sample
    error = (predicted - target).square().mean(dim=(1, 2, 3))
    gamma = options.get("min_snr_gamma")
    if gamma:
        kept = scheduler.alphas_cumprod[t].to(dtype)
        snr = kept / (1 - kept)
        error = error * torch.minimum(snr, torch.full_like(snr, gamma)) / (snr + 1 if v else snr)
    return error.mean()


def vae_loss(vae, batch, dtype):
    """Mean absolute error + 1e-6 x KL, KL summed over a sample's latent elements, mean over the batch."""
    image = batch["image"].to(dtype)
    posterior = vae.encode(image).latent_dist
    z = posterior.mean + posterior.std * batch["noise"].to(dtype) if "noise" in batch else posterior.mode()
    return (vae.decode(z).sample - image).abs().mean() + 1e-6 * posterior.kl().mean()


def make_trainable(parts, options, init, dtype, xl=None):
    """Turns on what is to be trained: {name on disk: parameter}."""
    trained = {}
    for part, (module, names) in parts.items():
        if options["method"] == "lora":
            for name, layer in add_lora(part, module, options, xl).items():
                for leaf, weight in (("lora_down", layer.lora_A["default"].weight), ("lora_up", layer.lora_B["default"].weight)):
                    trained[f"{name}.{leaf}.weight"] = weight
                    with torch.no_grad():
                        weight.copy_(init[f"{name}.{leaf}.weight"])
        elif part.removesuffix("2") in options["part"].split(","):
            module.requires_grad_(True)
            trained.update({f"{reference.FOLDER[part]}.{names[n]}": p for n, p in module.named_parameters()})
        module.to(dtype)
    return trained


def rate_schedule(optimizer, options, steps):
    from transformers import get_scheduler
    name, warm = options.get("lr_scheduler", "constant"), options.get("lr_warmup_steps", 0)
    if name == "constant" and warm:
        name = "constant_with_warmup"
    return get_scheduler(name, optimizer, num_warmup_steps=warm, num_training_steps=steps)


def train(base, options, batches, init, steps, dtype, channels_last=False):
    """(losses and final tensors by their name on disk, the starting tensors, gradient norms before clipping)"""
    from diffusers import DDPMScheduler
    parts = load_parts(base, options)
    trained = make_trainable(parts, options, init, dtype, config_of_xl(base) if "unet" in parts else None)
    if channels_last:
        for module, _ in parts.values():
            module.to(memory_format=torch.channels_last)
    start = {k: p.detach().double().clone() for k, p in trained.items()}
    scheduler = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    optimizer = torch.optim.AdamW(list(trained.values()), lr=options["learning_rate"], betas=(0.9, 0.999), eps=1e-8,
                                  weight_decay=options.get("weight_decay", 1e-2), foreach=False)
    rate = rate_schedule(optimizer, options, steps)
    together, losses, norms, moving = options.get("gradient_accumulation_steps", 1), [], [], set()
    for step in range(steps):
        total = 0.0
        for j in range(together):
            i = step * together + j
            batch = {k.split(".", 1)[1]: v for k, v in batches.items() if k.startswith(f"{i}.")}
            loss = vae_loss(parts["vae"][0], batch, dtype) if "vae" in parts else diffusion_loss(parts, scheduler, batch, options, dtype)
            (loss / together).backward()
            total += float(loss.detach().double()) / together
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained.values(), options.get("max_grad_norm", math.inf))))
        moving |= {k for k, p in trained.items() if p.grad is not None}
        optimizer.step()
        rate.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    # whole parts: what no gradient reaches (SDXL's first encoder's last layer) is not trained; a LoRA's file has it all the same
    out = {k: p.detach().double().contiguous() for k, p in trained.items() if k in moving or options["method"] == "lora"}
    if init:
        out.update({k: v.double() for k, v in init.items() if k.endswith(".alpha")})
        start.update({k: v.double() for k, v in init.items() if k.endswith(".alpha")})
    out["loss"] = torch.tensor(losses, dtype=torch.float64)
    return out, start, norms
