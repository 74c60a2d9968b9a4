"""Owl as its paper would describe it: plain float32 torch, one sequence, no cache. And a tiny checkpoint of it."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import layer_norm, linear

CONFIG = {
    "architectures": ["OwlForCausalLM"],
    "model_type": "owl",
    "vocab_size": 400,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 9,
    "norm_eps": 1e-4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    "max_position_embeddings": 256,
    "dtype": "float32",
}


def save_owl(folder, layers=1.0):
    """Random weights under Owl's own names, scaled so that attention and logits are far from uniform.

    ``layers`` scales what layers add. Near 0 the next token follows from the last one alone, so
    greedy text soon repeats itself.
    """
    from tests.engine.tokenizers_for_tests import byte_level

    c = CONFIG
    make = torch.Generator().manual_seed(7)
    size, inner, head = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
    kv = head * c["num_key_value_heads"]

    def matrix(rows, columns):
        return torch.randn(rows, columns, generator=make) * 1.6 * columns**-0.5

    def vector(n, around=0.0):
        return around + 0.3 * torch.randn(n, generator=make)

    tensors = {"owl.perch.weight": matrix(c["vocab_size"], size) * 5, "hoot.weight": matrix(c["vocab_size"], size)}
    for i in range(c["num_hidden_layers"]):
        at = f"owl.layers.{i}"
        tensors |= {f"{at}.attn.{x}.weight": matrix(n, size) for x, n in (("q", size), ("k", kv), ("v", kv))}
        tensors |= {f"{at}.attn.{x}_norm.weight": vector(head, 2.0) for x in "qk"}
        tensors |= {f"{at}.attn.o.weight": matrix(size, size)}
        tensors |= {f"{at}.norm_{n}.weight": vector(size, 1.0) for n in (1, 2)}
        tensors |= {f"{at}.norm_{n}.bias": vector(size) for n in (1, 2)}
        tensors |= {f"{at}.mlp.up.weight": matrix(inner, size), f"{at}.mlp.up.bias": vector(inner)}
        tensors |= {f"{at}.mlp.down.weight": matrix(size, inner), f"{at}.mlp.down.bias": vector(size)}
    tensors |= {name: t * layers for name, t in tensors.items() if ".attn.o." in name or ".mlp.down." in name}
    tensors |= {"owl.norm.weight": vector(size, 1.0), "owl.norm.bias": vector(size)}
    save_file(tensors, folder / "model.safetensors")
    folder.joinpath("config.json").write_text(json.dumps(CONFIG))
    byte_level().hf.save_pretrained(folder)
    return folder


class Owl:
    """``Owl(folder)(ids)`` -> logits float32 [T, vocab]. ``changed`` replaces fields of the config."""

    def __init__(self, folder, **changed):
        self.c = {**json.loads(folder.joinpath("config.json").read_text()), **changed}
        self.w = load_file(folder / "model.safetensors")

    def __call__(self, ids):
        x = self.w["owl.perch.weight"][torch.tensor(ids)]
        for i in range(self.c["num_hidden_layers"]):
            at = f"owl.layers.{i}"
            x = x + self.attention(
                self.norm(x, f"{at}.norm_1"), f"{at}.attn", self.c["sliding_window"] if i % 2 else None
            )
            h = linear(self.norm(x, f"{at}.norm_2"), self.w[f"{at}.mlp.up.weight"], self.w[f"{at}.mlp.up.bias"])
            x = x + linear(h.relu() ** 2, self.w[f"{at}.mlp.down.weight"], self.w[f"{at}.mlp.down.bias"])
        return self.norm(x, "owl.norm") @ self.w["hoot.weight"].T

    def greedy(self, ids, count):
        """The next ``count`` ids, and the smallest distance between the best and the second logit on the way."""
        ids, margin = list(ids), float("inf")
        for _ in range(count):
            best = self(ids)[-1].topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            ids.append(int(best.indices[0]))
        return ids[-count:], margin

    def norm(self, x, name):
        return layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], self.c["norm_eps"])

    def attention(self, x, at, window):
        length, heads = len(x), self.c["num_attention_heads"]
        dim = x.shape[1] // heads
        q, k, v = ((x @ self.w[f"{at}.{name}.weight"].T).view(length, -1, dim).transpose(0, 1) for name in "qkv")
        q, k = (self.rotated(self.head_norm(y, self.w[f"{at}.{n}_norm.weight"])) for n, y in (("q", q), ("k", k)))
        k, v = (y.repeat_interleave(heads // len(y), 0) for y in (k, v))
        scores = q @ k.transpose(1, 2) * dim**-0.5  # [heads, T, T]
        behind = torch.arange(length)[:, None] - torch.arange(length)
        seen = (behind >= 0) & (behind < (window or length))
        out = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
        return out.transpose(0, 1).reshape(length, -1) @ self.w[f"{at}.o.weight"].T

    def head_norm(self, x, weight):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.c["norm_eps"]) * weight

    def rotated(self, x):
        """The first half of a head in pairs (j, j + R/2), R the rotated elements."""
        rope = self.c["rope_parameters"]
        size = int(x.shape[-1] * rope["partial_rotary_factor"])
        angle = torch.arange(x.shape[1])[:, None] * rope["rope_theta"] ** (-torch.arange(0, size, 2) / size)
        a, b = x[..., :size].chunk(2, -1)
        turned = (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())
        return torch.cat((*turned, x[..., size:]), -1)
