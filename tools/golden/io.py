"""Golden files of the io layer: tests/golden/io/.

    python tools/golden/io.py            writes them (needs torch, diffusers, transformers, safetensors)
    python tools/golden/io.py check F    reads F, written by Kiwame, with the reference library and compares its
                                         tensors with tests/golden/io/dtypes.safetensors

dtypes.safetensors  every number format, as the reference library writes it
v1|v2|xl.safetensors + .txt   tiny random checkpoints in LDM's spelling (numbered by LDM's own constructor loops, redone
                    here), and what diffusers' converter makes of them: part, name, LDM name, shape, SHA-256 (16 digits)
sd15.txt, five.txt  names alone for SD 1.5's geometry (4 levels, 2 layers) and one of 5 levels with 3 layers
old_vae/            a VAE folder with the attention names of diffusers before 0.17
"""
import hashlib
import json
import os
import sys

import torch
from diffusers.loaders import single_file_utils as sf
from safetensors.torch import load_file, save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "io")


def conv(d, name, o, i, k):
    d[name + ".weight"] = (o, i, k, k)
    d[name + ".bias"] = (o,)


def linear(d, name, o, i, bias=True):
    d[name + ".weight"] = (o, i)
    if bias:
        d[name + ".bias"] = (o,)


def norm(d, name, c):
    d[name + ".weight"] = (c,)
    d[name + ".bias"] = (c,)


def res(d, p, i, o, emb):
    norm(d, p + ".in_layers.0", i)
    conv(d, p + ".in_layers.2", o, i, 3)
    linear(d, p + ".emb_layers.1", o, emb)
    norm(d, p + ".out_layers.0", o)
    conv(d, p + ".out_layers.3", o, o, 3)
    if i != o:
        conv(d, p + ".skip_connection", o, i, 1)


def transformer(d, p, c, context, depth, lin):
    norm(d, p + ".norm", c)
    (linear(d, p + ".proj_in", c, c) if lin else conv(d, p + ".proj_in", c, c, 1))
    for k in range(depth):
        b = f"{p}.transformer_blocks.{k}"
        for a, width in (("attn1", c), ("attn2", context)):
            linear(d, f"{b}.{a}.to_q", c, c, False)
            linear(d, f"{b}.{a}.to_k", c, width, False)
            linear(d, f"{b}.{a}.to_v", c, width, False)
            linear(d, f"{b}.{a}.to_out.0", c, c)
        linear(d, f"{b}.ff.net.0.proj", 8 * c, c)
        linear(d, f"{b}.ff.net.2", c, 4 * c)
        for n in ("norm1", "norm2", "norm3"):
            norm(d, f"{b}.{n}", c)
    (linear(d, p + ".proj_out", c, c) if lin else conv(d, p + ".proj_out", c, c, 1))


def ldm_unet(mc, mult, layers, depth, mid, context, lin, adm=0):
    """openaimodel.UNetModel.__init__: depth[level] transformer blocks, 0: none."""
    d, emb = {}, 4 * mc
    linear(d, "time_embed.0", emb, mc)
    linear(d, "time_embed.2", emb, emb)
    if adm:
        linear(d, "label_emb.0.0", emb, adm)
        linear(d, "label_emb.0.2", emb, emb)
    conv(d, "input_blocks.0.0", mc, 4, 3)
    n, ch, chans = 1, mc, [mc]
    for level, m in enumerate(mult):
        for _ in range(layers):
            res(d, f"input_blocks.{n}.0", ch, m * mc, emb)
            ch = m * mc
            if depth[level]:
                transformer(d, f"input_blocks.{n}.1", ch, context, depth[level], lin)
            chans.append(ch)
            n += 1
        if level != len(mult) - 1:
            conv(d, f"input_blocks.{n}.0.op", ch, ch, 3)
            chans.append(ch)
            n += 1
    res(d, "middle_block.0", ch, ch, emb)
    transformer(d, "middle_block.1", ch, context, mid, lin)
    res(d, "middle_block.2", ch, ch, emb)
    n = 0
    for level, m in reversed(list(enumerate(mult))):
        for i in range(layers + 1):
            res(d, f"output_blocks.{n}.0", ch + chans.pop(), m * mc, emb)
            ch, k = m * mc, 1
            if depth[level]:
                transformer(d, f"output_blocks.{n}.1", ch, context, depth[level], lin)
                k = 2
            if level and i == layers:
                conv(d, f"output_blocks.{n}.{k}.conv", ch, ch, 3)
            n += 1
    norm(d, "out.0", ch)
    conv(d, "out.2", 4, mc, 3)
    return d


