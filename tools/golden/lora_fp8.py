"""Golden LoRAs in 8-bit floats: tests/golden/lora/files/fp8/. Kohya's plain LoRA and a LoKr of LyCORIS, and what
PyTorch widens them to.

    python tools/golden/lora_fp8.py           writes them (needs torch, safetensors)
"""
import os

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "lora", "files")
KINDS = [("e4m3", torch.float8_e4m3fn, "diffusers/kohya/file"), ("e5m2", torch.float8_e5m2, "lycoris/lokr-factor")]

os.makedirs(FILES + "/fp8", exist_ok=True)
for name, kind, source in KINDS:
    with safe_open(f"{FILES}/{source}.safetensors", "pt") as f:
        meta = f.metadata()
    narrow = {k: t.to(kind) for k, t in load_file(f"{FILES}/{source}.safetensors").items()}
    save_file(narrow, f"{FILES}/fp8/{name}.safetensors", metadata=meta)
    wide = {k: t.to(torch.bfloat16) for k, t in narrow.items()}
    save_file(wide, f"{FILES}/fp8/{name}-wide.safetensors", metadata=meta)
