"""Choosing among a few plugin modules given by hand: no discovery, no policy, no lock."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from vllm_core import builtin
from vllm_core.plugin import Offer, Refusal
from vllm_core.plugins.decision import Decision, Question
from vllm_core.plugins.errors import NoOffer
from vllm_core.plugins.records import Provided


class HandChooser:
    """Takes the offer of the highest rank among ``plugins``: the core's own offers are always among them.

    ``refusals`` keeps the reasons given, for tests of them.
    """

    def __init__(self, *plugins: ModuleType) -> None:
        self.plugins = (*plugins, builtin)
        self.refusals: list[str] = []
        self.decisions: list[Decision] = []

    def choose(self, hook: str, query: Any, named: str | None = None) -> Decision:
        offers = []
        for plugin in self.plugins:
            answer = _ask(getattr(plugin, hook), query) if hasattr(plugin, hook) else None
            if isinstance(answer, Refusal):
                self.refusals.append(answer.reason)
            elif isinstance(answer, Offer) and named in (None, answer.name):
                offers.append(Provided(answer, plugin.__name__, plugin.__name__, "0"))
        if not offers:
            raise NoOffer(f"none of {len(self.plugins)} plugins offers {hook}", why=self.refusals, query=str(query))
        best = max(offers, key=lambda p: p.entry.rank)
        self.decisions.append(Decision(hook=hook, query=query, named=named, provided=best))
        return self.decisions[-1]

    def choose_set(self, questions: Sequence[Question]) -> list[Decision]:
        return [self.choose(q.hook, q.query, q.named) for q in questions]


def _ask(implementation: Any, query: Any) -> Any:
    """An implementation names the arguments that it uses; settings are none here."""
    arguments = {"query": query, "settings": None}
    return implementation(**{name: arguments[name] for name in inspect.signature(implementation).parameters})
