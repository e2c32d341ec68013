#!/usr/bin/env python3
"""prompt_pictures.py - latents for prompts that change, prompts of several parts, ComfyUI's weights, textual inversion,
hypernetworks.

  prompt_pictures.py tests/golden/pipeline      writes prompts.safetensors, and files in embeddings/ and hypernets/

The U-Net, the text encoder and the scheduler are diffusers' and transformers'; what a text is at each run of the U-Net is
written out by hand from A1111's rule (stage "until 3": runs 0 to 3), and vectors are put into the encoder's embedding of tokens.
"""
import base64
import json
import os
import sys

import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

import generate
import reference

STEPS, CFG = 6, 4.0
NEGATIVE = "dark water"
LONG = "a red cat, a blue house, " * 12

# name -> pictures; a picture: [(weight, [(until, text)...])...], negative stages. One list of stages is encoded together.
ONE = [(STEPS, NEGATIVE)]
TURN = ["on", "on", "in", "on", "in", "on"]
CASES = {
    "edit": [([(1.0, [(i + (i == 0), f"a {'red' if i <= 3 else 'blue'} cat {TURN[i]} house") for i in range(STEPS)])],
              [(2, "dark water"), (STEPS, "light water")])],
    "weights": [([(1.0, [(3, "a (red:1.5) cat"), (STEPS, "a (red:1.5) (dog:0.6)")])], ONE)],
    "and": [([(1.0, [(STEPS, "a red cat ")]), (0.6, [(STEPS, " a blue house")]), (-0.3, [(3, " water"), (STEPS, " dark")])], ONE),
            ([(1.0, [(2, "a cat"), (STEPS, "a blue cat")])], ONE)],
    "long": [([(1.0, [(STEPS, LONG)]), (1.0, [(STEPS, " water")])], ONE)],
    "no-norm": [([(1.0, [(STEPS, "a (red:1.5) cat")])], ONE)],
    "comfy": [([(1.0, [(STEPS, [("a red", 1.3), (" cat ", 1.0), ("on a", 1.1 * 0.7), (" house", 0.7)])])], ONE)],
    "inversion": [([(1.0, [(STEPS, "a (@A:1.3) cat on @B house")])], ONE)],
}
# for the program (tests/unit/diffusion/test_words.c):
#   edit       a [red:blue:0.5] cat [on|in] house     negative [dark:light:2] water
#   weights    a (red:1.5) [cat:(dog:0.6):0.5]
#   and        a red cat AND a blue house :0.6 AND [water:dark:3]:-0.3        a [blue :2]cat: not before run 3
#   comfy      (a red:1.3) cat ((on a) house:0.7)
#   inversion  a (kiwa:1.3) cat on two words house


def hidden(pipe, ids, vectors):
    """The encoder over ids with vectors {position: tensor} in the place of rows of its table."""
    encoder, table = pipe.text_encoder, pipe.text_encoder.get_input_embeddings()

    def put(module, args, out):
        out = out.clone()
        for i, v in vectors.items():
            out[0, i] = v
        return out

    hook = table.register_forward_hook(put)
    z = encoder(torch.tensor([ids])).last_hidden_state
    hook.remove()
    return z


def pieces(pipe, prompt, embeddings):
    """[(ids, weights, vectors)] of each window; @A in a text is an embedding."""
    tok, where = pipe.tokenizer, {}
    if not embeddings:
        return [(i, w, {}) for i, w in generate.windows(tok, prompt)]
    ids, weights = [], []
    for text, w in generate.weighted(prompt):
        for word in text.split():
            if word[0] == "@":
                for v in embeddings[word[1:]]:
                    where[len(ids) + 1] = v
                    ids.append(0)
            else:
                ids += tok(word, add_special_tokens=False).input_ids
            weights += [w] * (len(ids) - len(weights))
    fill = 75 - len(ids)
    return [([tok.bos_token_id] + ids + [tok.eos_token_id] + [tok.pad_token_id] * fill, [1.0] + weights + [1.0] * (1 + fill), where)]


