"""Scaled rotary embeddings for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from typing import Any

from vllm_core.interfaces.queries import RopeQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl
from vllm_plugin_rope_scaling.fields import fault
from vllm_plugin_rope_scaling.kinds import ALIASES, KINDS

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    named = [Provides("rope_variant", name, kind.summary) for name, kind in KINDS.items()]
    return named + [Provides("rope_variant", name, f"another name of {kind}") for name, kind in ALIASES.items()]


@hookimpl
def rope_variant(query: RopeQuery) -> Offer | Refusal | None:
    name = ALIASES.get(query.rope_type, query.rope_type)
    kind = KINDS.get(name)
    if kind is None:
        return None
    if wrong := fault(kind, query.head_dim, query.params):
        remedy = f"""correct it: --hf-overrides '{{"rope_parameters": {{"rope_type": "{query.rope_type}", ...}}}}'"""
        return Refusal(wrong, name=query.rope_type, remedy=remedy)
    options: dict[str, Any] = {}
    if kind.reads_length:
        options["longest_sequence"] = query.max_model_len or query.max_position
    return Offer(name=query.rope_type, target=kind.target, rank=Rank.PORTABLE, options=options)
