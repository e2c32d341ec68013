"""The metadata and hashes that sd-scripts would put into a LoRA file, re-implemented from its documented recipe.

    lora_metadata.py make          writes tests/golden/train/metadata.json for tests/unit/train/test_metadata.c
    lora_metadata.py check FILE    recomputes the hashes of a LoRA file with the safetensors package and compares

Independent of the C code: values go through Python's own str() and json.dumps(), files through safetensors' writer.
Needs the PyPI packages safetensors (0.8.0) and numpy.
"""
import hashlib
import json
import pathlib
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/train"
CAPTIONS = {
    "10_kiwa": ["kiwa-chan, Smile, 絵 , blue  sky", "kiwa-chan,smile,,\u3000🙂\u3000", "ÄRGER, kiwa-chan, \"quoted\\\""],
    "5_bg": ["sky", "\tSky\t,  ", "Σοφία"],
}


def tensors(small):
    """Four modules with values that a formula gives, in C too: float32((i * 37 % 1001 - 500) / 512)."""
    out = {}
    for k in range(1 if small else 4):
        for name, shape in [("lora_down", (16, 64 if small else 5000)), ("lora_up", (64 if small else 320, 16))]:
            n = shape[0] * shape[1]
            whole = (np.arange(n, dtype=np.int64) * 37 + k) % 1001 - 500
            out[f"lora_unet_m{k}.{name}.weight"] = (whole.astype(np.float32) / np.float32(512)).reshape(shape)
        out[f"lora_unet_m{k}.alpha"] = np.array(8.0, dtype=np.float32)
    return out


def tag_frequency():
    """train_util.set_tag_frequency: split at commas, strip, lower."""
    all_tags = {}
    for folder, captions in CAPTIONS.items():
        tags = all_tags.setdefault(folder, {})
        for caption in captions:
            for tag in caption.split(","):
                tag = tag.strip()
                if tag:
                    tags[tag.lower()] = tags.get(tag.lower(), 0) + 1
    return all_tags


def metadata():
    """The dictionary of train_network.py, with Python's types."""
    optimizer = {"weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}
    folders = {"10_kiwa": {"n_repeats": 10, "img_count": 20}, "5_bg": {"n_repeats": 5, "img_count": 3}}
    buckets = {"0": {"resolution": (448, 576), "count": 11}, "1": {"resolution": (512, 512), "count": 204}}
    m = {
        "ss_session_id": 4123456789, "ss_training_started_at": 1767225600.25, "ss_training_finished_at": 1767229200.0,
        "ss_output_name": "kiwa", "ss_learning_rate": 1e-4, "ss_text_encoder_lr": 5e-5, "ss_unet_lr": 1e-4,
        "ss_num_train_images": 215, "ss_num_validation_images": 3, "ss_num_reg_images": 0,
        "ss_num_batches_per_epoch": 108, "ss_num_epochs": 4, "ss_epoch": 2, "ss_steps": 216,
        "ss_gradient_checkpointing": True, "ss_gradient_accumulation_steps": 1, "ss_max_train_steps": 432,
        "ss_lr_warmup_steps": 20, "ss_lr_scheduler": "constant_with_warmup",
        "ss_network_module": "networks.lora", "ss_network_dim": 16, "ss_network_alpha": 8.0,
        "ss_network_args": json.dumps({"conv_dim": "4", "conv_alpha": "0.5"}),
        "ss_v2": False, "ss_base_model_version": "sd_v1",
        "ss_network_dropout": None, "ss_mixed_precision": "bf16", "ss_full_fp16": False, "ss_clip_skip": 2,
        "ss_max_token_length": 225, "ss_cache_latents": True, "ss_seed": 18446744073709551615, "ss_lowram": False,
        "ss_noise_offset": 0.0357, "ss_zero_terminal_snr": False, "ss_training_comment": None,
        "ss_optimizer": "kiwame.AdamW(" + ",".join(f"{k}={v}" for k, v in optimizer.items()) + ")",
        "ss_max_grad_norm": 1.0, "ss_caption_dropout_rate": 0.0, "ss_min_snr_gamma": 5.0, "ss_loss_type": "l2",
        "ss_validation_split": 0.1,
        "ss_batch_size_per_device": 2, "ss_total_batch_size": 2, "ss_resolution": (512, 768), "ss_color_aug": False,
        "ss_flip_aug": True, "ss_random_crop": False, "ss_shuffle_caption": True, "ss_enable_bucket": True,
        "ss_bucket_no_upscale": False, "ss_min_bucket_reso": 256, "ss_max_bucket_reso": 1024, "ss_keep_tokens": 1,
        "ss_dataset_dirs": json.dumps(folders),
        "ss_reg_dataset_dirs": json.dumps({}), "ss_tag_frequency": json.dumps(tag_frequency()),
        "ss_bucket_info": json.dumps({"buckets": buckets, "mean_img_ar_error": 0.0123}),
        "ss_sd_model_name": "anime.safetensors", "ss_sd_model_hash": "0123abcd", "ss_new_sd_model_hash": "ab" * 32,
    }
    return {k: str(v) for k, v in m.items()}


MODELSPEC = {
    "modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.implementation": "diffusers", "modelspec.title": "きわちゃん", "modelspec.resolution": "512x768",
    "modelspec.date": "2026-01-01T01:00:00Z", "modelspec.prediction_type": "epsilon",
    "modelspec.trigger_phrase": "kiwa-chan", "modelspec.encoder_layer": "2", "modelspec.author": "A. Author",
    "modelspec.usage_hint": 'Put "kiwa-chan" into the prompt and load the LoRA: <lora:kiwa:1> kiwa-chan',
}


def hashes(t, m):
    """train_util.precalculate_safetensors_hashes: the ss_* keys alone, then addnet's two hashes."""
    image = save(t, {k: v for k, v in m.items() if k.startswith("ss_")} or None)
    n = int.from_bytes(image[:8], "little")
    return hashlib.sha256(image[8 + n:]).hexdigest(), hashlib.sha256(image[0x100000:0x110000]).hexdigest()[:8]


def make():
    GOLDEN.mkdir(parents=True, exist_ok=True)
    m = metadata()
    large, small = hashes(tensors(False), m), hashes(tensors(True), m)
    text = json.dumps({"metadata": m | MODELSPEC, "large": large, "small": small}, indent=1, ensure_ascii=False)
    (GOLDEN / "metadata.json").write_text(text + "\n", encoding="utf-8")


def check(path):
    with safe_open(path, "numpy") as f:
        m, t = f.metadata() or {}, {k: f.get_tensor(k) for k in f.keys()}
    model, legacy = hashes(t, m)
    seen = m.get("sshs_model_hash"), m.get("sshs_legacy_hash"), m.get("modelspec.hash_sha256")
    want = model, None if legacy == "e3b0c442" else legacy, "0x" + model
    print(f"{path}: {len(t)} tensors, {len(m)} keys; sshs_model_hash {seen[0]}, sshs_legacy_hash {seen[1]}: "
          + ("right" if seen == want else f"WRONG, want {want}"))
    for k in ["ss_dataset_dirs", "ss_tag_frequency", "ss_bucket_info"]:
        if k in m:
            print(" ", k, json.loads(m[k]))
    return seen != want


if __name__ == "__main__":
    sys.exit(make() if sys.argv[1:] == ["make"] else check(sys.argv[2]) if sys.argv[1:2] == ["check"] else __doc__)
