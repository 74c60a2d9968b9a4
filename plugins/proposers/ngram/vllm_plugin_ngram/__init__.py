"""Prompt lookup decoding for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from vllm_core.interfaces.queries import ProposerQuery
from vllm_core.plugin import Offer, Provides, Refusal, hookimpl

HOOK_API = 1
MAX, MIN = "prompt_lookup_max", "prompt_lookup_min"
USUAL = 5  # tokens, if neither is given: vLLM's
MOST = 64  # tokens; each costs a pass over the rows


@hookimpl
def provides() -> list[Provides]:
    return [Provides("draft_proposer", "ngram", "what followed the same tokens before (prompt lookup)")]


@hookimpl
def draft_proposer(query: ProposerQuery) -> Offer | Refusal | None:
    if query.method != "ngram":
        return None
    if wrong := _fault(query.config):
        remedy = (
            f'speculative_config={{"method": "ngram", "num_speculative_tokens": {query.num_drafts}, "{MAX}": {USUAL}}}'
        )
        return Refusal(wrong, name="ngram", remedy=remedy)
    longest, shortest = _lengths(query.config)
    return Offer(name="ngram", target="vllm_plugin_ngram.lookup:PromptLookup", options={MAX: longest, MIN: shortest})


def _lengths(config: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the longest and of the shortest match; one that is left out is the other."""
    longest, shortest = config.get(MAX), config.get(MIN)
    return longest or shortest or USUAL, shortest or longest or USUAL


def _fault(config: Mapping[str, Any]) -> str:
    """What is wrong with the user's keys; "" if nothing is."""
    for key, value in config.items():
        if key not in (MAX, MIN):
            near = difflib.get_close_matches(key, (MAX, MIN), n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"it has {MAX!r} and {MIN!r}"
            return f"speculative_config has {key!r}, which this method does not read; {meant}"
        if type(value) is not int or not 1 <= value <= MOST:
            return f"speculative_config: {key!r} must be a whole number from 1 to {MOST}, not {value!r}"
    longest, shortest = _lengths(config)
    if shortest > longest:
        return f"speculative_config: {MIN!r}, {shortest}, is above {MAX!r}, {longest}"
    return ""
