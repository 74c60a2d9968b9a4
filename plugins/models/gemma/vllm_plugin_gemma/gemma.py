"""Gemma (arXiv 2403.08295)."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from vllm_core.layers import (
    DecoderAttention,
    DecoderLayer,
    GatedMLP,
    OffsetRMSNorm,
    Rotary,
    read_config,
    rope_parameters,
)
from vllm_plugin_gemma.common import GemmaLM, refuse_both_ways, weight_rules


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that this architecture reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 256
    hidden_act: str = "gelu_pytorch_tanh"
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    rope_parameters: dict[str, Any]


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    norm = partial(OffsetRMSNorm, c.hidden_size, c.rms_norm_eps)
    # The first checkpoints say "gelu" and were trained with its tanh approximation.
    act = "gelu_pytorch_tanh" if c.hidden_act == "gelu" else c.hidden_act
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
        mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=act, norm=norm()),
    )


class GemmaForCausalLM(GemmaLM):
    Config = Config
    weights = weight_rules({"input_layernorm": "attention.norm", "post_attention_layernorm": "mlp.norm"})

    def __init__(self, c: Config) -> None:
        super().__init__(c, partial(decoder_layer, c))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GemmaForCausalLM:
        refuse_both_ways(config, cls.__name__)
        return cls(read_config(Config, {**config, "rope_parameters": rope_parameters(config)}, cls.__name__))
