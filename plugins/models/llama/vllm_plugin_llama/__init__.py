"""Llama and Mistral for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import RopeQuery
from vllm_core.plugin import ModelEntry, Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1

_LLAMA3_FIELDS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "rope_theta")


@hookimpl
def models() -> list[ModelEntry]:
    return [
        ModelEntry("LlamaForCausalLM", "vllm_plugin_llama.model:LlamaForCausalLM"),
        ModelEntry("MistralForCausalLM", "vllm_plugin_llama.mistral:MistralForCausalLM"),
    ]


@hookimpl
def provides() -> list[Provides]:
    return [Provides("rope_variant", "llama3", "frequencies of Llama 3.1 and later")]


@hookimpl
def rope_variant(query: RopeQuery) -> Offer | Refusal | None:
    if query.rope_type != "llama3":
        return None
    if lacking := [name for name in _LLAMA3_FIELDS if name not in query.params]:
        return Refusal(f"rope_parameters lack {', '.join(lacking)}", name="llama3")
    return Offer(name="llama3", target="vllm_plugin_llama.rope:llama3_rope", rank=Rank.PORTABLE)
