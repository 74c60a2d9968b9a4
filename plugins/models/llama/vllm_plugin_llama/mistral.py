"""Mistral (arXiv 2310.06825): Llama with a window in every layer and without biases.

Mistral 7B v0.1 has a window of 4096 tokens; later ones (v0.2 on, Nemo, Small) say null and have none.
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
from vllm_plugin_llama.model import LlamaForCausalLM


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that this architecture reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = 8
    head_dim: int = attrs.field()
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    sliding_window: int | None = 4096
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any]

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
            norm=norm(),
            rotary=Rotary(c.head_dim, c.rope_parameters),
            window=c.sliding_window,
        ),
        mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=c.hidden_act, norm=norm()),
    )


class MistralForCausalLM(CausalLM):
    Config = Config
    weights = LlamaForCausalLM.weights

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, partial(decoder_layer, c)),
            norm=RMSNorm(c.hidden_size, c.rms_norm_eps),
            head=TiedHead() if c.tie_word_embeddings else LMHead(c.vocab_size, c.hidden_size),
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MistralForCausalLM:
        return cls(read_config(Config, {**config, "rope_parameters": rope_parameters(config)}, cls.__name__))
