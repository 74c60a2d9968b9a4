"""What the generations of Gemma share: scaled embeddings, norms whose weights are distances from 1, a tied head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers import CausalLM, Layer, LayerStack, LMHead, OffsetRMSNorm, TiedHead, TokenEmbedding
from vllm_core.weights.rules import Rule, ignore, rule

LAYER_TYPES = ("sliding_attention", "full_attention")


class GemmaLM(CausalLM):
    """Embedding times sqrt(hidden_size), ``decoder_layer(i)`` for each layer, norm, head."""

    factor: float  # of embeddings; known once bound

    def __init__(self, c: Any, decoder_layer: Callable[[int], Layer], logit_cap: float | None = None) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, decoder_layer),
            norm=OffsetRMSNorm(c.hidden_size, c.rms_norm_eps),
            head=TiedHead() if c.tie_word_embeddings else LMHead(c.vocab_size, c.hidden_size),
            logit_cap=logit_cap,
        )

    def setup(self, plan: Plan) -> None:
        # Trained with the factor rounded: sqrt(3072) = 55.43 is 55.5 in bfloat16.
        self.factor = torch.tensor(self.embedding.hidden**0.5, dtype=plan.dtype).item()

    def embed(self, ids: Tensor, batch: Batch) -> Tensor:
        return self.embedding(ids) * self.factor


def weight_rules(norms: dict[str, str]) -> list[Rule]:
    """The table of a generation; ``norms``: a layer's norms in the checkpoint -> in the layer."""
    return [
        rule("model.embed_tokens.{w}", "embedding.{w}"),
        *(rule(f"model.layers.{{i}}.{theirs}.{{w}}", f"layers.{{i}}.{ours}.{{w}}") for theirs, ours in norms.items()),
        rule("model.layers.{i}.self_attn.{x:q|k|v}_proj.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("model.layers.{i}.self_attn.o_proj.{w}", "layers.{i}.attention.out.{w}"),
        rule("model.layers.{i}.mlp.{x:gate|up}_proj.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
        rule("model.layers.{i}.mlp.down_proj.{w}", "layers.{i}.mlp.down.{w}"),
        rule("model.norm.{w}", "norm.{w}"),
        rule("lm_head.{w}", "head.{w}"),
        ignore("rotary_emb.inv_freq", "computed, not loaded"),
    ]


def layer_types(config: dict[str, Any], period: int) -> list[str]:
    """ "layer_types" of config.json; where it has none, the last of every ``period`` layers sees all tokens."""
    count = config.get("num_hidden_layers") or 0
    types = config.get("layer_types") or [LAYER_TYPES[(i + 1) % period == 0] for i in range(count)]
    if len(types) != count or not set(types) <= set(LAYER_TYPES):
        raise ValueError(f"'layer_types' in config.json must say {' or '.join(LAYER_TYPES)} {count} times, not {types}")
    return types


def refuse_both_ways(config: dict[str, Any], who: str) -> None:
    """``ValueError`` for models whose tokens see later ones: they make embeddings, no text."""
    if config.get("use_bidirectional_attention"):
        raise ValueError(f"{who} with 'use_bidirectional_attention' makes embeddings; here it only generates text")
