"""single_file.py - diffusers names to the names of an LDM single-file checkpoint (SD 1.x), any number of levels.

Worked out from the two code bases' module trees; checked by loading the result with diffusers' from_single_file.
"""
import re

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
UNET_ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def resnet(rest):
    module, leaf = rest.rsplit(".", 1)
    return RESNET[module] + "." + leaf


def unet_name(name, config):
    layers, last = config["layers_per_block"], len(config["block_out_channels"]) - 1
    module, leaf = name.rsplit(".", 1)
    if module in UNET_ENDS:
        return f"{UNET_ENDS[module]}.{leaf}"
    m = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
    if m:
        which = 1 if m[1] == "attentions" else 2 * int(m[2])
        return f"middle_block.{which}." + (m[3] if m[1] == "attentions" else resnet(m[3]))
    m = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    side, i, what, j, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
    # a level has `layers` blocks on the way down and one more on the way up; its resampler follows
    first = 1 + i * (layers + 1) if side == "down" else i * (layers + 1)
    root = "input_blocks" if side == "down" else "output_blocks"
    if what == "resnets":
        return f"{root}.{first + j}.0.{resnet(rest)}"
    if what == "attentions":
        return f"{root}.{first + j}.1.{rest}"
    if what == "downsamplers":
        return f"{root}.{first + layers}.0.op.{leaf}"
    has_attention = config["up_block_types"][i].startswith("CrossAttn")
    return f"{root}.{first + layers}.{2 if has_attention else 1}.conv.{leaf}"


def vae_name(name, config):
    last = len(config["block_out_channels"]) - 1
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    m = re.match(r"(.*)mid_block\.attentions\.0\.(.*)\.(weight|bias)$", name)
    if m:
        return f"{m[1]}mid.attn_1.{VAE_ATTENTION[m[2]]}.{m[3]}"
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{last - int(m[1])}.block.", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"up.{last - int(m[1])}.upsample.", name)


def to_ldm(part, name, tensor, config):
    """(LDM name, tensor): the autoencoder's attention weights become 1x1 convolutions there."""
    if part == "text":
        bare = name.removeprefix("text_model.")
        return "cond_stage_model.transformer.text_model." + bare, tensor
    if part == "unet":
        return "model.diffusion_model." + unet_name(name, config), tensor
    ldm = vae_name(name, config)
    if ".attn_1." in ldm and tensor.dim() == 2:
        tensor = tensor[:, :, None, None]
    return "first_stage_model." + ldm, tensor
