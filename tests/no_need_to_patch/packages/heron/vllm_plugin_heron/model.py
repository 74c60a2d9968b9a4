"""Heron: layers of linear attention, whose memory is a state of fixed size, and every second one of full attention.

Shapes: T tokens of a step, S sequences, H hidden_size, N heads of this rank, D head_dim.
"""

from typing import Any

import attrs

from vllm_core.layers import (
    CausalLM,
    DecoderAttention,
    DecoderLayer,
    GatedMLP,
    LayerStack,
    LMHead,
    RMSNorm,
    Rotary,
    TokenEmbedding,
)
from vllm_core.weights.rules import rule
from vllm_plugin_heron.linear_attention import LinearAttention


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that Heron reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    norm_eps: float
    rope_parameters: dict[str, Any]


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    norm = RMSNorm(c.hidden_size, c.norm_eps)
    sizes = {"hidden": c.hidden_size, "heads": c.num_attention_heads, "head_dim": c.head_dim, "norm": norm}
    if i % 2:
        rotary = Rotary(c.head_dim, c.rope_parameters)
        attention = DecoderAttention(**sizes, kv_heads=c.num_attention_heads, rotary=rotary)
    else:
        attention = LinearAttention(**sizes)
    return DecoderLayer(
        attention, GatedMLP(c.hidden_size, c.intermediate_size, norm=RMSNorm(c.hidden_size, c.norm_eps))
    )


class HeronForCausalLM(CausalLM):
    Config = Config
    weights = [
        rule("heron.embed.{w}", "embedding.{w}"),
        rule("heron.layers.{i}.mix.{x:q|k|v}.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("heron.layers.{i}.mix.decay.{w}", "layers.{i}.attention.decay.{w}"),
        rule("heron.layers.{i}.mix.o.{w}", "layers.{i}.attention.out.{w}"),
        rule("heron.layers.{i}.norm_1.{w}", "layers.{i}.attention.norm.{w}"),
        rule("heron.layers.{i}.norm_2.{w}", "layers.{i}.mlp.norm.{w}"),
        rule("heron.layers.{i}.mlp.{x:gate|up}.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
        rule("heron.layers.{i}.mlp.down.{w}", "layers.{i}.mlp.down.{w}"),
        rule("heron.norm.{w}", "norm.{w}"),
        rule("heron.head.{w}", "head.{w}"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, lambda i: decoder_layer(c, i)),
            norm=RMSNorm(c.hidden_size, c.norm_eps),
            head=LMHead(c.vocab_size, c.hidden_size),
        )
