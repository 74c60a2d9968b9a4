"""An installed plugin's offer as the engine comes by it: by name, on a device, with the plugin's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_core.config.plugins import plugin_settings
from vllm_core.interfaces.queries import PlatformQuery
from vllm_core.plugin import Offer
from vllm_core.plugins import Question, Selector, load_catalog, read_policy
from vllm_core.plugins.ask import ask
from vllm_core.plugins.decision import Answer

__all__ = ["Asked"]


class Asked:
    """The offer ``name`` of a hook: what its plugin says to queries.

    device     platform whose facts go into queries
    settings   of the plugin, as in [plugin.NAME]
    """

    def __init__(self, hook: str, name: str, device: str = "auto", settings: Mapping[str, Any] | None = None) -> None:
        self.hook, self.name = hook, name
        self.catalog = load_catalog(read_policy({}))
        owners = [p for p in self.catalog.active if any((o.kind, o.name) == (hook, name) for o in p.provides)]
        if not owners:
            raise self.catalog.nobody(hook, name)
        self.plugin = owners[0]
        self.catalog.settings = plugin_settings(self.catalog, {self.plugin.name: settings} if settings else {})
        self.selector = Selector(self.catalog)
        asked = None if device == "auto" else device
        platform = self.selector.choose("platform", PlatformQuery(name=device), asked).load()()
        self.device, self.torch_device = platform.facts(), platform.torch_device(0)

    @property
    def module(self) -> str:
        return self.plugin.module

    def answer(self, query: Any) -> Answer:
        """An offer, a refusal, or neither: then the question is not this plugin's."""
        answers = [a for a in ask(self.catalog, Question(self.hook, query, self.name)) if a.plugin == self.plugin.name]
        mine = next((a for a in answers if a.name == self.name), answers[0])
        if mine.error is not None:
            raise AssertionError(f"plugin {self.plugin.label} did not answer {query}: {mine.refusal}") from mine.error
        return mine

    def offer(self, query: Any) -> Offer:
        answer = self.answer(query)
        if answer.offer is None:
            said = f'refuses it: "{answer.refusal}"' if answer.refusal else "says that it is not its own"
            raise AssertionError(
                f'"{self.name}" should serve this query and {said}\n  query   {query}\n'
                "  instead if that is right, `cannot` names it with the reason"
            )
        return answer.offer
