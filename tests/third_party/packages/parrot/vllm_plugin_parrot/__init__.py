"""Prompt lookup for vllm-core. Importing this module must not import torch."""

from vllm_core.interfaces.queries import ProposerQuery
from vllm_core.plugin import Offer, Provides, Refusal, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("draft_proposer", "parrot", "what followed the same words before")]


@hookimpl
def draft_proposer(query: ProposerQuery) -> Offer | Refusal | None:
    if query.method != "parrot":
        return None
    if unknown := sorted(set(query.config) - {"words"}):
        return Refusal(f'it has one key, "words", and was given {", ".join(unknown)}', name="parrot")
    return Offer(name="parrot", target="vllm_plugin_parrot.lookup:PromptLookup")
