"""Llama (arXiv 2302.13971, 2307.09288, 2407.21783): pre-norm decoder, grouped queries, rotary positions, gated MLP.

Shapes: T tokens of a step, H hidden_size.
"""

from __future__ import annotations

from functools import partial
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
    TiedHead,
    TokenEmbedding,
    read_config,
    rope_parameters,
)
from vllm_core.weights.rules import ignore, rule


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that this architecture reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = attrs.field()
    head_dim: int = attrs.field()
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any]

    @num_key_value_heads.default
    def _as_many_as_queries(self) -> int:
        return self.num_attention_heads

    @head_dim.default
    def _share_of_hidden(self) -> int:
        return self.hidden_size // self.num_attention_heads


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    norm = partial(RMSNorm, c.hidden_size, c.rms_norm_eps)
    return DecoderLayer(
        attention=DecoderAttention(
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            bias=c.attention_bias,
            out_bias=c.attention_bias,
            norm=norm(),
            rotary=Rotary(c.head_dim, c.rope_parameters),
        ),
        mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=c.hidden_act, bias=c.mlp_bias, norm=norm()),
    )


class LlamaForCausalLM(CausalLM):
    Config = Config
    weights = [
        rule("model.embed_tokens.{w}", "embedding.{w}"),
        rule("model.layers.{i}.input_layernorm.{w}", "layers.{i}.attention.norm.{w}"),
        rule("model.layers.{i}.self_attn.{x:q|k|v}_proj.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("model.layers.{i}.self_attn.o_proj.{w}", "layers.{i}.attention.out.{w}"),
        rule("model.layers.{i}.post_attention_layernorm.{w}", "layers.{i}.mlp.norm.{w}"),
        rule("model.layers.{i}.mlp.{x:gate|up}_proj.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
        rule("model.layers.{i}.mlp.down_proj.{w}", "layers.{i}.mlp.down.{w}"),
        rule("model.norm.{w}", "norm.{w}"),
        rule("lm_head.{w}", "head.{w}"),
        ignore("rotary_emb.inv_freq", "computed, not loaded"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, partial(decoder_layer, c)),
            norm=RMSNorm(c.hidden_size, c.rms_norm_eps),
            head=TiedHead() if c.tie_word_embeddings else LMHead(c.vocab_size, c.hidden_size),
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LlamaForCausalLM:
        return cls(read_config(Config, {**config, "rope_parameters": rope_parameters(config)}, cls.__name__))
