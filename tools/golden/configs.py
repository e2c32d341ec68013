"""configs.py - the model geometries that parity is checked on: data only.

Each entry: part (unet | vae | text), group (core = must hold, extra = load it or refuse it with a clear error),
config (what goes into config.json beside the class defaults), inputs (shapes of the check), file (how weights are spelled).
"""

DOWN, CROSS_DOWN, UP, CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"


def unet(channels, cross, groups, heads, width, layers=1, **more):
    """cross: one letter per level, x = with attention, - = without (SD 1.5 is "xxx-")."""
    config = {
        "block_out_channels": channels,
        "down_block_types": [CROSS_DOWN if c == "x" else DOWN for c in cross],
        "up_block_types": [CROSS_UP if c == "x" else UP for c in reversed(cross)],
        "norm_num_groups": groups, "attention_head_dim": heads, "cross_attention_dim": width,
        "layers_per_block": layers, "sample_size": 8,
    }
    config.update(more)
    return config


def sdxl(text_dim, time_dim, depths, **more):
    return dict(use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=time_dim,
                projection_class_embeddings_input_dim=text_dim + 6 * time_dim,
                transformer_layers_per_block=depths, **more)


def vae(channels, groups, layers, latent, **more):
    config = {
        "block_out_channels": channels, "norm_num_groups": groups, "layers_per_block": layers, "latent_channels": latent,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels), "sample_size": 64,
    }
    config.update(more)
    return config


def text(width, inner, layers, heads, positions, vocab, act="quick_gelu"):
    return {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "max_position_embeddings": positions, "vocab_size": vocab,
            "hidden_act": act, "bos_token_id": vocab - 2, "eos_token_id": vocab - 1, "pad_token_id": 1,
            "projection_dim": width}


def size(n, h, w, t=None):
    out = {"batch": n, "height": h, "width": w}
    if t:
        out["tokens"] = t
    return out


def entry(part, config, inputs, group="core", **file):
    return {"part": part, "group": group, "config": config, "inputs": inputs, "file": file}


