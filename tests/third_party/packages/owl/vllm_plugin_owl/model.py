"""Owl: LayerNorm, a norm on each query and key head, rotary on half of a head, every other layer sees
a window only, and relu(x)^2 without a gate. Shapes: T tokens of a step, H hidden_size.
"""

from typing import Any

import attrs

from vllm_core.layers import (
    CausalLM,
    ColumnLinear,
    DecoderAttention,
    DecoderLayer,
    Layer,
    LayerNorm,
    LayerStack,
    LMHead,
    RMSNorm,
    Rotary,
    RowLinear,
    TokenEmbedding,
)
from vllm_core.weights.rules import rule


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that Owl reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    sliding_window: int
    norm_eps: float = 1e-5
    rope_parameters: dict[str, Any]


class SquaredReluMLP(Layer):
    """down(relu(up(norm(x + residual)))^2)"""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.norm = LayerNorm(c.hidden_size, c.norm_eps)
        self.up = ColumnLinear(c.hidden_size, c.intermediate_size, bias=True)
        self.down = RowLinear(c.intermediate_size, c.hidden_size, bias=True)

    def forward(self, x, residual, batch):
        h, residual = self.norm.add(x, residual)
        return self.down(self.up(h).relu().square()), residual


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    head_dim = c.hidden_size // c.num_attention_heads
    attention = DecoderAttention(
        hidden=c.hidden_size,
        heads=c.num_attention_heads,
        kv_heads=c.num_key_value_heads,
        head_dim=head_dim,
        norm=LayerNorm(c.hidden_size, c.norm_eps),
        qk_norm=RMSNorm(head_dim, c.norm_eps),
        rotary=Rotary(head_dim, c.rope_parameters),
        window=c.sliding_window if i % 2 else None,
    )
    return DecoderLayer(attention, SquaredReluMLP(c))


class OwlForCausalLM(CausalLM):
    Config = Config
    weights = [
        rule("owl.perch.{w}", "embedding.{w}"),
        rule("owl.layers.{i}.attn.{x:q|k|v}.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("owl.layers.{i}.attn.{x:q|k}_norm.{w}", "layers.{i}.attention.{x}_norm.{w}"),
        rule("owl.layers.{i}.attn.o.{w}", "layers.{i}.attention.out.{w}"),
        rule("owl.layers.{i}.norm_1.{w}", "layers.{i}.attention.norm.{w}"),
        rule("owl.layers.{i}.norm_2.{w}", "layers.{i}.mlp.norm.{w}"),
        rule("owl.layers.{i}.mlp.{x:up|down}.{w}", "layers.{i}.mlp.{x}.{w}"),
        rule("owl.norm.{w}", "norm.{w}"),
        rule("hoot.{w}", "head.{w}"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, lambda i: decoder_layer(c, i)),
            norm=LayerNorm(c.hidden_size, c.norm_eps),
            head=LMHead(c.vocab_size, c.hidden_size),
        )
