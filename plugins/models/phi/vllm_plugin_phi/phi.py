"""Phi-1, Phi-1.5 (arXiv 2309.05463) and Phi-2: attention and feed-forward side by side, with biases everywhere.

Shapes: T tokens of a step, H hidden_size.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from vllm_core.layers import (
    MLP,
    CausalLM,
    DecoderAttention,
    LayerNorm,
    LayerStack,
    LMHead,
    NoNorm,
    ParallelDecoderLayer,
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
    hidden_act: str = "gelu_new"
    layer_norm_eps: float = 1e-5
    qk_layernorm: bool = False
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any]

    @num_key_value_heads.default
    def _as_many_as_queries(self) -> int:
        return self.num_attention_heads

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


def decoder_layer(c: Config, i: int) -> ParallelDecoderLayer:
    return ParallelDecoderLayer(
        norm=LayerNorm(c.hidden_size, c.layer_norm_eps),
        attention=DecoderAttention(
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            bias=True,
            out_bias=True,
            norm=NoNorm(),
            qk_norm=LayerNorm(c.head_dim, c.layer_norm_eps) if c.qk_layernorm else None,
            rotary=Rotary(c.head_dim, c.rope_parameters),
        ),
        mlp=MLP(c.hidden_size, c.intermediate_size, act=c.hidden_act, norm=NoNorm()),
    )


class PhiForCausalLM(CausalLM):
    Config = Config
    weights = [
        rule("model.embed_tokens.{w}", "embedding.{w}"),
        rule("model.layers.{i}.input_layernorm.{w}", "layers.{i}.norm.{w}"),
        rule("model.layers.{i}.self_attn.{x:q|k|v}_proj.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("model.layers.{i}.self_attn.{x:q|k}_layernorm.{w}", "layers.{i}.attention.{x}_norm.{w}"),
        rule("model.layers.{i}.self_attn.dense.{w}", "layers.{i}.attention.out.{w}"),
        rule("model.layers.{i}.mlp.fc1.{w}", "layers.{i}.mlp.up.{w}"),
        rule("model.layers.{i}.mlp.fc2.{w}", "layers.{i}.mlp.down.{w}"),
        rule("model.final_layernorm.{w}", "norm.{w}"),
        rule("lm_head.{w}", "head.{w}"),
        ignore("rotary_emb.inv_freq", "computed, not loaded"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, partial(decoder_layer, c)),
            norm=LayerNorm(c.hidden_size, c.layer_norm_eps),
            head=TiedHead(bias=True) if c.tie_word_embeddings else LMHead(c.vocab_size, c.hidden_size, bias=True),
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PhiForCausalLM:
        params = {"partial_rotary_factor": 0.5} | rope_parameters(config)
        return cls(read_config(Config, {**config, "rope_parameters": params}, cls.__name__))
