"""Qwen2 (arXiv 2407.10671) and Qwen3 (arXiv 2505.09388): Llama's layer, with biases or with norms of queries and keys.

Shapes: T tokens of a step, H hidden_size.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

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

LAYER_TYPES = ("full_attention", "sliding_attention")


@attrs.frozen(kw_only=True)
class Qwen2Config:
    """The fields of config.json that Qwen2 reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = attrs.field()
    head_dim: int = attrs.field()
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    use_sliding_window: bool = False
    sliding_window: int | None = None  # tokens
    max_window_layers: int = 28  # layers from this one on have the window; only without layer_types
    layer_types: list[str] = attrs.field()
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any]

    @num_key_value_heads.default
    def _as_many_as_queries(self) -> int:
        return self.num_attention_heads

    @head_dim.default
    def _share_of_hidden(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @layer_types.default
    def _window_in_upper_layers(self) -> list[str]:
        return [LAYER_TYPES[self.window is not None and i >= self.max_window_layers] for i in self.layers]

    @layer_types.validator
    def _can_be_followed(self, _: object, types: list[str]) -> None:
        if len(types) != self.num_hidden_layers or not set(types) <= set(LAYER_TYPES):
            known = " or ".join(LAYER_TYPES)
            raise ValueError(f"'layer_types' must say {known} for each of {self.num_hidden_layers} layers, not {types}")
        if "sliding_attention" in types and self.window is None:
            raise ValueError(
                f"'layer_types' has sliding_attention, but there is no window: 'use_sliding_window' is"
                f" {self.use_sliding_window} and 'sliding_window' {self.sliding_window}"
            )

    @property
    def layers(self) -> range:
        return range(self.num_hidden_layers)

    @property
    def window(self) -> int | None:
        """Tokens that a query of a sliding layer sees; None: no layer may be one."""
        return self.sliding_window if self.use_sliding_window else None


@attrs.frozen(kw_only=True)
class Qwen3Config(Qwen2Config):
    """The fields of config.json that Qwen3 reads."""

    head_dim: int = 128
    attention_bias: bool = False


def decoder_layer(c: Qwen2Config, i: int, **differs: Any) -> DecoderLayer:
    """``differs``: what `DecoderAttention` takes besides."""
    norm = partial(RMSNorm, c.hidden_size, c.rms_norm_eps)
    return DecoderLayer(
        attention=DecoderAttention(
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=c.head_dim,
            norm=norm(),
            rotary=Rotary(c.head_dim, c.rope_parameters),
            window=c.window if c.layer_types[i] == "sliding_attention" else None,
            **differs,
        ),
        mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=c.hidden_act, norm=norm()),
    )


class Qwen2ForCausalLM(CausalLM):
    """Biases of q, k and v, none of the output projection."""

    Config: ClassVar[type] = Qwen2Config
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

    def __init__(self, c: Qwen2Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, partial(self.layer, c)),
            norm=RMSNorm(c.hidden_size, c.rms_norm_eps),
            head=TiedHead() if c.tie_word_embeddings else LMHead(c.vocab_size, c.hidden_size),
        )

    @staticmethod
    def layer(c: Any, i: int) -> DecoderLayer:
        return decoder_layer(c, i, bias=True)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Qwen2ForCausalLM:
        # A config without sliding_window means 4096, one with null no window.
        given = {"sliding_window": 4096, **config, "rope_parameters": rope_parameters(config)}
        return cls(read_config(cls.Config, given, cls.__name__))


class Qwen3ForCausalLM(Qwen2ForCausalLM):
    """A norm on each query and key head before rotary; biases only if the config says so."""

    Config: ClassVar[type] = Qwen3Config
    weights = [
        rule("model.layers.{i}.self_attn.{x:q|k}_norm.{w}", "layers.{i}.attention.{x}_norm.{w}"),
        *Qwen2ForCausalLM.weights,
    ]

    @staticmethod
    def layer(c: Qwen3Config, i: int) -> DecoderLayer:
        norm = RMSNorm(c.head_dim, c.rms_norm_eps)
        return decoder_layer(c, i, qk_norm=norm, bias=c.attention_bias, out_bias=c.attention_bias)