MODELS = {
    # U-Nets. SD 1.5's own shape, made thin:
    "unet-sd15-thin": entry("unet", unet([32, 64, 128, 128], "xxx-", 32, 8, 32, 2), size(2, 8, 8, 77)),
    # SD 2.1's: linear projections, a head count per level, attention in f32 under f16
    "unet-sd21-thin": entry("unet", unet([32, 64, 128, 128], "xxx-", 32, [2, 4, 8, 8], 128, 2, use_linear_projection=True,
                                         upcast_attention=True), size(1, 16, 8, 77), f16=True),
    # unlike SD 1.5
    "unet-2-levels": entry("unet", unet([8, 16], "x-", 4, 2, 24), size(2, 8, 8, 5)),
    "unet-3-odd": entry("unet", unet([16, 32, 48], "xxx", 8, 4, 24, 2, use_linear_projection=True), size(2, 6, 10, 7)),
    "unet-3-layers-5x7": entry("unet", unet([16, 24, 32], "-xx", 4, [2, 3, 4], 32, 3), size(1, 5, 7, 9)),
    "unet-5-levels": entry("unet", unet([8, 16, 16, 24, 32], "xx-xx", 4, [1, 2, 2, 4, 8], 128), size(2, 32, 24, 11)),
    "unet-5-levels-odd": entry("unet", unet([16, 16, 24, 24, 32], "-x-x-", 4, [1, 4, 3, 2, 8], 24), size(1, 27, 37, 3)),
    "unet-attention-last": entry("unet", unet([16, 32], "-x", 8, 8, 24, 2), size(3, 8, 12, 6)),
    "unet-inpaint": entry("unet", unet([16, 32], "x-", 8, 1, 32, in_channels=9), size(2, 8, 8, 4)),
    "unet-out-8-gelu": entry("unet", unet([16, 32], "xx", 4, [4, 1], 32, out_channels=8, act_fn="gelu"), size(2, 4, 6, 8)),
    "unet-head-40-80": entry("unet", unet([40, 80], "x-", 4, 1, 24, 2, norm_eps=1e-6), size(2, 8, 6, 10)),
    "unet-plain-blocks": entry("unet", unet([16, 32, 32], "---", 4, 2, 24, 1), size(2, 8, 8, 5)),
    "unet-one-token": entry("unet", unet([12, 20], "x-", 4, [3, 5], 20), size(1, 3, 3, 1)),
    "unet-3-layers-wide": entry("unet", unet([32, 64], "xx", 32, 8, 24, 3), size(2, 7, 8, 77)),
    "unet-sdxl": entry("unet", unet([32, 64, 128], "-xx", 32, [2, 4, 8], 48, 2, **sdxl(24, 8, [1, 2, 3])), size(2, 8, 8, 12)),
    "unet-sdxl-head-64": entry("unet", unet([64, 128], "xx", 32, [1, 2], 32, 1, **sdxl(16, 32, [2, 1])),
                               {**size(1, 7, 5, 6), "integer_time_ids": True}),
    "unet-sdxl-4-odd": entry("unet", unet([16, 16, 32, 48], "-x-x", 4, [1, 2, 2, 3], 24, 1, **sdxl(20, 16, [1, 3, 1, 2])),
                             size(2, 9, 14, 5)),
    # beyond the family: load or refuse clearly
    "unet-ssd": entry("unet", unet([16, 32, 32], "-xx", 4, [1, 2, 4], 24, 2, mid_block_type="UNetMidBlock2D",
                                   reverse_transformer_layers_per_block=[[2, 2, 3], [2, 1, 1], 1],
                                   **sdxl(12, 8, [1, [2, 2], [2, 2]])), size(2, 8, 8, 6)),
    "unet-vega-no-mid": entry("unet", unet([16, 32, 32], "-xx", 4, 2, 24, 1, mid_block_type=None,
                                           **sdxl(12, 8, [1, 1, 2])), size(1, 8, 8, 6)),
    "unet-sdxl-inpaint": entry("unet", unet([16, 32], "-x", 4, 2, 24, 1, in_channels=9, **sdxl(12, 8, [1, 2])),
                               size(2, 6, 8, 5)),
    "unet-x-only-cross": entry("unet", unet([16, 32], "xx", 4, 2, 24, only_cross_attention=[True, False]), size(2, 8, 8, 5), "extra"),
    "unet-x-mish": entry("unet", unet([16, 32], "x-", 4, 2, 24, act_fn="mish"), size(2, 8, 8, 5), "extra"),
    "unet-x-relu": entry("unet", unet([16, 32], "x-", 4, 2, 24, act_fn="relu"), size(2, 8, 8, 5), "extra"),
    "unet-x-time-flip": entry("unet", unet([16, 32], "x-", 4, 2, 24, flip_sin_to_cos=False, freq_shift=1,
                                           center_input_sample=True), size(2, 8, 8, 5), "extra"),
    "unet-x-scale-shift": entry("unet", unet([16, 32], "x-", 4, 2, 24, resnet_time_scale_shift="scale_shift"), size(2, 8, 8, 5), "extra"),
    "unet-x-layer-list": entry("unet", unet([16, 32], "xx", 4, 2, 24, [1, 2], cross_attention_dim=[24, 24]), size(2, 8, 8, 5), "extra"),
    "unet-x-mid-plain": entry("unet", unet([16, 32], "x-", 4, 2, 24, mid_block_type="UNetMidBlock2D"), size(2, 8, 8, 5), "extra"),
    "unet-x-mid-scale": entry("unet", unet([16, 32], "x-", 4, 2, 24, mid_block_scale_factor=1.4), size(2, 8, 8, 5), "extra"),

    # autoencoders; height and width are the picture's
    "vae-sd15-thin": entry("vae", vae([32, 64, 64, 64], 32, 2, 4), size(1, 32, 48)),
    "vae-2-levels": entry("vae", vae([8, 16], 4, 1, 3), size(2, 12, 20)),
    "vae-3-odd": entry("vae", vae([16, 32, 32], 8, 1, 8), size(2, 22, 27)),
    "vae-5-levels": entry("vae", vae([8, 8, 16, 16, 24], 4, 1, 4), size(2, 32, 64), f16=True),
    "vae-no-quant": entry("vae", vae([16, 24], 8, 3, 8, use_quant_conv=False, use_post_quant_conv=False, force_upcast=False), size(1, 16, 12)),
    "vae-no-attention": entry("vae", vae([16, 32, 32], 4, 2, 4, mid_block_add_attention=False), size(2, 16, 16)),
    "vae-old-names": entry("vae", vae([16, 16, 32], 8, 1, 4), size(1, 16, 24), old_attention=True),
    "vae-gelu": entry("vae", vae([16, 32], 4, 1, 4, act_fn="gelu"), size(1, 12, 12)),
    "vae-half-quant": entry("vae", vae([8, 16], 4, 1, 4, use_quant_conv=False), size(1, 8, 8)),
    "vae-x-rgba": entry("vae", vae([8, 16], 4, 1, 4, in_channels=4, out_channels=4), size(1, 8, 8), "extra"),

    # text encoders; "text_model." is how every published file spells it, transformers >= 5.6 writes bare names
    "text-sd15-thin": entry("text", text(64, 256, 3, 4, 77, 2048), {"batch": 2, "tokens": 77}, prefix="text_model."),
    "text-gelu-bare": entry("text", text(48, 192, 2, 3, 24, 2048, "gelu"), {"batch": 3, "tokens": 24}, prefix=""),
    "text-full-vocabulary": entry("text", text(32, 128, 1, 2, 77, 49408), {"batch": 2, "tokens": 77}, prefix="text_model.", position_ids=True),
    "text-short": entry("text", text(128, 200, 4, 1, 24, 600, "gelu"), {"batch": 1, "tokens": 17}, prefix="text_model.", f16=True),
    "text-8-heads": entry("text", text(32, 64, 5, 8, 77, 700), {"batch": 2, "tokens": 30}, prefix=""),
}