def vae_res(d, p, i, o):
    norm(d, p + ".norm1", i)
    conv(d, p + ".conv1", o, i, 3)
    norm(d, p + ".norm2", o)
    conv(d, p + ".conv2", o, o, 3)
    if i != o:
        conv(d, p + ".nin_shortcut", o, i, 1)


def vae_mid(d, p, c):
    vae_res(d, p + ".mid.block_1", c, c)
    norm(d, p + ".mid.attn_1.norm", c)
    for n in ("q", "k", "v", "proj_out"):
        conv(d, f"{p}.mid.attn_1.{n}", c, c, 1)
    vae_res(d, p + ".mid.block_2", c, c)


def ldm_vae(ch, mult, layers, z=4):
    """model.Encoder and Decoder."""
    d, last = {}, len(mult) - 1
    conv(d, "encoder.conv_in", ch, 3, 3)
    c = ch
    for i, m in enumerate(mult):
        for j in range(layers):
            vae_res(d, f"encoder.down.{i}.block.{j}", c, ch * m)
            c = ch * m
        if i != last:
            conv(d, f"encoder.down.{i}.downsample.conv", c, c, 3)
    vae_mid(d, "encoder", c)
    norm(d, "encoder.norm_out", c)
    conv(d, "encoder.conv_out", 2 * z, c, 3)
    conv(d, "quant_conv", 2 * z, 2 * z, 1)
    conv(d, "post_quant_conv", z, z, 1)
    conv(d, "decoder.conv_in", c, z, 3)
    vae_mid(d, "decoder", c)
    for i in reversed(range(len(mult))):
        for j in range(layers + 1):
            vae_res(d, f"decoder.up.{i}.block.{j}", c, ch * mult[i])
            c = ch * mult[i]
        if i:
            conv(d, f"decoder.up.{i}.upsample.conv", c, c, 3)
    norm(d, "decoder.norm_out", c)
    conv(d, "decoder.conv_out", 3, c, 3)
    return d


def hf_text(width, layers, words=50, head="text_model."):
    d = {}
    d[head + "embeddings.token_embedding.weight"] = (words, width)
    d[head + "embeddings.position_embedding.weight"] = (7, width)
    for k in range(layers):
        p = f"{head}encoder.layers.{k}"
        for n in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(d, f"{p}.self_attn.{n}", width, width)
        linear(d, p + ".mlp.fc1", 4 * width, width)
        linear(d, p + ".mlp.fc2", width, 4 * width)
        norm(d, p + ".layer_norm1", width)
        norm(d, p + ".layer_norm2", width)
    norm(d, head + "final_layer_norm", width)
    return d


def open_clip(width, layers, words=50):
    d = {"positional_embedding": (7, width), "token_embedding.weight": (words, width),
         "text_projection": (width, width + 1), "logit_scale": ()}
    for k in range(layers):
        p = f"transformer.resblocks.{k}"
        d[p + ".attn.in_proj_weight"] = (3 * width, width)
        d[p + ".attn.in_proj_bias"] = (3 * width,)
        linear(d, p + ".attn.out_proj", width, width)
        linear(d, p + ".mlp.c_fc", 4 * width, width)
        linear(d, p + ".mlp.c_proj", width, 4 * width)
        norm(d, p + ".ln_1", width)
        norm(d, p + ".ln_2", width)
    norm(d, "ln_final", width)
    return d


def filled(shapes, seed, prefix=""):
    g = torch.Generator().manual_seed(seed)
    return {prefix + k: torch.randn(s, generator=g).to(torch.float16) for k, s in shapes.items()}


def digest(t):
    t = t.contiguous()
    return hashlib.sha256(t.view(torch.uint8).numpy().tobytes() if t.dim() else t.numpy().tobytes()).hexdigest()[:16]


def sources(ldm):
    return {t.untyped_storage().data_ptr(): k for k, t in ldm.items()}


def rows(part, converted, ldm, prefix):
    where = sources(ldm)
    for name in sorted(converted):
        t = converted[name]
        key = where.get(t.untyped_storage().data_ptr(), "-").removeprefix(prefix)
        shape = "x".join(map(str, t.shape)) or "1"
        yield f"{part} {name} {key} {shape} {digest(t)}"


