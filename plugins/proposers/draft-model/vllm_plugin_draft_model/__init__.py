"""Drafts of a second, smaller model for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from vllm_core.interfaces.queries import ProposerQuery
from vllm_core.plugin import Offer, Provides, Refusal, hookimpl

HOOK_API = 1
METHOD = "draft_model"
KEYS = ("model", "revision", "quantization", "draft_sample_method")
WAYS = ("greedy", "probabilistic")


@hookimpl
def provides() -> list[Provides]:
    return [Provides("draft_proposer", METHOD, "what a smaller model would say")]


@hookimpl
def draft_proposer(query: ProposerQuery) -> Offer | Refusal | None:
    if query.method != METHOD:
        return None
    if wrong := _fault(query.config):
        remedy = (
            f'speculative_config={{"method": "{METHOD}", "num_speculative_tokens": {query.num_drafts}, '
            '"model": a folder or Hub id}'
        )
        return Refusal(wrong, name=METHOD, remedy=remedy)
    return Offer(name=METHOD, target="vllm_plugin_draft_model.proposer:DraftModel")


def _fault(config: Mapping[str, Any]) -> str:
    """What is wrong with the user's keys; "" if nothing is."""
    for key, value in config.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, KEYS))}"
            return f"speculative_config has {key!r}, which this method does not read; {meant}"
        if (not isinstance(value, str) or not value) and (key == "model" or value is not None):
            return f"speculative_config: {key!r} must be a name, not {value!r:.80}"
    if config.get("draft_sample_method") not in (None, *WAYS):
        return (
            f"speculative_config: 'draft_sample_method' must be {' or '.join(map(repr, WAYS))}, or left out, "
            f"not {config['draft_sample_method']!r:.80}"
        )
    return "" if "model" in config else "speculative_config lacks 'model', the model that makes the guesses"
