"""Who changes logits and who draws from them: the answers of the hooks logits_processor and sampler."""

from __future__ import annotations

from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.interfaces.queries import LogitsProcessorQuery, SamplerQuery
from vllm_core.plugins import Selector
from vllm_core.runner.chosen import Chosen

__all__ = ["choose_processors", "choose_sampler"]


def choose_sampler(
    selector: Selector, vocab_size: int, device: Any, batch_invariant: bool = False, named: str | None = None
) -> Chosen:
    query = SamplerQuery(vocab_size=vocab_size, device=device, batch_invariant=batch_invariant)
    offer = selector.choose("sampler", query, named, asked_by="--sampler").offer
    return Chosen(offer.name, offer.target, attrs.evolve(query, options=offer.options), frozenset(offer.capabilities))


def choose_processors(selector: Selector, settings: EngineSettings, vocab_size: int, device: Any) -> list[Chosen]:
    """One for each name of the setting, in its order."""
    names = settings.logits_processors
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise SettingError(f"logits_processors names {twice[0]!r} twice: a processor applies once")
    chosen = []
    for name in names:
        query = LogitsProcessorQuery(name=name, vocab_size=vocab_size, max_rows=settings.max_rows, device=device)
        decision = selector.choose("logits_processor", query, name, asked_by="--logits-processors")
        decision.load()  # what cannot be imported is known before a weight is read
        chosen.append(Chosen(name, decision.offer.target, attrs.evolve(query, options=decision.offer.options)))
    return chosen
