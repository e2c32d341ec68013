"""Golden files of PyTorch's containers: tests/golden/io/torch/.

    python tools/golden/torch_files.py           writes them (needs torch, safetensors)

kinds.pt             zip, every kind of number, strided and shared tensors, a parameter, values that are no tensors
kinds.safetensors    the same tensors, for comparing
legacy.pt            the form of PyTorch 0.2 to 1.5
oldest.pt            the tar form before; PyTorch still reads it, so it is checked here with torch.load
v1.ckpt, v1.txt      tests/golden/io/v1.safetensors as a checkpoint of PyTorch Lightning, with averaged weights
                     (model_ema), f32; and what diffusers' converter makes of the averages
half.ckpt, bf16.pt   two tensors in f16 and bf16, state_dict
wrapped.pt           the autoencoder of v1 as a trainer may leave it: {"model": {"state_dict": ...}} of a network that
                     was compiled within DistributedDataParallel, with its optimizer, in the legacy form
evil.ckpt            asks for os.system: must be refused, and nothing may run
"""
import io
import os
import pickle
import struct
import tarfile
from collections import OrderedDict

import numpy
import torch
from safetensors.torch import load_file, save_file

IO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "io")
OUT = IO + "/torch"
KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
         torch.int16, torch.int8, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]
LEGACY = KINDS[:10]


def tensors(kinds):
    d = OrderedDict()
    for i, kind in enumerate(kinds):
        d[f"t{i:02d}"] = ((torch.arange(3 * (i + 1)) % 7) + (0 if kind == torch.bool else 1)).reshape(3, i + 1).to(kind)
    base = torch.arange(24.0)
    d["turned"] = base[:6].reshape(2, 3).t()
    d["window"] = base.reshape(4, 6)[1:3, 2:5]
    d["last"] = torch.arange(2 * 3 * 4 * 5, dtype=torch.float16).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    d["tied"] = base
    d["one"] = torch.tensor(2.5)
    d["empty"] = torch.zeros(0, 4)
    d["parameter"] = torch.nn.Parameter(torch.full((2, 2), 0.5))
    d["日本語.重み"] = torch.ones(3)
    return d


def lightning(state):
    """What a Lightning checkpoint has beside its weights; the class is a stand-in under the real one's name."""
    import sys
    import types
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        sys.modules.setdefault(part, types.ModuleType(part))
    sys.modules[name].ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    return {"epoch": 6, "global_step": 840000, "pytorch-lightning_version": "1.4.2", "state_dict": state,
            "callbacks": {sys.modules[name].ModelCheckpoint: {"best": numpy.float64(0.25), "score": torch.tensor(1.0)}},
            "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-4}]}],
            "lr_schedulers": [], "hyper": (1, 2.5, None, True, b"raw", 2 ** 70, -5)}


