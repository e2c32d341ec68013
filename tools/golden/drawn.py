"""drawn.py - the families of configs.PIPELINES with widths that a seed draws, so that a proof can be run on models no test has.

    make_models.py --pipelines --widths SEED --out DIR
"""
import math
import random

from configs import sdxl, text, unet, vae


def drawn(seed):
    """Each family with channels, groups, heads, depths and text widths of its own."""
    r = random.Random(seed)

    def levels(n, groups, uneven=True):
        heads = [r.choice((1, 2, 3, 4)) for _ in range(n)] if uneven else [r.choice((2, 4))] * n
        grain = [math.lcm(groups, h) for h in heads]
        return heads if uneven else heads[0], [g * max(1, round(r.choice((16, 24, 32, 40)) / g)) for g in grain]

    def encoder(layers, act="quick_gelu"):
        heads = r.choice((2, 3, 4))
        return text(heads * r.choice((8, 12)), r.choice((40, 56, 96)), layers, heads, 77, 0, act)

    def coder(n=2, **more):
        return vae([r.choice((8, 12, 16)) for _ in range(n)], 4, 1, 4, sample_size=16 << (n - 1), **more)

    def one(cross, layers, second=None, uneven=True, **more):
        groups = r.choice((4, 8))
        heads, channels = levels(len(cross), groups, uneven)
        first = encoder(3 if second else 2, "gelu" if more.get("use_linear_projection") and not second else "quick_gelu")
        while second and first["hidden_size"] == second["hidden_size"]:       # diffusers tells them apart by that in a single file
            first = encoder(3)
        width = first["hidden_size"] + (second["hidden_size"] if second else 0)
        return {"unet": unet(channels, cross, groups, heads, width, layers, sample_size=16, **more), "text": first,
                "prediction": "epsilon", "scheduler": "DDIMScheduler"}

    def two(cross, layers, depths, **more):
        second = {**encoder(3, "gelu"), "projection_dim": r.choice((12, 20, 28))}
        time = r.choice((4, 8, 12))
        out = one(cross, layers, second, **sdxl(second["projection_dim"], time, depths), **more)
        return {**out, "text2": second, "vae": coder(scaling_factor=0.13025), "scheduler": "EulerDiscreteScheduler"}

    flat = dict(use_linear_projection=True)
    out = {
        "pipe-eps": {**one("xx-", 1, uneven=False), "vae": coder(3), "scheduler": "PNDMScheduler"},
        "pipe-inpaint": {**one("x-", 1, uneven=False, in_channels=9), "vae": coder()},
        "pipe-sd21": {**one("x-", 2, **flat), "vae": coder(), "pad": "!", "prediction": "v_prediction"},
        "pipe-sd21-eps": {**one("xx-", 1, **flat), "vae": coder(), "pad": "!", "scheduler": "PNDMScheduler"},
        "pipe-sd21-inpaint": {**one("xx", 1, in_channels=9, **flat), "vae": coder(), "pad": "!"},
        "pipe-sdxl": two("-xx", 1, [1, 2, r.choice((1, 3))]),
        "pipe-sdxl-v": {**two("-x", 2, [1, r.choice((2, 3))]), "prediction": "v_prediction"},
        "pipe-sdxl-inpaint": two("-x", 1, [1, 2], in_channels=9),
        "pipe-ssd": two("-xx", 2, [1, [2, r.choice((1, 2))], [2, 2]], mid_block_type="UNetMidBlock2D",
                        reverse_transformer_layers_per_block=[[r.choice((1, 2)), 2, 3], [2, 1, 1], 1]),
        "pipe-vega": two("-xx", 1, [1, 1, 2], mid_block_type=None),
        "pipe-v": {**one("-x", 2, **flat), "vae": coder(4), "prediction": "v_prediction"},
        "pipe-zero-snr": {**one("xx", 1, uneven=False, in_channels=3, out_channels=3), "prediction": "v_prediction", "zero_snr": True},
    }
    out["pipe-zero-snr"]["vae"] = {**coder(), "latent_channels": 3}
    return out