class Wide:                                  # what convert_open_clip_checkpoint asks of a model
    def __init__(self, width):
        self.config = type("config", (), {"hidden_size": width})


def write_checkpoint(name, unet, vae, text, text2=None, extra=None):
    u = filled(ldm_unet(**unet), 1, "model.diffusion_model.")
    v = filled(ldm_vae(**vae), 2, "first_stage_model.")
    ldm, lines = {**u, **v, **text, **(text2 or {}), **(extra or {})}, []
    c = {"layers_per_block": unet["layers"], "addition_embed_type": "text_time" if unet.get("adm") else None}
    lines += rows("unet", sf.convert_ldm_unet_checkpoint(ldm, c), u, "model.diffusion_model.")
    c = {k: [None] * len(vae["mult"]) for k in ("down_block_types", "up_block_types")}
    lines += rows("vae", sf.convert_ldm_vae_checkpoint(ldm, c), v, "first_stage_model.")
    if text and any("cond_stage_model.model." in k for k in text):
        width = text["cond_stage_model.model.token_embedding.weight"].shape[1]
        # the width decides where q, k, v part; the converter asks the projection for it, which SD 2 does not use
        quiet = {k: t for k, t in ldm.items() if not k.endswith("text_projection")}
        got = sf.convert_open_clip_checkpoint(Wide(width), quiet, "cond_stage_model.model.")
        got.pop("text_projection.weight", None)
        lines += rows("text_encoder", got, {}, "")
    elif text:
        got = sf.convert_ldm_clip_checkpoint(ldm)
        got = {k: t for k, t in got.items() if "position_ids" not in k}
        lines += rows("text_encoder", got, {}, "")
    if text2:
        p = "conditioner.embedders.1.model."
        got = sf.convert_open_clip_checkpoint(Wide(0), ldm, p)
        lines += rows("text_encoder_2", got, {}, "")
    save_file(ldm, f"{OUT}/{name}.safetensors", {"format": "pt"})
    open(f"{OUT}/{name}.txt", "w").write("\n".join(lines) + "\n")


def write_names(name, unet, vae):
    """Names alone: tensors without elements, told apart by their storage."""
    def empty(shapes, prefix):
        return {prefix + k: torch.empty((1,) * len(s)) for k, s in shapes.items()}
    u, v = empty(ldm_unet(**unet), "model.diffusion_model."), empty(ldm_vae(**vae), "first_stage_model.")
    got = sf.convert_ldm_unet_checkpoint(u, {"layers_per_block": unet["layers"]})
    where, lines = sources(u), []
    for k in sorted(got):
        lines.append(f"unet {k} {where[got[k].untyped_storage().data_ptr()].removeprefix('model.diffusion_model.')}")
    c = {k: [None] * len(vae["mult"]) for k in ("down_block_types", "up_block_types")}
    got, where = sf.convert_ldm_vae_checkpoint(v, c), sources(v)
    for k in sorted(got):
        lines.append(f"vae {k} {where[got[k].untyped_storage().data_ptr()].removeprefix('first_stage_model.')}")
    open(f"{OUT}/{name}.txt", "w").write("\n".join(lines) + "\n")


def write_dtypes():
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8,
             torch.bool, torch.int16, torch.int8, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn,
             torch.float8_e5m2]
    d = {}
    for i, kind in enumerate(kinds):
        d[f"t{i:02d}"] = ((torch.arange(3 * (i + 1)) % 7) + (0 if kind == torch.bool else 1)).reshape(3, i + 1).to(kind)
    d["日本語.重み"] = torch.zeros(0, 4)
    d["scalar"] = torch.tensor(2.5)
    d["quote\"back\\slash"] = torch.tensor([-1.5, 0.1])
    save_file(d, f"{OUT}/dtypes.safetensors", {"format": "pt\"\\\n\x01\x7fé"})


