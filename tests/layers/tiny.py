"""A small language model with every option of the layers, and the same written plainly."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import torch
from torch.nn import functional as F

from vllm_core.layers import (
    CausalLM,
    DecoderAttention,
    DecoderLayer,
    GatedMLP,
    LayerNorm,
    LayerStack,
    LMHead,
    OffsetRMSNorm,
    RMSNorm,
    Rotary,
    TiedHead,
    TokenEmbedding,
)
from vllm_core.weights.rules import ignore, rule


@attrs.frozen(kw_only=True)
class Config:
    vocab: int = 53
    hidden: int = 32
    intermediate: int = 24
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    norm: str = "rms"
    qk_norm: bool = False
    post_norm: bool = False
    rope: dict[str, Any] = attrs.field(factory=lambda: {"rope_theta": 100.0})
    bias: bool = False
    windows: tuple[int | None, ...] = (None, None)
    soft_cap: float | None = None
    sinks: bool = False
    scale: float | None = None
    causal: bool = True
    tied: bool = False
    logit_cap: float | None = None


NORMS = {"rms": RMSNorm, "offset": OffsetRMSNorm, "layer": LayerNorm}


def _layer(c: Config, i: int) -> DecoderLayer:
    norm = partial(NORMS[c.norm], c.hidden, 1e-5)
    return DecoderLayer(
        attention=DecoderAttention(
            hidden=c.hidden, heads=c.heads, kv_heads=c.kv_heads, head_dim=c.head_dim, norm=norm(),
            qk_norm=RMSNorm(c.head_dim, 1e-5) if c.qk_norm else None,
            rotary=Rotary(c.head_dim, c.rope) if c.rope else None,
            bias=c.bias, out_bias=c.bias, window=c.windows[i], soft_cap=c.soft_cap, sinks=c.sinks, scale=c.scale,
            causal=c.causal, post_norm=norm() if c.post_norm else None,
        ),
        mlp=GatedMLP(
            c.hidden, c.intermediate, norm=norm(), bias=c.bias, post_norm=norm() if c.post_norm else None,
        ),
    )  # fmt: skip


class TinyLM(CausalLM):
    Config = Config
    weights = [
        rule("layers.{i}.{x:q|k|v}.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("layers.{i}.{x:gate|up}.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
        rule("layers.{i}.attention_norm.{w}", "layers.{i}.attention.norm.{w}"),
        rule("layers.{i}.{x:q_norm|k_norm}.{w}", "layers.{i}.attention.{x}.{w}"),
        rule("layers.{i}.{x:attention|mlp}_post_norm.{w}", "layers.{i}.{x}.post_norm.{w}"),
        rule("layers.{i}.sinks", "layers.{i}.attention.attend.sinks"),
        rule("layers.{i}.out.{w}", "layers.{i}.attention.out.{w}"),
        rule("layers.{i}.mlp_norm.{w}", "layers.{i}.mlp.norm.{w}"),
        rule("layers.{i}.down.{w}", "layers.{i}.mlp.down.{w}"),
        rule("embedding.{w}", "embedding.{w}"),
        rule("norm.{w}", "norm.{w}"),
        rule("head.{w}", "head.{w}"),
        ignore("unused", "a test of ignoring"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab, c.hidden),
            layers=LayerStack(c.layers, partial(_layer, c)),
            norm=NORMS[c.norm](c.hidden, 1e-5),
            head=TiedHead() if c.tied else LMHead(c.vocab, c.hidden),
            logit_cap=c.logit_cap,
        )


def random_tensors(c: Config, seed: int = 0) -> dict[str, torch.Tensor]:
    """A checkpoint: matrices that keep activations spread, attention far from uniform."""
    torch.manual_seed(seed)
    out: dict[str, torch.Tensor] = {"embedding.weight": torch.randn(c.vocab, c.hidden)}

    def norm(name: str, size: int, kind: str) -> None:
        out[f"{name}.weight"] = 1 + 0.5 * torch.randn(size)
        if kind == "layer":
            out[f"{name}.bias"] = torch.randn(size)

    def linear(name: str, n: int, k: int, gain: float = 1.2) -> None:
        out[f"{name}.weight"] = torch.randn(n, k) * gain / k**0.5
        if c.bias:
            out[f"{name}.bias"] = torch.randn(n)

    for i in range(c.layers):
        p = f"layers.{i}"
        norm(f"{p}.attention_norm", c.hidden, c.norm)
        norm(f"{p}.mlp_norm", c.hidden, c.norm)
        if c.post_norm:
            norm(f"{p}.attention_post_norm", c.hidden, c.norm)
            norm(f"{p}.mlp_post_norm", c.hidden, c.norm)
        linear(f"{p}.q", c.heads * c.head_dim, c.hidden, 2)
        linear(f"{p}.k", c.kv_heads * c.head_dim, c.hidden, 2)
        linear(f"{p}.v", c.kv_heads * c.head_dim, c.hidden)
        linear(f"{p}.out", c.hidden, c.heads * c.head_dim)
        linear(f"{p}.gate", c.intermediate, c.hidden)
        linear(f"{p}.up", c.intermediate, c.hidden)
        linear(f"{p}.down", c.hidden, c.intermediate)
        if c.qk_norm:
            norm(f"{p}.q_norm", c.head_dim, "rms")
            norm(f"{p}.k_norm", c.head_dim, "rms")
        if c.sinks:
            out[f"{p}.sinks"] = 2 * torch.randn(c.heads)
    norm("norm", c.hidden, c.norm)
    if not c.tied:
        out["head.weight"] = torch.randn(c.vocab, c.hidden) / 3
    return out


def plain_logits(c: Config, t: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """[T, vocab] in float64, from whole matrices and one dense mask."""
    t = {name: tensor.double() for name, tensor in t.items()}
    count = len(ids)

    def norm(x: torch.Tensor, name: str, kind: str) -> torch.Tensor:
        if kind != "layer":
            return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * (t[f"{name}.weight"] + (kind == "offset"))
        return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], 1e-5)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0)

    def turn(x: torch.Tensor) -> torch.Tensor:
        if not c.rope:
            return x
        size = int(c.head_dim * c.rope.get("partial_rotary_factor", 1))
        angle = torch.arange(count).double()[:, None] * c.rope["rope_theta"] ** (-torch.arange(0, size, 2) / size)
        turned = torch.complex(x[..., : size // 2], x[..., size // 2 : size]) * torch.polar(
            torch.ones_like(angle), angle
        ).unsqueeze(1)
        return torch.cat((turned.real, turned.imag, x[..., size:]), -1)

    x = t["embedding.weight"][ids]
    i_, j_ = torch.arange(count)[:, None], torch.arange(count)
    for i in range(c.layers):
        p = f"layers.{i}"
        h = norm(x, f"{p}.attention_norm", c.norm)
        q, k, v = (linear(h, f"{p}.{n}").unflatten(-1, (-1, c.head_dim)) for n in "qkv")
        if c.qk_norm:
            q, k = norm(q, f"{p}.q_norm", "rms"), norm(k, f"{p}.k_norm", "rms")
        q, k = turn(q), turn(k)
        k, v = (part.repeat_interleave(c.heads // c.kv_heads, 1) for part in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * (c.scale or c.head_dim**-0.5)
        if c.soft_cap:
            scores = c.soft_cap * torch.tanh(scores / c.soft_cap)
        hidden = (j_ > i_) if c.causal else torch.zeros(count, count, dtype=torch.bool)
        if c.windows[i]:
            hidden = hidden | (i_ - j_ >= c.windows[i])
        scores = scores.masked_fill(hidden, float("-inf"))
        if c.sinks:
            scores = torch.cat((scores, t[f"{p}.sinks"][:, None, None].expand(-1, count, 1)), -1)
        o = torch.einsum("hqk,khd->qhd", scores.softmax(-1)[..., :count], v)
        y = linear(o.flatten(1), f"{p}.out")
        x = x + (norm(y, f"{p}.attention_post_norm", c.norm) if c.post_norm else y)
        h = norm(x, f"{p}.mlp_norm", c.norm)
        y = linear(F.silu(linear(h, f"{p}.gate")) * linear(h, f"{p}.up"), f"{p}.down")
        x = x + (norm(y, f"{p}.mlp_post_norm", c.norm) if c.post_norm else y)
    x = norm(x, "norm", c.norm)
    logits = x @ t["embedding.weight" if c.tied else "head.weight"].T
    return logits if c.logit_cap is None else c.logit_cap * torch.tanh(logits / c.logit_cap)


def assert_close(got: torch.Tensor, want: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Within ``tolerance`` of the range of ``want``, which must spread for that to mean something."""
    assert want.std() > 1
    assert (got.double() - want).abs().max() <= tolerance * (want.max() - want.min())
