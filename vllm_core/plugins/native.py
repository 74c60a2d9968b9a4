"""Models that plugins list by architecture: a choice without a hook call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from vllm_core.plugin import Offer, Rank
from vllm_core.plugins import complain
from vllm_core.plugins.decision import Answer, Decision, Question
from vllm_core.plugins.errors import NoOffer
from vllm_core.plugins.index import advice
from vllm_core.plugins.records import Provided

if TYPE_CHECKING:
    from vllm_core.plugins.select import Selector

__all__ = ["listed", "nobody", "unlisted"]


def listed(selector: Selector, query: Any) -> tuple[Decision | None, list[Answer]]:
    """The plugin that lists the first possible architecture of a ``ModelQuery``; and what was found on the way."""
    answers: list[Answer] = []
    models = selector.catalog.models()
    for architecture in query.architectures:
        found = [_answer(provided, query) for provided in models.get(architecture, ())]
        answers += found
        able = [a for a in found if a.offer]
        why = "its plugin lists the architecture"
        if len(able) > 1:
            for wanted in selector.prefer("models"):
                preferred = [a for a in able if wanted in (a.plugin, a.distribution)]
                if preferred:
                    able, why = preferred, "its plugin lists the architecture and is named in prefer"
                    break
            if len(able) > 1:
                raise complain.shared_name(Question("models", query, architecture), able)
        if able:
            winner = able[0]
            lost = "another plugin that lists it is named in prefer"
            answers = [attrs.evolve(a, note="chosen" if a is winner else lost if a.offer else "") for a in answers]
            decision = Decision(
                hook="model",
                query=query,
                provided=Provided(winner.offer, winner.plugin, winner.distribution, winner.version),
                answers=tuple(answers),
                why=why,
            )
            return decision, answers
    return None, answers


def unlisted(selector: Selector, query: Any) -> str:
    """Why a generic offer serves a model: nobody lists its architectures, and who would if installed."""
    installed = {plugin.distribution for plugin in selector.catalog.plugins}
    better = [found for name in query.architectures if (found := advice("model", name, installed))]
    named = " or ".join(query.architectures) or "a model without an architecture"
    return f"no active plugin lists {named}" + (f" ({better[0]} brings one that does)" if better else "")


def nobody(selector: Selector, query: Any, answers: list[Answer]) -> NoOffer:
    """The error for a model that neither a listing nor an offer covers."""
    architecture = query.architectures[0] if query.architectures else ""
    if not architecture:
        return NoOffer(
            "the model's config.json names no architecture, and no plugin offers to serve it from the rest.",
            known=", ".join(selector.catalog.names("model")),
            instead="""--hf-overrides '{"architectures": ["NAME"]}' if you know which it is""",
        )
    error = selector.catalog.nobody("model", architecture)
    why = [f"{a.label} refuses: {a.refusal}" + (f"; {a.remedy}" if a.remedy else "") for a in answers if a.refusal]
    return NoOffer(error.title, **{**error.facts, "why": (*error.facts.get("why", ()), *why)})


def _answer(provided: Provided, query: Any) -> Answer:
    entry = provided.entry
    missing = sorted(entry.needs - query.device.features)
    whose: dict[str, Any] = {
        "plugin": provided.plugin,
        "distribution": provided.distribution,
        "version": provided.version,
    }
    if missing:
        device = query.device.name or query.device.type
        return Answer(
            name=entry.architecture, refusal=f"needs {', '.join(missing)} of the platform, {device} lacks it", **whose
        )
    offer = Offer(name=entry.architecture, target=entry.target, rank=Rank.PORTABLE)
    return Answer(name=entry.architecture, offer=offer, **whose)
