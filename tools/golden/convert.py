"""Kiwame's `convert` against diffusers: tiny random models of each family, both ways.

    python tools/golden/convert.py build/kiwame [FOLDER [SEED]]      (needs torch, diffusers, transformers, safetensors)

For each family: a diffusers folder with random weights -> one file -> folder. The folder's tensors must be those of the
first one bit for bit; the file's must give diffusers' own converters (loaders/single_file_utils.py) the same tensors
bit for bit; diffusers must load the folder, and the file with from_single_file. Then as .ckpt, .bin, shards and an
`fp16` variant as sources, and the types against torch's own conversion. Another SEED than 7 gives other widths, too.
"""
import json
import os
import shutil
import subprocess
import sys

import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionInpaintPipeline,
                       StableDiffusionPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from diffusers.loaders import single_file_utils as sf
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
KIWAME, ROOT = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "convert-check"
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 7
WIDER = 1 if SEED == 7 else 2 + SEED % 2
FIRST, SECOND = (64, 48) if SEED == 7 else (64 + 16 * (SEED % 5), 48 + 16 * (SEED % 3 + 1))      # the text encoders' widths
XL = ("sdxl", "sdxl-v", "sdxl-inpaint", "ssd", "vega")


def wide(*channels):
    return tuple(WIDER * c for c in channels)


def text(width, layers, act, kind=CLIPTextModel, projection=None, vocabulary=1000):
    c = CLIPTextConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                       num_attention_heads=width // 16, max_position_embeddings=77, hidden_act=act,
                       projection_dim=projection or width, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1)
    return kind(c)


def unet(family):
    c = dict(block_out_channels=wide(32, 64, 64), layers_per_block=2, cross_attention_dim=FIRST, attention_head_dim=8,
             norm_num_groups=8, sample_size=16,
             down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
             up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))
    if family.endswith("inpaint"):
        c["in_channels"] = 9
    if family.startswith("sd21"):
        c.update(use_linear_projection=True, attention_head_dim=(4, 8, 8))
    if family == "five":
        c.update(block_out_channels=wide(32, 32, 64, 64, 64), layers_per_block=1, up_block_types=(
            "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            down_block_types=("CrossAttnDownBlock2D",) * 4 + ("DownBlock2D",))
    if family.startswith("bk"):
        c.update(layers_per_block=1)
        if family != "bk-base":
            c.update(mid_block_type=None)
        if family == "bk-tiny":
            c.update(down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3)
    if family in XL:
        c.update(down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                 up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=FIRST + SECOND,
                 transformer_layers_per_block=(1, 2, 3), use_linear_projection=True, attention_head_dim=(2, 4, 8),
                 addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=SECOND + 48)
    if family == "ssd":                   # SSD-1B: another number of blocks in each attention going up, one resnet in the middle
        c.update(mid_block_type="UNetMidBlock2D", transformer_layers_per_block=[1, [2, 2], [3, 3]],
                 reverse_transformer_layers_per_block=[[3, 3, 4], [2, 1, 1], 1])
    if family == "vega":
        c.update(mid_block_type="UNetMidBlock2D", transformer_layers_per_block=[1, 1, 2])
    return UNet2DConditionModel(**c)


def pipeline(family):
    from transformers import PreTrainedTokenizerBase  # noqa: F401
    torch.manual_seed(SEED)
    vae = AutoencoderKL(block_out_channels=wide(16, 32, 32), down_block_types=("DownEncoderBlock2D",) * 3, layers_per_block=2,
                        up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=8, latent_channels=4, sample_size=64)
    tok = os.path.join(ROOT, "tokenizer")
    if not os.path.isdir(tok):
        from tiny_tokenizer import write
        write(tok)
    tokenizer = CLIPTokenizer.from_pretrained(tok)
    n = len(tokenizer)
    if family in XL:
        kind = StableDiffusionXLInpaintPipeline if family == "sdxl-inpaint" else StableDiffusionXLPipeline
        v = dict(prediction_type="v_prediction", rescale_betas_zero_snr=True) if family == "sdxl-v" else {}
        return kind(
            vae=vae, unet=unet(family), text_encoder=text(FIRST, 3, "quick_gelu", vocabulary=n), tokenizer=tokenizer,
            text_encoder_2=text(SECOND, 3, "gelu", CLIPTextModelWithProjection, SECOND, n), tokenizer_2=tokenizer,
            scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                             steps_offset=1, timestep_spacing="leading", **v))
    te = text(FIRST, 23, "gelu", vocabulary=n) if family.startswith("sd21") else text(FIRST, 3, "quick_gelu", vocabulary=n)
    kind = StableDiffusionInpaintPipeline if family.endswith("inpaint") else StableDiffusionPipeline
    return kind(vae=vae, unet=unet(family), text_encoder=te, tokenizer=tokenizer, safety_checker=None,
                feature_extractor=None, requires_safety_checker=False,
                scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
                                        prediction_type="v_prediction" if family == "sd21" else "epsilon"))


