"""Claims the same rank as others. Importing this module must not import torch."""

from vllm_core.plugin import Offer, Provides, Rank, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("attention_backend", "rival", "the core's reference under another name")]


@hookimpl
def attention_backend(query) -> Offer:
    target = "vllm_core.layers.reference_attention:ReferenceAttention"
    return Offer(name="rival", target=target, rank=Rank.TUNED)
