#!/usr/bin/env python3
"""init.py TREE OUT [--seed N] - a copy of a tree of configurations with random weights in it, ready to be trained.

TREE is a diffusers folder without weights (tools/base/shapes, tools/base/emoji-128). Weights are drawn as diffusers and
transformers draw them: convolutions and linear layers, with their biases, uniform within 1/sqrt(fan in) (PyTorch's
default, Kaiming with a = sqrt(5)), norms one and zero, CLIP's text encoder normal with its own deviations. Each tensor
has its own stream, seeded by part and name: the same seed gives the same bytes. Standard library only.
"""
import argparse
import array
import hashlib
import json
import math
import os
import shutil
import struct
import sys

from draw import Rng


class Part:
    """The tensors of a part: {name: (shape, ('constant' | 'uniform' | 'normal', value, bound or deviation))}"""

    def __init__(self):
        self.tensors = {}

    def add(self, name, shape, kind, value):
        self.tensors[name] = (shape, kind, value)

    def layer(self, name, fan_in, shape, bias=True):
        self.add(name + '.weight', shape, 'uniform', 1 / math.sqrt(fan_in))
        if bias:
            self.add(name + '.bias', shape[:1], 'uniform', 1 / math.sqrt(fan_in))

    def linear(self, name, n_in, n_out, bias=True):
        self.layer(name, n_in, [n_out, n_in], bias)

    def conv(self, name, n_in, n_out, k):
        self.layer(name, n_in * k * k, [n_out, n_in, k, k])

    def norm(self, name, n):
        self.add(name + '.weight', [n], 'constant', 1.0)
        self.add(name + '.bias', [n], 'constant', 0.0)

    def normal(self, name, n_in, n_out, deviation):
        self.add(name + '.weight', [n_out, n_in], 'normal', deviation)
        self.add(name + '.bias', [n_out], 'constant', 0.0)

    def resnet(self, name, n_in, n_out, time=0):
        self.norm(name + '.norm1', n_in)
        self.conv(name + '.conv1', n_in, n_out, 3)
        if time:
            self.linear(name + '.time_emb_proj', time, n_out)
        self.norm(name + '.norm2', n_out)
        self.conv(name + '.conv2', n_out, n_out, 3)
        if n_in != n_out:
            self.conv(name + '.conv_shortcut', n_in, n_out, 1)

    def attention(self, name, n, context, bias):
        self.linear(name + '.to_q', n, n, bias)
        self.linear(name + '.to_k', context, n, bias)
        self.linear(name + '.to_v', context, n, bias)
        self.linear(name + '.to_out.0', n, n)

    def transformer(self, name, n, context, linear_projection):
        self.norm(name + '.norm', n)
        for end in ('.proj_in', '.proj_out'):
            self.linear(name + end, n, n) if linear_projection else self.conv(name + end, n, n, 1)
        block = name + '.transformer_blocks.0'
        for norm in ('.norm1', '.norm2', '.norm3'):
            self.norm(block + norm, n)
        self.attention(block + '.attn1', n, n, bias=False)
        self.attention(block + '.attn2', n, context, bias=False)
        self.linear(block + '.ff.net.0.proj', n, 8 * n)
        self.linear(block + '.ff.net.2', 4 * n, n)


def unet(c):
    p, ch, layers = Part(), c['block_out_channels'], c['layers_per_block']
    context, time = c['cross_attention_dim'], 4 * ch[0]

    def transformer(name, n):
        p.transformer(name, n, context, c.get('use_linear_projection', False))

    p.conv('conv_in', c['in_channels'], ch[0], 3)
    p.linear('time_embedding.linear_1', ch[0], time)
    p.linear('time_embedding.linear_2', time, time)
    for i, kind in enumerate(c['down_block_types']):
        block = f'down_blocks.{i}'
        for j in range(layers):
            p.resnet(f'{block}.resnets.{j}', ch[max(i - 1, 0)] if j == 0 else ch[i], ch[i], time)
            if kind.startswith('CrossAttn'):
                transformer(f'{block}.attentions.{j}', ch[i])
        if i + 1 < len(ch):
            p.conv(f'{block}.downsamplers.0.conv', ch[i], ch[i], 3)
    p.resnet('mid_block.resnets.0', ch[-1], ch[-1], time)
    transformer('mid_block.attentions.0', ch[-1])
    p.resnet('mid_block.resnets.1', ch[-1], ch[-1], time)
    up = ch[::-1]
    for i, kind in enumerate(c['up_block_types']):
        block, before, skip_last = f'up_blocks.{i}', up[max(i - 1, 0)], up[min(i + 1, len(up) - 1)]
        for j in range(layers + 1):
            skip = skip_last if j == layers else up[i]
            p.resnet(f'{block}.resnets.{j}', (before if j == 0 else up[i]) + skip, up[i], time)
            if kind.startswith('CrossAttn'):
                transformer(f'{block}.attentions.{j}', up[i])
        if i + 1 < len(up):
            p.conv(f'{block}.upsamplers.0.conv', up[i], up[i], 3)
    p.norm('conv_norm_out', ch[0])
    p.conv('conv_out', ch[0], c['out_channels'], 3)
    return p


