"""Heron as its paper would describe it: plain float32 torch, one sequence, no cache. And a tiny checkpoint of it."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

CONFIG = {
    "architectures": ["HeronForCausalLM"],
    "model_type": "heron",
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "head_dim": 12,
    "norm_eps": 1e-4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "max_position_embeddings": 640,
    "dtype": "float32",
}


def save_heron(folder):
    """Random weights under Heron's own names, scaled so that the state, attention and logits are far from uniform."""
    from tests.engine.tokenizers_for_tests import byte_level

    c = CONFIG
    make = torch.Generator().manual_seed(11)
    size, inner, wide = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"] * c["head_dim"]

    def matrix(rows, columns, gain=1.6):
        return torch.randn(rows, columns, generator=make) * gain * columns**-0.5

    tensors = {
        "heron.embed.weight": matrix(c["vocab_size"], size) * 5,
        "heron.head.weight": matrix(c["vocab_size"], size),
    }
    for i in range(c["num_hidden_layers"]):
        at = f"heron.layers.{i}"
        tensors |= {f"{at}.mix.{x}.weight": matrix(wide, size) for x in "qkv"}
        if i % 2 == 0:  # most memories last, so that a token far behind still counts
            tensors[f"{at}.mix.decay.weight"] = matrix(c["num_attention_heads"], size, gain=1.0)
            tensors[f"{at}.mix.decay.bias"] = 3.5 + torch.randn(c["num_attention_heads"], generator=make)
        tensors[f"{at}.mix.o.weight"] = matrix(size, wide)
        tensors |= {f"{at}.mlp.{x}.weight": matrix(inner, size) for x in ("gate", "up")}
        tensors[f"{at}.mlp.down.weight"] = matrix(size, inner)
        tensors |= {f"{at}.norm_{n}.weight": 1 + 0.3 * torch.randn(size, generator=make) for n in (1, 2)}
    tensors["heron.norm.weight"] = 1 + 0.3 * torch.randn(size, generator=make)
    save_file(tensors, folder / "model.safetensors")
    folder.joinpath("config.json").write_text(json.dumps(c))
    byte_level().hf.save_pretrained(folder)
    return folder


class Heron:
    """``Heron(folder)(ids)`` -> logits float32 [T, vocab]. ``forgets``: the state keeps nothing, for comparison."""

    def __init__(self, folder, forgets=False):
        self.c = json.loads(folder.joinpath("config.json").read_text())
        self.w = load_file(folder / "model.safetensors")
        self.forgets = forgets

    def __call__(self, ids):
        x = self.w["heron.embed.weight"][torch.tensor(ids)]
        for i in range(self.c["num_hidden_layers"]):
            at = f"heron.layers.{i}"
            mix = self.attention if i % 2 else self.linear_attention
            x = x + mix(self.norm(x, f"{at}.norm_1"), f"{at}.mix")
            h = self.norm(x, f"{at}.norm_2")
            gate, up = (h @ self.w[f"{at}.mlp.{name}.weight"].T for name in ("gate", "up"))
            x = x + (F.silu(gate) * up) @ self.w[f"{at}.mlp.down.weight"].T
        return self.norm(x, "heron.norm") @ self.w["heron.head.weight"].T

    def greedy(self, ids, count):
        """The next ``count`` ids, and the smallest distance between the best and the second logit on the way."""
        ids, margin = list(ids), float("inf")
        for _ in range(count):
            best = self(ids)[-1].topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            ids.append(int(best.indices[0]))
        return ids[-count:], margin

    def norm(self, x, name):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.c["norm_eps"]) * self.w[f"{name}.weight"]

    def heads(self, x, at):
        """q, k, v [heads, T, dim]"""
        dim = self.c["head_dim"]
        return ((x @ self.w[f"{at}.{name}.weight"].T).view(len(x), -1, dim).transpose(0, 1) for name in "qkv")

    def linear_attention(self, x, at):
        """Every earlier token counts as often as the decays between the two let it: no state, one big matrix."""
        q, k, v = self.heads(x, at)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        decay = torch.sigmoid(x @ self.w[f"{at}.decay.weight"].T + self.w[f"{at}.decay.bias"]).T  # [heads, T]
        passed = decay.double().log().cumsum(-1)
        kept = (passed[:, :, None] - passed[:, None]).exp().float().tril()  # [heads, T, T]
        weights = q @ k.transpose(1, 2) * (torch.eye(len(x)) if self.forgets else kept)
        out = weights @ v / weights.sum(-1, keepdim=True)
        return out.transpose(0, 1).flatten(1) @ self.w[f"{at}.o.weight"].T

    def attention(self, x, at):
        q, k, v = self.heads(x, at)
        q, k = self.rotated(q), self.rotated(k)
        scores = q @ k.transpose(1, 2) * self.c["head_dim"] ** -0.5
        seen = torch.ones(len(x), len(x)).tril().bool()
        out = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
        return out.transpose(0, 1).flatten(1) @ self.w[f"{at}.o.weight"].T

    def rotated(self, x):
        """Pairs (j, j + dim / 2) turned by their position."""
        dim = x.shape[-1]
        angle = torch.arange(x.shape[1])[:, None] * 500.0 ** (-torch.arange(0, dim, 2) / dim)
        a, b = x.chunk(2, -1)
        return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)
