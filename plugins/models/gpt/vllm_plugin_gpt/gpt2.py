"""GPT-2 (Radford et al. 2019, "Language models are unsupervised multitask learners"): learned positions."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.layers import (
    MLP,
    CausalLM,
    DecoderAttention,
    DecoderLayer,
    LayerNorm,
    LayerStack,
    LMHead,
    PositionEmbedding,
    TiedHead,
    TokenEmbedding,
    read_config,
)
from vllm_core.weights.rules import Rule, ignore, rule
from vllm_core.weights.transforms import Split, Transposed


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that this architecture reads."""

    vocab_size: int
    n_positions: int = 1024
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    norm = partial(LayerNorm, c.n_embd, c.layer_norm_epsilon)
    head_dim = c.n_embd // c.n_head
    scale = head_dim**-0.5 if c.scale_attn_weights else 1.0
    return DecoderLayer(
        attention=DecoderAttention(
            hidden=c.n_embd,
            heads=c.n_head,
            kv_heads=c.n_head,
            head_dim=head_dim,
            bias=True,
            out_bias=True,
            norm=norm(),
            scale=scale / (i + 1) if c.scale_attn_by_inverse_layer_idx else scale,
        ),
        mlp=MLP(c.n_embd, c.n_inner or 4 * c.n_embd, act=c.activation_function, norm=norm()),
    )


def weight_rules(prefix: str) -> list[Rule]:
    """OpenAI's own checkpoints name the tensors of the model without a prefix. All matrices are stored [in, out]."""
    layer = prefix + "h.{i}."
    return [
        rule(prefix + "wte.{w}", "embedding.{w}"),
        rule(prefix + "wpe.{w}", "positions.{w}"),
        rule(layer + "ln_1.{w}", "layers.{i}.attention.norm.{w}"),
        rule(layer + "attn.c_attn.{w}", "layers.{i}.attention.qkv.{w}", transform=Transposed(Split(("q", "k", "v")))),
        rule(layer + "attn.c_proj.{w}", "layers.{i}.attention.out.{w}", transform=Transposed()),
        rule(layer + "ln_2.{w}", "layers.{i}.mlp.norm.{w}"),
        rule(layer + "mlp.c_fc.{w}", "layers.{i}.mlp.up.{w}", transform=Transposed()),
        rule(layer + "mlp.c_proj.{w}", "layers.{i}.mlp.down.{w}", transform=Transposed()),
        rule(prefix + "ln_f.{w}", "norm.{w}"),
    ]


class GPT2LMHeadModel(CausalLM):
    Config = Config
    weights = [
        *weight_rules("transformer."),
        *weight_rules(""),
        rule("lm_head.{w}", "head.{w}"),
        ignore("attn.bias", "the causal mask, not a parameter"),
        ignore("attn.masked_bias", "the causal mask, not a parameter"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.n_embd),
            layers=LayerStack(c.n_layer, partial(decoder_layer, c)),
            norm=LayerNorm(c.n_embd, c.layer_norm_epsilon),
            head=TiedHead() if c.tie_word_embeddings else LMHead(c.vocab_size, c.n_embd),
        )
        self.positions = PositionEmbedding(c.n_positions, c.n_embd)

    def embed(self, ids: Tensor, batch: Batch) -> Tensor:
        return self.embedding(ids) + self.positions(batch)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GPT2LMHeadModel:
        if config.get("add_cross_attention"):
            raise ValueError(
                "'add_cross_attention' in config.json makes a decoder that reads an encoder, not a model of text"
            )
        return cls(read_config(Config, config, cls.__name__))
