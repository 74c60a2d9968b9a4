"""The routes that active plugins list, each path and method once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vllm_core.plugin import Endpoint

__all__ = ["Clash", "choose"]


class Clash(ValueError):
    """Two plugins have the same path and method, and nobody said whose it is."""


def choose(provided: Iterable[Any], prefer: Iterable[str]) -> list[Endpoint]:
    """``provided``: what the catalog has for the hook; ``prefer``: plugins or distributions, the first one wins."""
    order = list(prefer)
    taken: dict[tuple[str, str], Any] = {}
    for one in provided:
        for method in one.entry.methods:
            key = (one.entry.path, method)
            other = taken.get(key)
            if other is None or other.plugin == one.plugin:
                taken.setdefault(key, one)
                continue
            winner = next((p for name in order for p in (other, one) if name in (p.plugin, p.distribution)), None)
            if winner is None:
                raise Clash(
                    f"{method} {one.entry.path} is served by {other.owner} and by {one.owner}\n"
                    f'  settle  [plugins] prefer.http_endpoints = ["{one.distribution}"] in vllm.toml takes {one.owner}'
                )
            taken[key] = winner
    found: dict[int, tuple[Endpoint, list[str]]] = {}
    for (_, method), one in taken.items():
        found.setdefault(id(one.entry), (one.entry, []))[1].append(method)
    return [Endpoint(e.path, e.target, tuple(methods), e.summary) for e, methods in found.values()]