def oldest(d, path):
    """torch/serialization.py of 0.1: three members, protocol 2; tensors are numbered by their address."""
    def tar_add(tar, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    names = {torch.float32: ("FloatStorage", "FloatTensor"), torch.float64: ("DoubleStorage", "DoubleTensor"),
             torch.float16: ("HalfStorage", "HalfTensor"), torch.int64: ("LongStorage", "LongTensor"),
             torch.int32: ("IntStorage", "IntTensor"), torch.uint8: ("ByteStorage", "ByteTensor")}

    class Name:
        def __init__(self, name):
            self.name = name

    class P(pickle._Pickler):
        def save(self, obj, save_persistent_id=True):
            if isinstance(obj, Name):
                return self.write(b"ctorch\n" + obj.name.encode() + b"\n")
            return super().save(obj, save_persistent_id)

        def persistent_id(self, obj):
            return 1000 + list(d).index(obj.key) if isinstance(obj, Key) else None

    class Key:
        def __init__(self, key):
            self.key = key

    def dumped(obj):
        f = io.BytesIO()
        P(f, 2).dump(obj)
        return f.getvalue()

    storages, lists = dumped(len(d)), dumped(len(d))
    for i, (k, t) in enumerate(d.items()):
        s, c = names[t.dtype]
        raw = t.untyped_storage()
        storages += dumped((i, "cpu", Name(s))) + struct.pack("<q", raw.nbytes() // t.element_size()) + bytes(raw.tolist())
        lists += dumped((1000 + i, i, Name(c))) + struct.pack("<ii", t.dim(), 0)
        lists += struct.pack(f"<{2 * t.dim() + 1}q", *t.shape, *t.stride(), t.storage_offset())
    storages += dumped([])
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        tar_add(tar, "sys_info", dumped({"protocol_version": 1000, "little_endian": True}))
        tar_add(tar, "pickle", dumped({k: Key(k) for k in d}))
        tar_add(tar, "tensors", lists)
        tar_add(tar, "storages", storages)
    got = torch.load(path, weights_only=False)
    assert all(torch.equal(got[k], d[k]) for k in d) and len(got) == len(d)


class Evil:
    def __reduce__(self):
        return os.system, ("touch kiwame-was-here",)


def averaged(ldm):
    """LitEma's copies: names without dots, the U-Net's alone."""
    d = {}
    for k, t in ldm.items():
        if k.startswith("model."):
            d["model_ema." + k.removeprefix("model.").replace(".", "")] = t + 1
    return d


def wrapped(ldm):
    """Names as modules give them; an ordinary module stands for DistributedDataParallel, which wants processes."""
    head = "first_stage_model."
    net, parallel = torch.nn.Module(), torch.nn.Module()
    for k, t in ldm.items():
        at = net
        *path, leaf = k.removeprefix(head).split(".") if k.startswith(head) else [None]
        for name in path:
            if not hasattr(at, name):
                at.add_module(name, torch.nn.Module())
            at = getattr(at, name)
        if leaf:
            at.register_parameter(leaf, torch.nn.Parameter(t))
    parallel.module = torch.compile(net)
    some = [p for p in net.parameters()][:2]
    adam = torch.optim.AdamW(some, lr=0, foreach=False)
    for p in some:
        p.grad = torch.ones_like(p)
    adam.step()
    model = {"state_dict": parallel.state_dict(), "epoch": 3}
    return {"model": model, "optimizer": adam.state_dict(), "args": {"lr": 1e-4}}


def rezip(path, to, pack):
    """The same archive, some of its entries compressed."""
    import zipfile
    a = zipfile.ZipFile(path)
    with zipfile.ZipFile(to, "w") as z:
        for i in a.infolist():
            z.writestr(zipfile.ZipInfo(i.filename), a.read(i.filename),
                       zipfile.ZIP_DEFLATED if pack(i.filename) else zipfile.ZIP_STORED)


def main():
    import sys
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import io as _
    from diffusers.loaders import single_file_utils as sf
    os.makedirs(OUT, exist_ok=True)
    d = tensors(KINDS)
    torch.save({**d, "note": "a text", "numbers": [1, 2]}, f"{OUT}/kinds.pt")
    save_file({k: t.detach().contiguous().clone() for k, t in d.items()}, f"{OUT}/kinds.safetensors")
    torch.save(tensors(LEGACY), f"{OUT}/legacy.pt", _use_new_zipfile_serialization=False)
    oldest({k: t for k, t in tensors(KINDS[:3] + KINDS[4:7]).items() if k not in ("parameter", "empty")}, f"{OUT}/oldest.pt")
    v1 = {k: t.float() if t.is_floating_point() else t for k, t in load_file(IO + "/v1.safetensors").items()}
    state = OrderedDict({**v1, **averaged(v1)})
    torch.save(lightning(state), f"{OUT}/v1.ckpt")
    c = {"layers_per_block": 2, "addition_embed_type": None}
    from importlib.util import module_from_spec, spec_from_file_location
    spec = spec_from_file_location("golden_io", os.path.join(os.path.dirname(os.path.abspath(__file__)), "io.py"))
    g = module_from_spec(spec)
    spec.loader.exec_module(g)
    got = sf.convert_ldm_unet_checkpoint(dict(state), c, extract_ema=True)
    with open(f"{OUT}/v1.txt", "w") as f:
        for k in sorted(got):
            f.write(f"unet {k} - {'x'.join(map(str, got[k].shape)) or '1'} {g.digest(got[k])}\n")
    two = {"a.weight": torch.linspace(-2, 2, 12).reshape(3, 4), "a.bias": torch.linspace(0, 1, 3)}
    torch.save({"state_dict": {k: t.half() for k, t in two.items()}}, f"{OUT}/half.ckpt")
    torch.save({k: t.bfloat16() for k, t in two.items()}, f"{OUT}/bf16.pt", pickle_protocol=4)
    torch.save(wrapped(load_file(IO + "/v1.safetensors")), f"{OUT}/wrapped.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": two, "x": Evil()}, f"{OUT}/evil.ckpt")
    rezip(f"{OUT}/bf16.pt", f"{OUT}/deflated.pt", lambda name: name.endswith("data.pkl"))
    rezip(f"{OUT}/bf16.pt", f"{OUT}/all-deflated.pt", lambda name: True)


main()
