"""The text models of Gemma 3 (arXiv 2503.19786): Gemma 2 with norms of queries and keys instead of soft caps of scores.

Five layers of six see a window, and turn by rope parameters of their own.
"""

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
    final_logit_softcapping: float | None = None
    sliding_window: int | None = 4096
    layer_types: list[str]
    rope_parameters: dict[str, dict[str, Any]]  # by layer type


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    kind = c.layer_types[i]
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
            qk_norm=OffsetRMSNorm(c.head_dim, c.rms_norm_eps),
            rotary=Rotary(c.head_dim, c.rope_parameters[kind]),
            scale=c.query_pre_attn_scalar**-0.5,
            window=c.sliding_window if kind == "sliding_attention" else None,
        ),
        mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=c.hidden_activation, norm=norm(), post_norm=norm()),
    )


class Gemma3ForCausalLM(GemmaLM):
    Config = Config
    weights = weight_rules(
        {
            "input_layernorm": "attention.norm",
            "post_attention_layernorm": "attention.post_norm",
            "pre_feedforward_layernorm": "mlp.norm",
            "post_feedforward_layernorm": "mlp.post_norm",
            "self_attn.q_norm": "attention.q_norm",
            "self_attn.k_norm": "attention.k_norm",
        }
    )

    def __init__(self, c: Config) -> None:
        super().__init__(c, partial(decoder_layer, c), logit_cap=c.final_logit_softcapping)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Gemma3ForCausalLM:
        refuse_both_ways(config, cls.__name__)
        types = layer_types(config, config.get("sliding_window_pattern") or 6)
        full = {**config, "layer_types": types, "rope_parameters": rope_by_type(config)}
        return cls(read_config(Config, full, cls.__name__))


def rope_by_type(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rope parameters of each layer type: older configs have "rope_theta" and "rope_scaling" of the layers that see
    all tokens, and "rope_local_base_freq" of the others."""
    given = config.get("rope_parameters") or {}
    everywhere = {
        "rope_parameters": given.get("full_attention") or config.get("rope_scaling"),
        "rope_theta": config.get("rope_theta") or 1_000_000.0,
    }
    nearby = {
        "rope_parameters": given.get("sliding_attention"),
        "rope_theta": config.get("rope_local_base_freq") or 10_000.0,
        "rope_scaling": None,
    }
    return {
        "full_attention": rope_parameters(config | everywhere),
        "sliding_attention": rope_parameters(config | nearby),
    }