def encode(pipe, stages, mode, embeddings):
    """One tensor per stage; A1111 keeps the mean of a window over all stages together."""
    if mode == "comfy":
        tok, out = pipe.tokenizer, []
        for _, segments in stages:
            if isinstance(segments, str):
                segments = [(segments, 1.0)]
            ids, weights = [tok.bos_token_id], [1.0]
            for text, w in segments:
                new = tok(text, add_special_tokens=False).input_ids
                ids, weights = ids + new, weights + [w] * len(new)
            ids += [tok.eos_token_id] + [tok.pad_token_id] * (76 - len(ids))
            weights += [1.0] * (77 - len(weights))
            empty = hidden(pipe, [tok.bos_token_id, tok.eos_token_id] + [tok.pad_token_id] * 75, {})
            out.append(empty + (hidden(pipe, ids, {}) - empty) * torch.tensor(weights)[None, :, None])
        return out
    cut = [pieces(pipe, text, embeddings) for _, text in stages]
    parts = [[] for _ in stages]
    for k in range(max(map(len, cut))):
        z = torch.cat([hidden(pipe, c[k][0], c[k][2]) for c in cut])
        w = z * torch.tensor([c[k][1] for c in cut])[:, :, None]
        z = w if mode == "no-norm" else w * (z.mean() / w.mean())
        for i in range(len(stages)):
            parts[i].append(z[i:i + 1])
    return [torch.cat(p, 1) for p in parts]


def at(stages, contexts, run):
    for (until, _), c in zip(stages, contexts):
        if run <= until:
            return c
    return contexts[0]


def draw(pipe, pictures, noise, mode, embeddings):
    from diffusers import EulerDiscreteScheduler
    s = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    s.set_timesteps(STEPS)
    x = noise * s.init_noise_sigma
    texts = [([(w, st, encode(pipe, st, mode, embeddings)) for w, st in parts], (neg, encode(pipe, neg, mode, embeddings)))
             for parts, neg in pictures]
    longest = max(c.shape[1] for parts, _ in texts for _, _, cs in parts for c in cs)
    for run, t in enumerate(s.timesteps):
        z = s.scale_model_input(x, t)
        eps = torch.empty_like(x)
        for i, (parts, (neg, neg_c)) in enumerate(texts):
            u = pipe.unet(z[i:i + 1], t, at(neg, neg_c, run)).sample
            e = u.clone()
            for w, st, cs in parts:
                c = at(st, cs, run)
                c = torch.cat([c, c[:, -1:].repeat(1, longest - c.shape[1], 1)], 1)
                e += CFG * w * (pipe.unet(z[i:i + 1], t, c).sample - u)
            eps[i] = e[0]
        x = s.step(eps, t, x).prev_sample
    return x


def write_embeddings(out, width):
    """kiwa: three vectors, as .pt of A1111, safetensors, PNG; "two words": one vector, a diffusers file."""
    g = torch.Generator().manual_seed(5)
    a, b = torch.randn(3, width, generator=g), torch.randn(width, generator=g)
    os.makedirs(out, exist_ok=True)
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": a}, "name": "kiwa", "step": 1, "sd_checkpoint": None,
                "sd_checkpoint_name": None}, os.path.join(out, "kiwa.pt"))
    save_file({"emb_params": a}, os.path.join(out, "kiwa-safe.safetensors"))
    save_file({"two words": b}, os.path.join(out, "learned_embeds.safetensors"))
    save_file({"clip_l": a, "clip_g": torch.randn(3, 20, generator=g)}, os.path.join(out, "xl.safetensors"))
    save_file({"emb_params": torch.randn(2, 1024, generator=g)}, os.path.join(out, "sd2.safetensors"))
    save_file({"bundle_emb.kiwa.string_to_param.*": a, "bundle_emb.b.emb_params": b[None]}, os.path.join(out, "bundle.safetensors"))
    info = PngImagePlugin.PngInfo()
    text = json.dumps({"string_to_param": {"*": {"TORCHTENSOR": a.tolist()}}, "name": "kiwa"})
    info.add_text("sd-ti-embedding", base64.b64encode(text.encode()).decode())
    Image.new("RGB", (4, 4), (200, 30, 30)).save(os.path.join(out, "kiwa-png.png"), pnginfo=info)
    return {"A": a, "B": b[None]}


