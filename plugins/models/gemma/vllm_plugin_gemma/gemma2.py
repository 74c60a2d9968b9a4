"""Gemma 2 (arXiv 2408.00118): norms on both sides of each half, soft caps, windows in every other layer."""

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
from vllm_plugin_gemma.common import GemmaLM, layer_types, refuse_both_ways, weight_rules


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
    hidden_activation: str = "gelu_pytorch_tanh"
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    query_pre_attn_scalar: int = 256
    attn_logit_softcapping: float | None = 50.0
    final_logit_softcapping: float | None = 30.0
    sliding_window: int | None = 4096
    layer_types: list[str]
    rope_parameters: dict[str, Any]


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    norm = partial(OffsetRMSNorm, c.hidden_size, c.rms_norm_eps)
    return DecoderLayer(
        attention=DecoderAttention(
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            bias=c.attention_bias,
            out_bias=c.attention_bias,
            norm=norm(),
            post_norm=norm(),
            rotary=Rotary(c.head_dim, c.rope_parameters),
            scale=c.query_pre_attn_scalar**-0.5,
            soft_cap=c.attn_logit_softcapping,
            window=c.sliding_window if c.layer_types[i] == "sliding_attention" else None,
        ),
        mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=c.hidden_activation, norm=norm(), post_norm=norm()),
    )


class Gemma2ForCausalLM(GemmaLM):
    Config = Config
    weights = weight_rules(
        {
            "input_layernorm": "attention.norm",
            "post_attention_layernorm": "attention.post_norm",
            "pre_feedforward_layernorm": "mlp.norm",
            "post_feedforward_layernorm": "mlp.post_norm",
        }
    )

    def __init__(self, c: Config) -> None:
        super().__init__(c, partial(decoder_layer, c), logit_cap=c.final_logit_softcapping)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Gemma2ForCausalLM:
        refuse_both_ways(config, cls.__name__)
        full = {**config, "layer_types": layer_types(config, 2), "rope_parameters": rope_parameters(config)}
        return cls(read_config(Config, full, cls.__name__))
