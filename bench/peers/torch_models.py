"""torch_models.py - diffusers' models of Kiwame's families with meaningless weights, and a pass of each to be timed.

The configurations are the embedded ones (data/families/NAME.json); nothing is downloaded. A pass is a function that does
the whole work once. Training steps are diffusers' own scripts' (train_text_to_image_lora.py, train_text_to_image.py) with
latents' moments and text features in memory, as `kiwame train` has them: latents drawn, noise, timesteps, forward,
mean squared error in f32, backward, clipping at 1, AdamW.
"""
import json
import pathlib

import torch

FAMILIES = pathlib.Path(__file__).resolve().parents[2] / "data" / "families"
PASSES = ("forward", "lora", "full", "vae-encode", "vae-decode", "text")


def family(name):
    return json.loads((FAMILIES / f"{name}.json").read_text())


def fill(model):
    """Matrices uniform in +-0.02, norms 1, biases 0: from one window of numbers, as Kiwame's made families."""
    window = (torch.rand(1 << 22, generator=torch.Generator().manual_seed(1)) - 0.5) * 0.04
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() < 2:
                p.fill_(0 if name.endswith("bias") else 1)
                continue
            flat, source = p.view(-1), window.to(device=p.device, dtype=p.dtype)
            for at in range(0, flat.numel(), source.numel()):
                piece = flat[at:at + source.numel()]
                piece.copy_(source[:piece.numel()])


def make(build, dtype, device, channels_last):
    with torch.device("meta"):
        model = build()
    model = model.to(dtype).to_empty(device=device)
    fill(model)
    for name, b in model.named_buffers():
        if name.endswith("position_ids"):
            b.copy_(torch.arange(b.shape[-1], device=b.device).expand_as(b))
    return model.to(memory_format=torch.channels_last) if channels_last else model


def unet(config):
    from diffusers import UNet2DConditionModel
    return UNet2DConditionModel.from_config({"_class_name": "UNet2DConditionModel", **config["unet"]})


def vae(config):
    from diffusers import AutoencoderKL
    return AutoencoderKL.from_config({"_class_name": "AutoencoderKL", **config["vae"]})


def text(config):
    from transformers import CLIPTextConfig, CLIPTextModel
    return CLIPTextModel(CLIPTextConfig(**config["text_encoder"]))


def vae_factor(config):
    return 2 ** (len(config["vae"]["block_out_channels"]) - 1)


class Inputs:
    """What train has in its caches, random but of the right size."""

    def __init__(self, o, config, dtype, device):
        n, f, c = o.batch, vae_factor(config), config["unet"]["in_channels"]
        self.scaling = config["vae"].get("scaling_factor", 0.18215)
        self.mean = torch.rand(n, c, o.height // f, o.width // f, device=device)
        self.std = torch.rand(n, c, o.height // f, o.width // f, device=device)
        self.context = torch.rand(n, config["text_encoder"]["max_position_embeddings"],
                                  config["unet"]["cross_attention_dim"], device=device).to(dtype)
        self.added = None
        if config["unet"].get("addition_embed_type") == "text_time":
            pooled = config["unet"]["projection_class_embeddings_input_dim"] - 6 * config["unet"]["addition_time_embed_dim"]
            self.added = {"text_embeds": torch.rand(n, pooled, device=device).to(dtype),
                          "time_ids": torch.tensor([[o.height, o.width, 0, 0, o.height, o.width]] * n, device=device)}

    def latents(self):
        return (self.mean + self.std * torch.randn_like(self.mean)) * self.scaling


def forward(o, config, s):
    model = make(lambda: unet(config), s.weights, s.device, s.channels_last).eval()
    model = s.compile(model)
    x = Inputs(o, config, s.weights, s.device)
    latents, t = x.latents().to(s.weights), torch.full((o.batch,), 500, device=s.device)

    def once():
        with torch.no_grad(), s.autocast():
            return model(latents, t, x.context, added_cond_kwargs=x.added).sample
    return once


def add_lora(model, rank, dtype):
    """diffusers' train_text_to_image_lora.py: PEFT on the attention's four products; the adapter in this type."""
    from peft import LoraConfig
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian",
                                 target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    wanted = [p for p in model.parameters() if p.requires_grad]
    for p in wanted:
        p.data = p.data.to(dtype)
        torch.nn.init.normal_(p, std=0.02)
    return wanted


def step(o, config, s):
    """A LoRA or full training step; `s` says types, layout, and whether activations are computed again."""
    from diffusers import DDPMScheduler
    weights = s.weights if o.work == "lora" else s.master
    model = make(lambda: unet(config), weights, s.device, s.channels_last)
    wanted = add_lora(model, o.rank, s.master) if o.work == "lora" else list(model.parameters())
    if s.checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    runs = s.compile(model)
    noise_of = DDPMScheduler(**{k: config["scheduler"][k] for k in ("beta_start", "beta_end", "beta_schedule")
                                if k in config.get("scheduler", {})})
    optimizer = torch.optim.AdamW(wanted, lr=1e-4, weight_decay=1e-2, fused=s.fused or None)
    x = Inputs(o, config, weights, s.device)

    def once():
        latents = x.latents()
        noise = torch.randn_like(latents)
        t = torch.randint(0, noise_of.config.num_train_timesteps, (o.batch,), device=latents.device)
        noisy = noise_of.add_noise(latents, noise, t).to(weights)
        with s.autocast():
            out = runs(noisy, t, x.context, added_cond_kwargs=x.added).sample
        loss = torch.nn.functional.mse_loss(out.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(wanted, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()
    return once


def coder(o, config, s):
    model = make(lambda: vae(config), s.weights, s.device, s.channels_last).eval()
    encode = o.work == "vae-encode"
    half = s.compile(model.encoder if encode else model.decoder)
    if encode:
        model.encoder = half
    else:
        model.decoder = half
    f, c = vae_factor(config), config["vae"]["latent_channels"]
    shape = (o.batch, 3, o.height, o.width) if encode else (o.batch, c, o.height // f, o.width // f)
    given = torch.rand(shape, device=s.device).to(s.weights)

    def once():
        with torch.no_grad(), s.autocast():
            return model.encode(given).latent_dist.mean if encode else model.decode(given).sample
    return once


def texts(o, config, s):
    model = s.compile(make(lambda: text(config), s.weights, s.device, False).eval())
    ids = torch.zeros(o.batch, config["text_encoder"]["max_position_embeddings"], dtype=torch.long, device=s.device)

    def once():
        with torch.no_grad(), s.autocast():
            return model(ids).last_hidden_state
    return once


def make_pass(o, setting):
    maker = {"forward": forward, "lora": step, "full": step, "vae-encode": coder, "vae-decode": coder, "text": texts}
    return maker[o.work](o, family(o.model), setting)