def write_old_vae():
    import diffusers
    torch.manual_seed(3)
    m = diffusers.AutoencoderKL(block_out_channels=(4, 8), down_block_types=["DownEncoderBlock2D"] * 2,
                                up_block_types=["UpDecoderBlock2D"] * 2, norm_num_groups=2, layers_per_block=1)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    d, lines = {}, []
    for k, t in m.state_dict().items():
        name = k
        for new, was in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{was}.")
        d[name] = t
        lines.append(f"vae {k} {name} {'x'.join(map(str, t.shape))} {digest(t)}")
    os.makedirs(f"{OUT}/old_vae", exist_ok=True)
    save_file(d, f"{OUT}/old_vae/diffusion_pytorch_model.safetensors", {"format": "pt"})
    json.dump({"_class_name": "AutoencoderKL", **{k: v for k, v in m.config.items() if k[0] != "_"}},
              open(f"{OUT}/old_vae/config.json", "w"), indent=1)
    open(f"{OUT}/old_vae.txt", "w").write("\n".join(lines) + "\n")


def check_against_models():
    """The loops above give the very parameters of diffusers' own models."""
    import diffusers
    u = dict(mc=4, mult=(1, 2, 4), layers=1, depth=(1, 1, 0), mid=1, context=6, lin=False)
    got = sf.convert_ldm_unet_checkpoint(filled(ldm_unet(**u), 1, "model.diffusion_model."), {"layers_per_block": 1})
    m = diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8, 16), layers_per_block=1, cross_attention_dim=6, attention_head_dim=2,
        norm_num_groups=2,
        down_block_types=["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2)
    assert {k: tuple(t.shape) for k, t in m.state_dict().items()} == {k: tuple(t.shape) for k, t in got.items()}
    v = dict(ch=4, mult=(1, 2, 2), layers=2)
    got = sf.convert_ldm_vae_checkpoint(filled(ldm_vae(**v), 1, "first_stage_model."),
                                        {"down_block_types": [0] * 3, "up_block_types": [0] * 3})
    m = diffusers.AutoencoderKL(block_out_channels=(4, 8, 8), down_block_types=["DownEncoderBlock2D"] * 3,
                                up_block_types=["UpDecoderBlock2D"] * 3, norm_num_groups=2, layers_per_block=2)
    assert {k: tuple(t.shape) for k, t in m.state_dict().items()} == {k: tuple(t.shape) for k, t in got.items()}


def main():
    os.makedirs(OUT, exist_ok=True)
    write_dtypes()
    check_against_models()
    te = "cond_stage_model.transformer."
    extra = {te + "text_model.embeddings.position_ids": torch.arange(7).reshape(1, 7), "betas": torch.zeros(3),
             "model_ema.decay": torch.tensor(0.5), "strange.weight": torch.zeros(2)}
    write_checkpoint("v1", dict(mc=4, mult=(1, 2), layers=2, depth=(1, 0), mid=1, context=6, lin=False),
                     dict(ch=4, mult=(1, 2), layers=1), filled(hf_text(6, 2), 4, te), extra=extra)
    cl = open_clip(4, 24, 20)
    write_checkpoint("v2", dict(mc=4, mult=(1, 2, 2), layers=1, depth=(1, 1, 0), mid=1, context=4, lin=True),
                     dict(ch=4, mult=(1, 1, 2), layers=2), filled(cl, 5, "cond_stage_model.model."))
    write_checkpoint("xl", dict(mc=4, mult=(1, 2), layers=1, depth=(0, 2), mid=3, context=8, lin=True, adm=10),
                     dict(ch=4, mult=(1, 2), layers=1),
                     filled(hf_text(4, 2, 20), 6, "conditioner.embedders.0.transformer."),
                     filled({**open_clip(4, 2, 20), "text_projection": (4, 4)}, 7, "conditioner.embedders.1.model."))
    write_names("sd15", dict(mc=2, mult=(1, 2, 4, 4), layers=2, depth=(1, 1, 1, 0), mid=1, context=3, lin=False),
                dict(ch=2, mult=(1, 2, 4, 4), layers=2))
    write_names("five", dict(mc=2, mult=(1, 2, 2, 2, 4), layers=3, depth=(0, 1, 2, 0, 1), mid=1, context=3, lin=True),
                dict(ch=2, mult=(1, 2, 2, 2, 2), layers=3))
    write_old_vae()


def check(path):
    a, b = load_file(path), load_file(f"{OUT}/dtypes.safetensors")
    assert a.keys() == b.keys()
    for k in a:
        assert a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and digest(a[k]) == digest(b[k]), k
    print(len(a), "tensors agree")


if __name__ == "__main__":
    check(sys.argv[2]) if sys.argv[1:2] == ["check"] else main()
