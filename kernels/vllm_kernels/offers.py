"""What this package offers: op -> target and limits. No torch."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from vllm_core.interfaces.queries import OpQuery

GRAPH = frozenset({"graph"})
INVARIANT = frozenset({"graph", "batch_invariant"})
"""Besides, a row's result does not depend on the other rows of the batch."""


def no_limits(query: OpQuery) -> str:
    return ""


@attrs.frozen
class Entry:
    """``limits`` says why a query cannot be served, or ""."""

    target: str
    limits: Callable[[OpQuery], str] = no_limits
    capabilities: frozenset[str] = GRAPH


OPS: dict[str, Entry] = {}

SAMPLER: str | None = None