def run(*args):
    r = subprocess.run([KIWAME, "convert", *args, "--overwrite", "--json"], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model",
         "text_encoder_2": "model"}


def tensors(folder, part):
    path = f"{folder}/{part}/{PARTS[part]}.safetensors"
    d = load_file(path) if os.path.exists(path) else {}
    return {("text_model." + k if part.startswith("text") and not k.startswith(("text_model.", "text_projection")) else k): t
            for k, t in d.items()}


def same(a, b, what):
    assert a.keys() == b.keys(), f"{what}: {sorted(a.keys() ^ b.keys())[:4]}"
    for k in a:
        assert a[k].dtype == b[k].dtype and a[k].shape == b[k].shape, f"{what}: {k} {a[k].shape} {b[k].shape}"
        assert torch.equal(a[k].reshape(-1).view(torch.uint8), b[k].reshape(-1).view(torch.uint8)), f"{what}: {k}"
    return len(a)


class Wide:
    def __init__(self, width):
        self.config = type("config", (), {"hidden_size": width})


def by_diffusers(ldm, config, family, folder):
    """What diffusers' converters read from our single file."""
    got = {"unet": sf.convert_ldm_unet_checkpoint(dict(ldm), config["unet"]),
           "vae": sf.convert_ldm_vae_checkpoint(dict(ldm), config["vae"])}
    if family in XL:
        got["text_encoder"] = sf.convert_ldm_clip_checkpoint(dict(ldm))
        got["text_encoder_2"] = sf.convert_open_clip_checkpoint(Wide(SECOND), dict(ldm), "conditioner.embedders.1.model.")
    elif family.startswith("sd21"):
        got["text_encoder"] = sf.convert_open_clip_checkpoint(Wide(FIRST), dict(ldm), "cond_stage_model.model.")
    else:
        got["text_encoder"] = sf.convert_ldm_clip_checkpoint(dict(ldm))
    return got


def bare(d):
    return {k: t for k, t in d.items() if "position_ids" not in k}


def family_check(family):
    src, one, back = (f"{ROOT}/{family}", f"{ROOT}/{family}.safetensors", f"{ROOT}/{family}-back")
    shutil.rmtree(src, ignore_errors=True)
    p = pipeline(family)
    p.save_pretrained(src)
    run(src, one)
    left = run(one, back)["left"]
    assert not left, left
    ldm = load_file(one)
    config = {k: json.load(open(f"{src}/{k}/config.json")) for k in ("unet", "vae")}
    got = by_diffusers(ldm, config, family, src)
    n = 0
    for part in PARTS:
        want = tensors(src, part)
        n += same(want, tensors(back, part), f"{family} {part} back")
        if want:
            same(bare(want), bare(dict(got[part])), f"{family} {part} by diffusers")
    files = sorted(os.path.relpath(os.path.join(d, f), src) for d, _, fs in os.walk(src) for f in fs)
    equal = [f for f in files if os.path.exists(f"{back}/{f}") and open(f"{src}/{f}", "rb").read() == open(f"{back}/{f}", "rb").read()]
    kind = type(p)
    loaded = kind.from_pretrained(back, **({} if family in XL else {"safety_checker": None}))
    for part in PARTS:
        if hasattr(loaded, part):
            a, b = getattr(loaded, part).state_dict(), getattr(p, part).state_dict()
            same(bare(b), bare(a), f"{family} {part} loaded")
    print(f"{family}: {n} tensors there and back, by diffusers' converters too; {len(equal)} of {len(files)} files "
          f"byte for byte (others: {[f for f in files if f not in equal]})")
    assert ("v_pred" in ldm) == ("ztsnr" in ldm) == (family == "sdxl-v"), "markers"
    if not family.startswith("sd21"):      # whose text encoder diffusers takes from its own copy of the published one
        q = kind.from_single_file(one, config=src, **({} if family in XL else {"safety_checker": None}))
        for part in PARTS:
            if hasattr(q, part):
                a, b = getattr(q, part).state_dict(), getattr(p, part).state_dict()
                same(bare(b), bare(a), f"{family} {part} from_single_file")
        print(f"{family}: from_single_file gives the same")
    return p


