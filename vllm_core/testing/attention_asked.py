"""An attention backend as the engine comes by it: the installed plugin is asked, and its answer taken at its word."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from vllm_core.config.plugins import plugin_settings
from vllm_core.interfaces.queries import AttentionQuery, CacheLayoutQuery, PlatformQuery
from vllm_core.layers.page_layouts import LAYOUTS, HeadLayout
from vllm_core.plugin import Offer
from vllm_core.plugins import Question, Selector, load_catalog, read_policy
from vllm_core.plugins.ask import ask
from vllm_core.plugins.decision import Answer

HOOK = "attention_backend"


class AskedBackend:
    """The backend ``name`` on a device: what its plugin says to queries.

    settings   of the plugin, as in [plugin.NAME]
    """

    def __init__(self, name: str, device: str = "auto", settings: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.catalog = load_catalog(read_policy({}))
        owners = [p for p in self.catalog.active if any((o.kind, o.name) == (HOOK, name) for o in p.provides)]
        if not owners:
            raise self.catalog.nobody(HOOK, name)
        self.plugin = owners[0]
        self.catalog.settings = plugin_settings(self.catalog, {self.plugin.name: settings} if settings else {})
        self.selector = Selector(self.catalog)
        platform = self.selector.choose(
            "platform", PlatformQuery(name=device), None if device == "auto" else device
        ).load()()
        self.device, self.torch_device = platform.facts(), platform.torch_device(0)

    def answer(self, query: AttentionQuery) -> Answer:
        """Its offer or its refusal."""
        answers = ask(self.catalog, Question(HOOK, query, self.name))
        mine = [a for a in answers if a.name == self.name]
        if not mine:
            raise AssertionError(
                f'plugin {self.plugin.label} answers None instead of offering or refusing "{self.name}"'
            )
        if mine[0].error is not None:
            raise AssertionError(f"plugin {self.plugin.label} did not answer {query}") from mine[0].error
        return mine[0]

    def offer(self, query: AttentionQuery) -> Offer:
        answer = self.answer(query)
        if answer.offer is None:
            raise AssertionError(
                f'"{self.name}" refuses this query: {answer.refusal}\n  query   {query}\n'
                "  instead if that is right, `cannot` names it, or names the combination as 'a+b', with the reason"
            )
        return answer.offer

    def views(self, layout: str, query: AttentionQuery) -> Any:
        """The ``interfaces.cache_layout.CacheLayout`` of a name: the core's, or that of a plugin."""
        if layout in LAYOUTS:
            return HeadLayout(layout)
        question = CacheLayoutQuery(kind=query.kind, layout=layout, dtype=query.kv_dtype, device=self.device)
        return self.selector.choose("kv_cache_layout", question).load()(layout)

    @cached_property
    def is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"


def layouts_of(offer: Offer) -> tuple[str, ...]:
    return tuple(offer.takes.get("kv.page_layout", ("NHD",)))


def block_size_of(offer: Offer, wanted: int) -> int:
    """``wanted``, or the nearest size that the backend takes."""
    sizes = offer.options.get("block_sizes") or (wanted,)
    return min(sizes, key=lambda size: abs(size - wanted))
