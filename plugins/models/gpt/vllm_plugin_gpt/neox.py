"""GPT-NeoX (arXiv 2204.06745) and Pythia (2304.01373): both halves of a layer read the same input."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from vllm_core.layers import (
    MLP,
    CausalLM,
    DecoderAttention,
    DecoderLayer,
    LayerNorm,
    LayerStack,
    LMHead,
    ParallelDecoderLayer,
    Rotary,
    TiedHead,
    TokenEmbedding,
    read_config,
    rope_parameters,
)
from vllm_core.weights.rules import Rule, ignore, rule
from vllm_core.weights.transforms import Interleaved


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that this architecture reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    attention_bias: bool = True
    use_parallel_residual: bool = True
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any]

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


def decoder_layer(c: Config, i: int) -> ParallelDecoderLayer | DecoderLayer:
    norm = partial(LayerNorm, c.hidden_size, c.layer_norm_eps)
    attention = DecoderAttention(
        hidden=c.hidden_size,
        heads=c.num_attention_heads,
        kv_heads=c.num_attention_heads,
        head_dim=c.head_dim,
        bias=c.attention_bias,
        out_bias=c.attention_bias,
        norm=norm(),
        rotary=Rotary(c.head_dim, c.rope_parameters),
    )
    mlp = MLP(c.hidden_size, c.intermediate_size, act=c.hidden_act, norm=norm())
    return ParallelDecoderLayer(attention, mlp) if c.use_parallel_residual else DecoderLayer(attention, mlp)


def weight_rules(head_dim: int) -> list[Rule]:
    # Stored head by head: query, key and value of the first, then those of the second, ...
    by_head = Interleaved(("q", "k", "v"), group=head_dim)
    return [
        rule("gpt_neox.embed_in.{w}", "embedding.{w}"),
        rule("gpt_neox.layers.{i}.input_layernorm.{w}", "layers.{i}.attention.norm.{w}"),
        rule("gpt_neox.layers.{i}.attention.query_key_value.{w}", "layers.{i}.attention.qkv.{w}", transform=by_head),
        rule("gpt_neox.layers.{i}.attention.dense.{w}", "layers.{i}.attention.out.{w}"),
        rule("gpt_neox.layers.{i}.post_attention_layernorm.{w}", "layers.{i}.mlp.norm.{w}"),
        rule("gpt_neox.layers.{i}.mlp.dense_h_to_4h.{w}", "layers.{i}.mlp.up.{w}"),
        rule("gpt_neox.layers.{i}.mlp.dense_4h_to_h.{w}", "layers.{i}.mlp.down.{w}"),
        rule("gpt_neox.final_layer_norm.{w}", "norm.{w}"),
        rule("embed_out.{w}", "head.{w}"),
        rule("lm_head.{w}", "head.{w}"),
        ignore("attention.bias", "the causal mask, not a parameter"),
        ignore("attention.masked_bias", "the causal mask, not a parameter"),
        ignore("rotary_emb.inv_freq", "computed, not loaded"),
    ]


class GPTNeoXForCausalLM(CausalLM):
    Config = Config

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, partial(decoder_layer, c)),
            norm=LayerNorm(c.hidden_size, c.layer_norm_eps),
            head=TiedHead() if c.tie_word_embeddings else LMHead(c.vocab_size, c.hidden_size),
        )
        self.weights = weight_rules(c.head_dim)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GPTNeoXForCausalLM:
        # Older configs have names of their own; a quarter of each head turns where nothing is said.
        older = {"rope_theta": config.get("rotary_emb_base"), "partial_rotary_factor": config.get("rotary_pct", 0.25)}
        return cls(read_config(Config, {**config, "rope_parameters": rope_parameters(older | config)}, cls.__name__))