def vae(c):
    p, ch, layers, latent = Part(), c['block_out_channels'], c['layers_per_block'], c['latent_channels']

    def middle(side):
        n = ch[-1]
        p.resnet(f'{side}.mid_block.resnets.0', n, n)
        p.norm(f'{side}.mid_block.attentions.0.group_norm', n)
        p.attention(f'{side}.mid_block.attentions.0', n, n, bias=True)
        p.resnet(f'{side}.mid_block.resnets.1', n, n)

    def blocks(name, channels, first, n_resnets, resampler):
        before = first
        for i, n in enumerate(channels):
            for j in range(n_resnets):
                p.resnet(f'{name}.{i}.resnets.{j}', before, n)
                before = n
            if i + 1 < len(channels):
                p.conv(f'{name}.{i}.{resampler}.0.conv', n, n, 3)

    p.conv('encoder.conv_in', c['in_channels'], ch[0], 3)
    blocks('encoder.down_blocks', ch, ch[0], layers, 'downsamplers')
    middle('encoder')
    p.norm('encoder.conv_norm_out', ch[-1])
    p.conv('encoder.conv_out', ch[-1], 2 * latent, 3)
    p.conv('quant_conv', 2 * latent, 2 * latent, 1)
    p.conv('post_quant_conv', latent, latent, 1)
    p.conv('decoder.conv_in', latent, ch[-1], 3)
    middle('decoder')
    blocks('decoder.up_blocks', ch[::-1], ch[-1], layers + 1, 'upsamplers')
    p.norm('decoder.conv_norm_out', ch[0])
    p.conv('decoder.conv_out', ch[0], c['out_channels'], 3)
    return p


def text_encoder(c):
    p, d, layers = Part(), c['hidden_size'], c['num_hidden_layers']
    factor = c.get('initializer_factor', 1.0)
    into, out, fc = d ** -.5 * (2 * layers) ** -.5 * factor, d ** -.5 * factor, (2 * d) ** -.5 * factor
    p.add('text_model.embeddings.token_embedding.weight', [c['vocab_size'], d], 'normal', .02 * factor)
    p.add('text_model.embeddings.position_embedding.weight', [c['max_position_embeddings'], d], 'normal', .02 * factor)
    for i in range(layers):
        layer = f'text_model.encoder.layers.{i}'
        for name in 'qkv':
            p.normal(f'{layer}.self_attn.{name}_proj', d, d, into)
        p.normal(f'{layer}.self_attn.out_proj', d, d, out)
        p.norm(f'{layer}.layer_norm1', d)
        p.normal(f'{layer}.mlp.fc1', d, c['intermediate_size'], fc)
        p.normal(f'{layer}.mlp.fc2', c['intermediate_size'], d, into)
        p.norm(f'{layer}.layer_norm2', d)
    p.norm('text_model.final_layer_norm', d)
    return p


def draw(rng, count, kind, value):
    if kind == 'constant':
        return array.array('f', [value]) * count
    r = rng.random
    if kind == 'uniform':
        return array.array('f', [(2 * r() - 1) * value for _ in range(count)])
    tau, log, sqrt, cos = 2 * math.pi, math.log, math.sqrt, math.cos       # Box and Muller; 1 - r() is never 0
    return array.array('f', [value * sqrt(-2 * log(1 - r())) * cos(tau * r()) for _ in range(count)])


def write(path, part, name, seed):
    """safetensors: 8 bytes length of the header, header, float32 numbers in the order of names. -> (numbers, sha256)"""
    header, at = {'__metadata__': {'format': 'pt'}}, 0
    for key in sorted(part.tensors):
        size = 4 * math.prod(part.tensors[key][0])
        header[key] = {'dtype': 'F32', 'shape': part.tensors[key][0], 'data_offsets': [at, at + size]}
        at += size
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, 'wb') as f:
        for piece in (struct.pack('<Q', len(text)), text):
            f.write(piece)
            digest.update(piece)
        for key in sorted(part.tensors):
            shape, kind, value = part.tensors[key]
            numbers = draw(Rng(seed, name, key), math.prod(shape), kind, value)
            if sys.byteorder == 'big':
                numbers.byteswap()
            f.write(numbers.tobytes())
            digest.update(numbers.tobytes())
    return at // 4, digest.hexdigest()


PARTS = {
    'unet': (unet, 'diffusion_pytorch_model.safetensors'), 'vae': (vae, 'diffusion_pytorch_model.safetensors'),
    'text_encoder': (text_encoder, 'model.safetensors'),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tree')
    parser.add_argument('out')
    parser.add_argument('--seed', type=int, default=1)
    args = parser.parse_args()
    shutil.copytree(args.tree, args.out, dirs_exist_ok=True)
    for name, (make, file) in PARTS.items():
        with open(os.path.join(args.out, name, 'config.json'), encoding='utf-8') as f:
            part = make(json.load(f))
        count, digest = write(os.path.join(args.out, name, file), part, name, args.seed)
        print(f'{count:10d}  {name:13s} {digest}')


if __name__ == '__main__':
    main()
