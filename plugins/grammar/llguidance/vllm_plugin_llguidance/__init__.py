"""Structured outputs by llguidance for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import GrammarQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1
KINDS = ("json_schema", "json_object", "regex", "choice", "ebnf", "structural_tag")


@hookimpl
def provides() -> list[Provides]:
    return [Provides("grammar_backend", "llguidance", "JSON schemas, regular expressions, Lark and GBNF grammars")]


@hookimpl
def grammar_backend(query: GrammarQuery) -> Offer | Refusal:
    if query.kind not in KINDS:
        return Refusal(f"it has {', '.join(KINDS)}, and no {query.kind}", name="llguidance")
    return Offer(name="llguidance", target="vllm_plugin_llguidance.backend:LLGuidance", rank=Rank.TUNED)
