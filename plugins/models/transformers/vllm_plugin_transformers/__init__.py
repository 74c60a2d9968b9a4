"""Decoders that only transformers implements, for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import ModelQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1
NAME = "transformers"


@hookimpl
def provides() -> list[Provides]:
    return [Provides("model", NAME, "any decoder of transformers that uses its attention interface")]


@hookimpl
def model(query: ModelQuery) -> Offer | Refusal | None:
    """Asked only when no plugin lists the architecture. Importing transformers takes a moment, so not before."""
    if not query.architectures:
        return None
    from vllm_plugin_transformers.fits import reason_against

    if reason := reason_against(query.config):
        return Refusal(reason, name=NAME)
    # Below every plugin that knows the architecture.
    return Offer(name=NAME, target="vllm_plugin_transformers.causal_lm:TransformersForCausalLM", rank=Rank.REFERENCE)
