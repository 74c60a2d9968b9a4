"""Layers whose halves read the same input, feed-forwards without a gate, and a tied head's own bias."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from vllm_core.layers import (
    MLP,
    CausalLM,
    DecoderAttention,
    LayerNorm,
    LayerStack,
    NoNorm,
    ParallelDecoderLayer,
    TiedHead,
    TokenEmbedding,
)
from vllm_core.testing.paged import PagedModel
from vllm_core.weights.rules import rule

from .tiny import assert_close

V, H, INNER, HEADS, D, LAYERS = 31, 16, 24, 2, 8, 2  # sizes: vocabulary, hidden, intermediate, heads, of a head
IDS = torch.randint(0, V, (20,), generator=torch.Generator().manual_seed(3)).tolist()
ACTS = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


def parallel_layer(shared: bool, act: str, i: int) -> ParallelDecoderLayer:
    norm = NoNorm if shared else partial(LayerNorm, H)
    attention = DecoderAttention(hidden=H, heads=HEADS, kv_heads=HEADS, head_dim=D, norm=norm(), bias=True)
    return ParallelDecoderLayer(attention, MLP(H, INNER, norm=norm(), act=act), LayerNorm(H) if shared else None)


class ParallelLM(CausalLM):
    weights = [
        rule("{i}.norm.{w}", "layers.{i}.norm.{w}"),
        rule("{i}.{x:attention|mlp}.norm.{w}", "layers.{i}.{x}.norm.{w}"),
        rule("{i}.{x:q|k|v}.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("{i}.out.{w}", "layers.{i}.attention.out.{w}"),
        rule("{i}.{x:up|down}.{w}", "layers.{i}.mlp.{x}.{w}"),
        rule("{x:embedding|norm|head}.{w}", "{x}.{w}"),
    ]

    def __init__(self, shared: bool, act: str) -> None:
        super().__init__(
            embed=TokenEmbedding(V, H),
            layers=LayerStack(LAYERS, partial(parallel_layer, shared, act)),
            norm=LayerNorm(H),
            head=TiedHead(bias=True),
        )

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def random_tensors(shared: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    vectors = {"norm": H, "head": V}
    matrices = {"embedding": (V, H)}
    for i in range(LAYERS):
        vectors |= {f"{i}.norm": H} if shared else {f"{i}.attention.norm": H, f"{i}.mlp.norm": H}
        matrices |= {f"{i}.{x}": (H, H) for x in ("q", "k", "v", "out")} | {
            f"{i}.up": (INNER, H),
            f"{i}.down": (H, INNER),
        }
        vectors |= {f"{i}.{x}": H for x in ("q", "k", "v", "down")} | {f"{i}.up": INNER}
    tensors = {f"{name}.weight": 2 * torch.randn(shape) / shape[1] ** 0.5 for name, shape in matrices.items()}
    tensors |= {f"{name}.bias": torch.randn(size) for name, size in vectors.items()}
    return tensors | {f"{name}.weight": 1 + 0.5 * torch.randn(H) for name in vectors if "norm" in name}


def plain_logits(tensors: dict[str, torch.Tensor], act: str) -> torch.Tensor:
    t = {name: tensor.double() for name, tensor in tensors.items()}

    def norm(x, name):
        return F.layer_norm(x, (H,), t[f"{name}.weight"], t[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))

    x = t["embedding.weight"][IDS]
    for i in range(LAYERS):
        both = f"{i}.norm" if f"{i}.norm.weight" in t else None
        h, g = norm(x, both or f"{i}.attention.norm"), norm(x, both or f"{i}.mlp.norm")
        q, k, v = (linear(h, f"{i}.{n}").unflatten(-1, (HEADS, D)).transpose(0, 1) for n in "qkv")
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).flatten(1)
        x = x + linear(o, f"{i}.out") + linear(ACTS[act](linear(g, f"{i}.up")), f"{i}.down")
    return F.linear(norm(x, "norm"), t["embedding.weight"], t["head.bias"])


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("shared", [True, False], ids=["one norm", "two norms"])
def test_both_halves_read_the_same_sum(shared, act):
    tensors = random_tensors(shared)
    paged = PagedModel(ParallelLM, {"shared": shared, "act": act}, tensors, block_size=4)
    row = paged.row()
    got = torch.cat([paged.step([(row, part)])[0] for part in (IDS[:7], IDS[7:8], IDS[8:])])
    assert_close(got, plain_logits(tensors, act))


def test_an_activation_without_an_op_is_refused():
    with pytest.raises(ValueError, match=r"hidden_act 'swish' has no op; known are gelu, gelu_new"):
        MLP(H, INNER, norm=NoNorm(), act="swish")