# Small enough to live in git as test data with inputs, outputs and gradients (about 300 KB each at most).
GOLDEN = {
    "unet-tiny": entry("unet", unet([8, 8], "x-", 4, 2, 12), size(2, 5, 6, 5)),
    "unet-sdxl-tiny": entry("unet", unet([8, 8], "-x", 2, [1, 2], 8, 1, **sdxl(6, 4, [1, 2])), size(2, 6, 6, 3)),
    "vae-tiny": entry("vae", vae([4, 8], 2, 1, 4), size(1, 12, 10)),
    "text-tiny": entry("text", text(24, 64, 2, 3, 16, 300), {"batch": 2, "tokens": 11}, prefix="text_model."),
    "text2-tiny": entry("text2", {**text(16, 32, 3, 2, 16, 200, "gelu"), "projection_dim": 10}, {"batch": 2, "tokens": 11}),
    "unet-ssd-tiny": entry("unet", unet([8, 8, 8], "-xx", 2, [1, 2, 2], 8, 2, mid_block_type="UNetMidBlock2D", in_channels=9,
                                        reverse_transformer_layers_per_block=[[1, 1, 2], [2, 1, 1], 1],
                                        **sdxl(6, 4, [1, [1, 2], [1, 1]])), size(1, 8, 8, 3)),
}