def containers(p):
    """The same model as .bin, .ckpt, shards and fp16 variant."""
    src = f"{ROOT}/sd15"
    for name, kw in (("bin", dict(safe_serialization=False)), ("shards", dict(max_shard_size="200KB")),
                     ("variant", dict(variant="fp16"))):
        d = f"{ROOT}/sd15-{name}"
        shutil.rmtree(d, ignore_errors=True)
        if name == "bin":                 # transformers 5 writes no pickles any more
            shutil.copytree(src, d)
            for part, stem in PARTS.items():
                f = f"{d}/{part}/{stem}.safetensors"
                if os.path.exists(f):
                    torch.save(load_file(f), f"{d}/{part}/{'pytorch_model' if stem == 'model' else stem}.bin")
                    os.remove(f)
        else:
            p.save_pretrained(d, **kw)
        run(d, f"{d}-out")
        for part in PARTS:
            same(tensors(src, part), tensors(f"{d}-out", part), f"{name} {part}")
        left = [f for _, _, fs in os.walk(f"{d}-out") for f in fs if "index" in f and "model_index" not in f or "fp16" in f]
        assert not left, left
        print(f"{name}: {sorted(f for _, _, fs in os.walk(d + '/unet') for f in fs)[:3]} read")
    ldm = load_file(f"{ROOT}/sd15.safetensors")
    torch.save({"state_dict": ldm, "global_step": 3}, f"{ROOT}/sd15.ckpt")
    torch.save(ldm, f"{ROOT}/sd15.pt", _use_new_zipfile_serialization=False)
    for end in ("ckpt", "pt"):
        run(f"{ROOT}/sd15.{end}", f"{ROOT}/sd15-{end}.safetensors")
        same(ldm, load_file(f"{ROOT}/sd15-{end}.safetensors"), end)
    print("ckpt, legacy pt -> safetensors: the same")


def types():
    one = f"{ROOT}/sd15.safetensors"
    ldm = load_file(one)
    for name, kind in (("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)):
        run(one, f"{ROOT}/sd15-{name}.safetensors", "--dtype", name)
        same({k: t.to(kind) if t.is_floating_point() else t for k, t in ldm.items()},
             load_file(f"{ROOT}/sd15-{name}.safetensors"), name)
    run(one, f"{ROOT}/sd15-fp8.safetensors", "--dtype", "fp8")
    want = {k: t if not t.is_floating_point() else
            t.to(torch.float8_e4m3fn) if t.dim() >= 2 and not k.startswith("first_stage") else t.half() for k, t in ldm.items()}
    same(want, load_file(f"{ROOT}/sd15-fp8.safetensors"), "fp8")
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):         # and as sources
        save_file({k: t.to(kind) if t.is_floating_point() else t for k, t in ldm.items()}, f"{ROOT}/x.safetensors")
        run(f"{ROOT}/x.safetensors", f"{ROOT}/y.safetensors", "--dtype", "f16")
        same({k: t.to(kind).half() if t.is_floating_point() else t for k, t in ldm.items()}, load_file(f"{ROOT}/y.safetensors"),
             str(kind))
    x = torch.cat([torch.randn(1 << 20) * 10.0 ** torch.randint(-6, 3, (1 << 20,)),
                   torch.arange(1 << 16).to(torch.int32).to(torch.uint16).view(torch.bfloat16).float()])
    x = x[x.abs() <= 464]
    save_file({"lora_unet_x.weight": x.reshape(1, -1)}, f"{ROOT}/x.safetensors")
    run(f"{ROOT}/x.safetensors", f"{ROOT}/y.safetensors", "--dtype", "f16")
    same({"lora_unet_x.weight": x.half().reshape(1, -1)}, load_file(f"{ROOT}/y.safetensors"), "every bf16")
    print(f"f16, bf16, f32, fp8, and both fp8 kinds as sources: torch's own numbers")


def main():
    os.makedirs(ROOT, exist_ok=True)
    p = {f: family_check(f) for f in ("sd15", "sd21", "inpaint", "sd21-inpaint", "five", "bk-base", "bk-small", "bk-tiny", *XL)}
    containers(p["sd15"])
    types()


main()
