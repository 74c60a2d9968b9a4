"""From declared attention layers to backends, page layouts and views on pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionBackend, AttentionConfig
from vllm_core.interfaces.cache import CacheGroup, CachePlan, CacheSpec, DeclaredCache
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import AttentionQuery, CacheLayoutQuery
from vllm_core.layers.page_layouts import LAYOUTS, HeadLayout
from vllm_core.plugins.errors import NoOffer, PluginError
from vllm_core.runner.bound_attention import BackendSet, PagedAttention
from vllm_core.runner.page_sizes import Layouts, accepted_sizes, stored_bytes

PlanCaches = Callable[..., CachePlan]

IN_GRAPHS = {"graph", "device_metadata"}
"""Capabilities of an attention backend that static steps may be given to."""


@attrs.frozen(kw_only=True)
class _Chosen:
    """The winner for one attention query."""

    name: str
    target: Callable[[], Any]
    layouts: tuple[str, ...]  # best first
    block_sizes: tuple[int, ...] | None  # best first; None: any
    options: Mapping[str, Any]  # all of the offer's
    capabilities: frozenset[str]
    distribution: str


class AttentionGroups:
    """All attention layers of a plan."""

    def __init__(
        self,
        choose: Any,
        device: Device,
        torch_device: torch.device,
        dtype: torch.dtype,
        kv_dtype: torch.dtype,
        batch_invariant: bool = False,
    ) -> None:
        self.choose, self.device, self.torch_device = choose, device, torch_device
        self.batch_invariant = batch_invariant
        self.dtype, self.kv_dtype = dtype, kv_dtype
        self.layers: dict[str, PagedAttention] = {}
        self.backends: list[Any] = []  # one a cache group
        self._views: dict[int, Any] = {}  # group -> CacheLayout
        self._no_graph: set[str] = set()

    def declare(self, path: str, settings: dict[str, Any]) -> PagedAttention:
        if path in self.layers:
            raise ValueError(f"attention of {path!r} is declared twice")
        self.layers[path] = PagedAttention(path, settings)
        return self.layers[path]

    def finish(self, declared: Sequence[DeclaredCache], plan_caches: PlanCaches, block_size: int | None) -> CachePlan:
        """Choose backends, then the caches' plan, then make backends for its groups."""
        known = {cache.name: cache for cache in declared}
        for path in self.layers:
            if path not in known:
                raise ValueError(f"{path}: attention was declared without a cache of that name")
        chosen = self._choose(known)
        self._no_graph = {
            f"attention by {winner.name} ({winner.distribution})"
            for winner in chosen.values()
            if not winner.capabilities >= IN_GRAPHS
        }
        accepted = accepted_sizes(chosen, known)
        layouts = self._layouts(known, chosen)
        caches = plan_caches(declared, block_size, accepted, stored_bytes(layouts, block_size, accepted))
        self.backends = [self._make(group, known, chosen, layouts) for group in caches.groups]
        self._check_pages(caches)
        return caches

    def no_graph(self) -> set[str]:
        """Backends that cannot stand in a captured graph."""
        return self._no_graph

    def _choose(self, known: dict[str, DeclaredCache]) -> dict[str, _Chosen]:
        """A compatible set of backends, one a distinct query -> the winner of each layer."""
        from vllm_core.plugins import Question

        queries = {path: self._query(layer, known[path]) for path, layer in self.layers.items()}
        distinct = list(dict.fromkeys(queries.values()))
        if not distinct:
            return {}
        decisions = self.choose.choose_set([Question("attention_backend", query) for query in distinct])
        by_query = {query: _winner(decision) for query, decision in zip(distinct, decisions, strict=True)}
        return {path: by_query[query] for path, query in queries.items()}

    def _query(self, layer: PagedAttention, cache: DeclaredCache) -> AttentionQuery:
        asked = {name: value for name, value in layer.settings.items() if name != "scale"}
        return AttentionQuery(
            kind=cache.spec.kind,
            dtype=str(self.dtype).removeprefix("torch."),
            kv_dtype=str(self.kv_dtype).removeprefix("torch."),
            device=self.device,
            batch_invariant=self.batch_invariant,
            **asked,
        )

    def _make(
        self, group: CacheGroup, known: dict[str, DeclaredCache], chosen: dict[str, _Chosen], layouts: Layouts
    ) -> Any:
        """The backend of one cache group; several if its layers' settings differ; None if no layer attends to it."""
        members = [path for path in self.layers if owner(path, known) in group.names]
        if not members:
            return None
        layout, self._views[group.index] = layouts[group.spec]
        backends: dict[AttentionConfig, AttentionBackend] = {}
        parts = []
        for path in members:
            layer = self.layers[path]
            layer.group, layer.layout = group.index, layout
            if self.torch_device.type == "meta":
                layer.run_dry()
                continue
            config = AttentionConfig(
                **layer.settings,
                dtype=self.dtype,
                kv_dtype=self.kv_dtype,
                device=self.torch_device,
                block_size=group.block_size,
                page_layout=layout,
                options=chosen[path].options,
            )
            if config not in backends:
                backends[config] = chosen[path].target()(config)
            layer.backend = backends[config]
            parts.append((layer, list(backends).index(config)))
        if len(backends) <= 1:
            return next(iter(backends.values()), None)
        for layer, part in parts:
            layer.part = part
        return BackendSet(list(backends.values()))

    def _layouts(self, known: dict[str, DeclaredCache], chosen: dict[str, _Chosen]) -> Layouts:
        """Of each spec that some layer attends to."""
        readers: dict[CacheSpec, list[_Chosen]] = {}
        for path in self.layers:
            readers.setdefault(known[path].spec, []).append(chosen[path])
        return {spec: self._layout(spec, winners) for spec, winners in readers.items()}

    def _layout(self, spec: CacheSpec, winners: list[_Chosen]) -> tuple[str, Any]:
        """The first page layout that all backends of such caches take and somebody knows."""
        shared = [name for name in winners[0].layouts if all(name in w.layouts for w in winners)]
        unknown = []
        for name in shared:
            if name in LAYOUTS:
                return name, HeadLayout(name)
            query = CacheLayoutQuery(kind=spec.kind, layout=name, dtype=getattr(spec, "dtype", ""), device=self.device)
            try:
                return name, self.choose.choose("kv_cache_layout", query).load()(name)
            except NoOffer:
                unknown.append(name)
        takes = "; ".join(f'"{w.name}" takes {", ".join(w.layouts)}' for w in {w.name: w for w in winners}.values())
        raise PluginError(
            f"the attention backends of {spec.kind} caches share no page layout.",
            known=takes,
            why=f"nobody offers {', '.join(unknown)}" if unknown else "",
            instead="--attention-backend reference takes the core's own layouts",
        )

    def _check_pages(self, caches: CachePlan) -> None:
        for group in caches.groups:
            layout = self._views.get(group.index)
            needs = 0 if layout is None else layout.page_bytes(group.spec, group.block_size)
            if needs > caches.page_bytes:
                raise ValueError(
                    f"{type(layout).__name__}: a page of {group.block_size} tokens needs {needs} bytes and has"
                    f" {caches.page_bytes}, as its page_bytes asks more a token of larger pages"
                )

    def attach(self, tensors: Sequence[Tensor], caches: CachePlan, declared: Sequence[DeclaredCache]) -> list[Any]:
        """Views on the raw pages of each layer's cache, or of the one it shares."""
        known = {cache.name: cache for cache in declared}
        for group in caches.groups:
            layout = self._views.get(group.index)
            if layout is None:
                continue
            views = {name: layout.views(tensors[j], group.spec, group.block_size) for j, name in enumerate(group.names)}
            for path, layer in self.layers.items():
                if (name := owner(path, known)) in views:
                    layer.attach(views[name])
        return self.backends


def owner(name: str, known: dict[str, DeclaredCache]) -> str:
    """The cache that ``name`` reads: itself, or the end of its chain of ``shared_with``."""
    seen = [name]
    while (target := known[name].shared_with) is not None:
        if target not in known or target in seen:
            why = "shares it back" if target in seen else "nobody declared"
            raise ValueError(f"cache {seen[0]!r} shares {target!r}, which {why}")
        name = target
        seen.append(name)
    return name


def _winner(decision: Any) -> _Chosen:
    offer = decision.offer
    sizes = offer.options.get("block_sizes")
    return _Chosen(
        name=offer.name,
        target=decision.load,
        layouts=tuple(offer.takes.get("kv.page_layout", ("NHD",))),
        block_sizes=tuple(sizes) if sizes is not None else None,
        options=offer.options,
        capabilities=frozenset(offer.capabilities),
        distribution=decision.provided.distribution,
    )