def write_hypernets(out, widths):
    """Two hypernetworks as A1111 writes them, and what they do: {width: [(net of k, net of v), ...]} with their strengths."""
    nn, g = torch.nn, torch.Generator().manual_seed(9)

    def make(width, old):
        mid = 2 * width
        if old:
            layers = [nn.Linear(width, mid), nn.Linear(mid, width)]
        else:
            layers = [nn.Linear(width, mid), nn.ReLU(), nn.LayerNorm(mid), nn.Linear(mid, width), nn.ReLU(), nn.LayerNorm(width)]
        net = nn.Sequential(*layers)
        for q in net.parameters():
            q.data = torch.randn(q.shape, generator=g) * 0.3
        return net

    os.makedirs(out, exist_ok=True)
    nets = {}
    for name, strength, old in (("new", 0.7, False), ("old", 0.4, True)):
        data = {}
        for w in widths:
            pair = (make(w, old), make(w, old))
            nets.setdefault(w, []).append((strength, pair))
            data[w] = tuple({("linear." + k if not old else f"linear{int(k[0]) + 1}" + k[1:]): v.clone() for k, v in n.state_dict().items()}
                            for n in pair)
        data.update({"step": 1, "name": name})
        if not old:
            data.update({"layer_structure": [1, 2, 1], "activation_func": "relu", "is_layer_norm": True, "activate_output": True,
                         "last_layer_dropout": False, "dropout_structure": None, "sd_checkpoint": None, "sd_checkpoint_name": None})
        torch.save(data, os.path.join(out, name + ".pt"))
    return nets


def hook_hypernets(unet, nets):
    def hook(which):
        def before(module, args):
            x = args[0]
            for strength, pair in nets.get(x.shape[-1], []):
                x = x + strength * pair[which](x)
            return (x,)
        return before

    return [m.register_forward_pre_hook(hook(int(n.endswith("to_v")))) for n, m in unet.named_modules()
            if n.endswith(("attn1.to_k", "attn1.to_v", "attn2.to_k", "attn2.to_v"))]


def curves():
    """torch.nn's activations in the order of KW_CURVE_MAP (src/ops/ops.h), at -6, -5.5 ... 6."""
    nn, x = torch.nn, torch.arange(-12, 13) / 2
    kinds = [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Tanh,
             nn.Sigmoid, nn.SiLU, nn.GELU, nn.Mish, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.LogSigmoid, nn.Hardshrink, nn.Softshrink]
    return torch.stack([k()(x) for k in kinds])


def main():
    reference.quiet()
    folder = sys.argv[1]
    pipe = generate.pipeline(os.path.join(folder, "base"))
    embeddings, out = write_embeddings(os.path.join(folder, "embeddings"), pipe.text_encoder.config.hidden_size), {}
    side = pipe.unet.config.sample_size
    with torch.no_grad():
        for i, (name, pictures) in enumerate(CASES.items()):
            noise = torch.randn(len(pictures), 4, side, side, generator=torch.Generator().manual_seed(50 + i))
            mode = name if name in ("comfy", "no-norm") else "original"
            out[name + ".noise"] = noise
            out[name + ".latents"] = draw(pipe, pictures, noise, mode, embeddings if name == "inversion" else None)
        hooks = hook_hypernets(pipe.unet, write_hypernets(os.path.join(folder, "hypernets"), (8, 16)))
        out["hypernet.noise"] = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(70))
        out["hypernet.latents"] = draw(pipe, [([(1.0, [(STEPS, "a red cat")])], ONE)], out["hypernet.noise"], "original", None)
        for h in hooks:
            h.remove()
        out["curves"] = curves()
        ids = pipe.tokenizer("a cat", add_special_tokens=False).input_ids
        out["encoder"] = hidden(pipe, [pipe.tokenizer.bos_token_id, 0, 0, 0, *ids, pipe.tokenizer.eos_token_id]
                                + [pipe.tokenizer.pad_token_id] * (77 - 5 - len(ids)), dict(zip((1, 2, 3), embeddings["A"])))
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(folder, "prompts.safetensors"))


if __name__ == "__main__":
    main()
