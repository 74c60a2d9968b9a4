"""What ``AsyncLLM.stats`` answers: the engines between two steps, one by one and together."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

__all__ = ["EngineStats", "FleetStats"]


@attrs.frozen(kw_only=True)
class EngineStats:
    """``state`` other than "ready": nothing runs there, and the counts are 0."""

    engine: int  # its number
    state: str  # "starting", "ready", "restarting", "dead"
    pid: int  # of its process, the last one if there is none
    cause: str = ""  # why the last one has ended
    running: int = 0  # requests
    waiting: int = 0  # requests
    cache_usage: float = 0.0  # share of the pages that are not free, 0 to 1
    prefix_queries: int = 0  # prompt tokens that could have been found in the cache, since the start
    prefix_hits: int = 0  # of those, found


@attrs.frozen
class FleetStats:
    """The sums over all engines; ``cache_usage`` is the mean of those that answer."""

    engines: Sequence[EngineStats]

    @property
    def running(self) -> int:
        return sum(engine.running for engine in self.engines)

    @property
    def waiting(self) -> int:
        return sum(engine.waiting for engine in self.engines)

    @property
    def cache_usage(self) -> float:
        there = [engine.cache_usage for engine in self.engines if engine.state == "ready"]
        return sum(there) / len(there) if there else 0.0

    @property
    def prefix_queries(self) -> int:
        return sum(engine.prefix_queries for engine in self.engines)

    @property
    def prefix_hits(self) -> int:
        return sum(engine.prefix_hits for engine in self.engines)
