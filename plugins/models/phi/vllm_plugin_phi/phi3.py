"""Phi-3 (arXiv 2404.14219) and Phi-4 (arXiv 2412.08905): Llama's layer, stored with fused matrices.

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
from vllm_core.weights.transforms import Split

QKV, GATE_UP = Split(("q", "k", "v")), Split(("gate", "up"))


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that this architecture reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = attrs.field()
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    sliding_window: int | None = None  # tokens, of every layer
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any]

    @num_key_value_heads.default
    def _as_many_as_queries(self) -> int:
        return self.num_attention_heads

    @property
    def head_dim(self) -> int:
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


class Phi3ForCausalLM(CausalLM):
    Config = Config
    weights = [
        rule("model.embed_tokens.{w}", "embedding.{w}"),
        rule("model.layers.{i}.input_layernorm.{w}", "layers.{i}.attention.norm.{w}"),
        rule("model.layers.{i}.self_attn.qkv_proj.{w}", "layers.{i}.attention.qkv.{w}", transform=QKV),
        rule("model.layers.{i}.self_attn.o_proj.{w}", "layers.{i}.attention.out.{w}"),
        rule("model.layers.{i}.post_attention_layernorm.{w}", "layers.{i}.mlp.norm.{w}"),
        rule("model.layers.{i}.mlp.gate_up_proj.{w}", "layers.{i}.mlp.gate_up.{w}", transform=GATE_UP),
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
    def from_config(cls, config: dict[str, Any]) -> Phi3ForCausalLM:
        return cls(read_config(Config, {**config, "rope_parameters": rope(config)}, cls.__name__))


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """Rope parameters of a config.json, old ones included.

    Early checkpoints call LongRoPE "su" or "yarn"; as configuration_phi3.py of transformers reads them.
    """
    params = rope_parameters({"original_max_position_embeddings": 4096, **config})
    return params | {"rope_type": "longrope"} if params["rope_type"] in ("su", "yarn") else params
