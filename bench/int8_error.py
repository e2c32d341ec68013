"""What rounding a U-Net's frozen weights to one byte a number costs: relative L2 error of its output against f32 weights, in
diffusers, whose numbers are independent of ours. Per output channel (what --base-dtype int8 does), per block of inputs, with
the tokens that enter linear layers in 8 or 16 bits as well, and bf16 weights beside it.

    python bench/int8_error.py data/kiwame-emoji-128 [latent side] [timesteps]
"""
import sys

import torch
from diffusers import UNet2DConditionModel

OUTSIDE = ("conv_in", "conv_out", "time_embedding", "add_embedding", "class_embedding")


def rounded(w, block):
    rows = w.reshape(w.shape[0], -1)
    n = rows.shape[1]
    block = block or n
    parts = torch.nn.functional.pad(rows, (0, -n % block)).reshape(w.shape[0], -1, block)
    scale = (parts.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-30)
    return ((parts / scale).round() * scale).reshape(w.shape[0], -1)[:, :n].reshape(w.shape)


def tokens(bits):
    def hook(module, inputs):
        x = inputs[0]
        most = 127 if bits == 8 else min(32767, (2**31 - 1) // (127 * x.shape[-1]))
        scale = (x.abs().amax(-1, keepdim=True) / most).clamp_min(1e-30)
        return ((x / scale).round() * scale,) + inputs[1:]
    return hook


@torch.no_grad()
def main(path, side=16, steps="900,500,100"):
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(path, subfolder="unet").eval().float()
    x = torch.randn(1, unet.config.in_channels, int(side), int(side))
    text = torch.randn(1, 77, unet.config.cross_attention_dim)
    run = [int(t) for t in steps.split(",")]
    exact = [unet(x, t, text).sample for t in run]
    weights = {n: (p, p.clone()) for n, p in unet.named_parameters() if p.dim() > 1 and not n.startswith(OUTSIDE)}

    def show(name, change, bits=0):
        for p, original in weights.values():
            p.copy_(change(original))
        hooks = [m.register_forward_pre_hook(tokens(bits)) for n, m in unet.named_modules()
                 if bits and isinstance(m, torch.nn.Linear) and not n.startswith(OUTSIDE) and "time_emb_proj" not in n]
        errors = [float((unet(x, t, text).sample - e).norm() / e.norm()) for t, e in zip(run, exact)]
        print(f"{name:44}", *(f"{e:.1e}" for e in errors), flush=True)
        for h in hooks:
            h.remove()

    print(f"{'timestep':44}", *run)
    show("a scale for each output", lambda w: rounded(w, 0))
    show("... and tokens of 16 bits", lambda w: rounded(w, 0), 16)
    show("... and tokens of 8 bits", lambda w: rounded(w, 0), 8)
    show("a scale for each 64 inputs", lambda w: rounded(w, 64))
    show("a scale for each 32 inputs", lambda w: rounded(w, 32))
    show("bf16", lambda w: w.bfloat16().float())


main(*sys.argv[1:])
