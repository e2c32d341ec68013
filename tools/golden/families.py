"""Published families' U-Nets as diffusers builds them: tests/golden/io/families.txt.

    python tools/golden/families.py            (needs torch, diffusers)

    = NAME | configuration as JSON, what weights tell       then name and shape of the tensors by which it is known

Configurations: unet/config.json of the repositories (runwayml, stabilityai, nota-ai, segmind, etri-vilab).
"""
import json
import os
import re

import torch
from diffusers import UNet2DConditionModel

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "io", "families.txt")
X, D, U, Y = "CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"
SD1 = dict(block_out_channels=[320, 640, 1280, 1280], layers_per_block=2, cross_attention_dim=768, attention_head_dim=8,
           sample_size=64, down_block_types=[X, X, X, D], up_block_types=[U, Y, Y, Y], in_channels=4,
           mid_block_type="UNetMidBlock2DCrossAttn", transformer_layers_per_block=1)
SD2 = dict(SD1, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)
XL = dict(SD2, block_out_channels=[320, 640, 1280], cross_attention_dim=2048, attention_head_dim=[5, 10, 20],
          sample_size=128, down_block_types=[D, X, X], up_block_types=[Y, Y, U], transformer_layers_per_block=[1, 2, 10],
          addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
BK = dict(SD1, layers_per_block=1)
TINY = dict(BK, mid_block_type=None, block_out_channels=[320, 640, 1280], down_block_types=[X] * 3, up_block_types=[Y] * 3)
SMALL = dict(XL, mid_block_type="UNetMidBlock2D")
FAMILIES = {
    "Stable Diffusion 1.x": SD1, "Stable Diffusion 1.x 9": dict(SD1, in_channels=9),
    "Stable Diffusion 1.x 8": dict(SD1, in_channels=8),
    "Stable Diffusion 2.x": SD2, "Stable Diffusion 2.x 9": dict(SD2, in_channels=9),
    "Stable Diffusion 2.x 5": dict(SD2, in_channels=5),
    "SDXL": XL, "SDXL 9": dict(XL, in_channels=9),
    "BK-SDM Base": BK, "BK-SDM Small": dict(BK, mid_block_type=None), "BK-SDM Tiny": TINY,
    "BK-SDM v2 Tiny": dict(TINY, cross_attention_dim=1024, use_linear_projection=True, attention_head_dim=[5, 10, 20]),
    "SSD-1B": dict(SMALL, transformer_layers_per_block=[1, 2, 4],
                   reverse_transformer_layers_per_block=[[4, 4, 10], [2, 1, 1], 1]),
    "Segmind Vega": dict(SMALL, transformer_layers_per_block=[1, 1, 2]),
    "KOALA 700M": dict(XL, layers_per_block=1, mid_block_type=None, transformer_layers_per_block=[1, 2, 5]),
    "like SDXL": dict(XL, transformer_layers_per_block=[1, 2, 3]),
    "refiner": dict(XL, block_out_channels=[384, 768, 1536, 1536], down_block_types=[D, X, X, D], up_block_types=[U, Y, Y, U],
                    transformer_layers_per_block=4, cross_attention_dim=1280, attention_head_dim=[6, 12, 24, 24],
                    projection_class_embeddings_input_dim=2560),
}
TELLS = re.compile(r"(conv_in|conv_out|conv1|proj_in|attentions\.\d+\.norm|downsamplers\.0\.conv|\.\d+\.norm1|"
                   r"0\.attn2\.to_k|add_embedding\.linear_1|time_embedding\.linear_1|mid_block.resnets.\d.norm1)\.weight$")


def main():
    with open(OUT, "w") as f:
        for name, c in FAMILIES.items():
            with torch.device("meta"):
                m = UNet2DConditionModel(**c)
            d = m.state_dict()
            f.write(f"= {name} | {json.dumps(c, separators=(',', ':'))}\n")
            for k in d:
                if TELLS.search(k):
                    f.write(f"{k} {'x'.join(map(str, d[k].shape))}\n")


main()
