"""Ministral: a pre-norm decoder of which some layers see a window only. H is hidden_size."""

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
from vllm_core.weights.rules import rule


@attrs.frozen(kw_only=True)
class Config:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    sliding_window: int
    layer_types: list[str]
    rope_parameters: dict[str, Any]


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    norm = partial(RMSNorm, c.hidden_size, c.rms_norm_eps)
    return DecoderLayer(
        attention=DecoderAttention(
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            norm=norm(),
            rotary=Rotary(c.head_dim, c.rope_parameters),
            window=c.sliding_window if c.layer_types[i] == "sliding_attention" else None,
        ),
        mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=c.hidden_act, norm=norm()),
    )


class Ministral(CausalLM):
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
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(len(c.layer_types), partial(decoder_layer, c)),
            norm=RMSNorm(c.hidden_size, c.rms_norm_eps),
            head=TiedHead() if c.tie_word_embeddings else LMHead(c.vocab_size, c.hidden_size),
        )

    @classmethod
    def from_config(cls, config):
        return cls(read_config(Config, {**config, "rope_parameters": rope_parameters(config)}, cls.__name__))