# Whole small pipelines (tokenizer, scheduler, all parts): 64-pixel pictures.
PIPELINES = {
    "pipe-eps": {
        "unet": unet([16, 32, 32], "xx-", 8, 4, 32, 1, sample_size=16), "vae": vae([16, 32, 32], 8, 1, 4, sample_size=64),
        "text": text(32, 96, 2, 4, 77, 0), "prediction": "epsilon", "scheduler": "PNDMScheduler",
    },
    "pipe-v": {
        "unet": unet([16, 32], "-x", 8, [2, 4], 32, 2, use_linear_projection=True),
        "vae": vae([8, 16, 16, 24], 4, 1, 4, sample_size=64),
        "text": text(32, 128, 3, 2, 77, 0, "gelu"), "prediction": "v_prediction", "scheduler": "DDIMScheduler",
    },
    "pipe-zero-snr": {    # two levels, three latent channels, attention everywhere, zero terminal SNR
        "unet": unet([16, 24], "xx", 4, 2, 24, 1, in_channels=3, out_channels=3, sample_size=32),
        "vae": vae([8, 16], 4, 1, 3, sample_size=64),
        "text": text(24, 48, 1, 3, 77, 0), "prediction": "v_prediction", "scheduler": "DDIMScheduler", "zero_snr": True,
    },
}

def sdxl_pipe(unet_, first=(16, 32, 3, 2), second=(24, 48, 3, 3), **more):
    """SDXL's parts in small; its second encoder projects to `pooled` numbers."""
    return {"unet": unet_, "vae": vae([8, 16], 4, 1, 4, sample_size=32, scaling_factor=0.13025),
            "text": text(*first, 77, 0), "text2": {**text(*second, 77, 0, "gelu"), "projection_dim": 20},
            "prediction": "epsilon", "scheduler": "EulerDiscreteScheduler", **more}


SMALL_XL = dict(channels=[16, 32], cross="-x", groups=8, heads=[2, 4], width=40, sample_size=16)

# What came after SD 1.x: OpenCLIP's padding and linear projections, two encoders, a mask, uneven depths.
PIPELINES |= {
    "pipe-sd21": {
        "unet": unet([32, 64], "x-", 8, [2, 4], 32, 2, use_linear_projection=True, sample_size=16),
        "vae": vae([8, 16], 4, 1, 4, sample_size=32), "pad": "!",
        "text": text(32, 96, 3, 2, 77, 0, "gelu"), "prediction": "v_prediction", "scheduler": "DDIMScheduler",
    },
    "pipe-sd21-eps": {
        "unet": unet([32, 64], "xx", 8, [2, 4], 32, 1, use_linear_projection=True, sample_size=16),
        "vae": vae([8, 16], 4, 1, 4, sample_size=32), "pad": "!",
        "text": text(32, 96, 2, 2, 77, 0, "gelu"), "prediction": "epsilon", "scheduler": "PNDMScheduler",
    },
    "pipe-inpaint": {
        "unet": unet([16, 32], "x-", 8, 2, 32, 1, in_channels=9, sample_size=16),
        "vae": vae([8, 16], 4, 1, 4, sample_size=32),
        "text": text(32, 96, 2, 4, 77, 0), "prediction": "epsilon", "scheduler": "DDIMScheduler",
    },
    "pipe-sdxl": sdxl_pipe(unet(**SMALL_XL, **sdxl(20, 8, [1, 2]))),
    "pipe-sdxl-v": sdxl_pipe(unet(**SMALL_XL, **sdxl(20, 8, [1, 3])), prediction="v_prediction"),
    "pipe-sdxl-inpaint": sdxl_pipe(unet(**SMALL_XL, in_channels=9, **sdxl(20, 8, [1, 1]))),
    "pipe-ssd": sdxl_pipe(unet([16, 32, 32], "-xx", 8, [1, 2, 4], 40, 2, sample_size=16, mid_block_type="UNetMidBlock2D",
                               reverse_transformer_layers_per_block=[[2, 2, 3], [2, 1, 1], 1],
                               **sdxl(20, 8, [1, [2, 2], [2, 2]]))),
}

# Stable Diffusion 1.5 itself: 859,520,964 + 123,060,480 + 83,653,863 parameters.
SD15 = {
    "unet": unet([320, 640, 1280, 1280], "xxx-", 32, 8, 768, 2, sample_size=64),
    "vae": vae([128, 256, 512, 512], 32, 2, 4, sample_size=512),
    "text": {**text(768, 3072, 12, 12, 77, 49408), "eos_token_id": 49407, "bos_token_id": 49406},
    "prediction": "epsilon", "scheduler": "PNDMScheduler",
}
