"""Adapters (LoRA and the like): how they compute, where they are found."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import AdapterQuery, ResolverQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def adapter_method(query: AdapterQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to compute the adapters of many requests in one batch.

    When     Once per engine with adapters enabled, in the parent process.
    query    ``kind``: ``"lora"``, ...; ``max_adapters`` in one batch; ``max_rank``;
             ``config`` the content of an adapter's own configuration file, {} when the engine
             is built; ``dtype``; ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.adapter.AdapterMethod``.
             ``Refusal`` naming the field it cannot do; ``None`` for other kinds.
    Choice   The highest rank wins; within a rank ``prefer.adapter_method``, recorded figures,
             then an error.
    Errors   An exception counts as ``Refusal``. An adapter that cannot be loaded fails the
             requests that name it, not the engine.
    Since    Hook API 1.
    """
    return None


@hookspec
def adapter_resolver(query: ResolverQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to find an adapter by name when a request asks for one that is not loaded.

    When     Once per engine with adapters enabled and each resolver named in its settings.
    query    ``name`` of the resolver; ``base_model`` as the user named it; ``config`` the
             resolver's own keys, none of which may be ignored.
    Returns  ``Offer`` whose target has the contract ``interfaces.adapter.AdapterResolver``;
             ``None`` for other names.
    Choice   By name; the resolvers are asked in the order of the settings, and the first that
             finds the adapter wins.
    Errors   An exception ends the start, with the plugin's name and version. One while
             resolving fails the request that asked.
    Since    Hook API 1.
    """
    return None
