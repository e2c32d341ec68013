#!/usr/bin/env python3
"""to_f16.py FILE... - rewrites the F32 tensors of safetensors files as F16, in place. Standard library only."""
import json
import struct
import sys


def convert(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:8 + size]), data[8 + size:]
    meta = header.pop("__metadata__", None)
    out, at, new = [], 0, {"__metadata__": meta} if meta else {}
    for name, t in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        part = body[t["data_offsets"][0]:t["data_offsets"][1]]
        if t["dtype"] == "F32":
            n = len(part) // 4
            part = struct.pack(f"<{n}e", *struct.unpack(f"<{n}f", part))
            t["dtype"] = "F16"
        out.append(part)
        new[name] = {"dtype": t["dtype"], "shape": t["shape"], "data_offsets": [at, at + len(part)]}
        at += len(part)
    text = json.dumps(new, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(out))


for path in sys.argv[1:]:
    convert(path)
