"""Figures of the engine: what it did, and how it is at the moment somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vllm_plugin_server.metrics.totals import COUNTED, TALLIED, SharedTotals, Totals

__all__ = ["EngineFigures"]

STATES = ("starting", "ready", "restarting", "dead")


class EngineFigures(Collector):
    """``totals`` grow by themselves; ``take`` what ``AsyncLLM.stats`` answered just now, then ``collect``.

    state   "starting", "ready", "restarting" or "dead"
    """

    def __init__(
        self, prefix: str, labels: Mapping[str, str], totals: Totals | SharedTotals, state: Callable[[], str]
    ) -> None:
        self._prefix, self._names, self._values = prefix, list(labels), list(labels.values())
        self._totals, self._state = totals, state
        self._stats: Any = None
        self._taken = 0.0

    def take(self, stats: Any) -> None:
        """``stats`` None: the engine has not answered in time; what it said last stands, and gets older."""
        if stats is not None:
            self._stats, self._taken = stats, time.monotonic()

    def load(self) -> dict[str, Any]:
        """Requests that run and wait, and the share of the cache's pages that they hold; none of a dead engine."""
        if self._stats is None or self._state() != "ready":
            return {"running": 0, "waiting": 0, "cache_usage": 0.0}
        stats = self._stats
        return {"running": stats.running, "waiting": stats.waiting, "cache_usage": stats.cache_usage}

    def collect(self) -> Iterable[Metric]:
        state = self._state()
        yield self._gauge("engine_up", "1 while the engine takes requests, else 0.", float(state == "ready"))
        states = GaugeMetricFamily(f"{self._prefix}engine_state", "1 for its state.", labels=[*self._names, "state"])
        for name in STATES:
            states.add_metric([*self._values, name], float(name == state))
        yield states
        if (stats := self._stats) is not None:
            yield from self._now(stats, state == "ready")
        totals = self._totals.now()
        for name, (text, _) in COUNTED.items():
            yield self._counter(name, text, totals.counts[name])
        places = CounterMetricFamily(
            f"{self._prefix}spec_decode_num_accepted_tokens_per_pos",
            "Guessed tokens that were right, by their place in the guess.",
            labels=[*self._names, "position"],
        )
        for place, count in enumerate(totals.accepted_at):
            places.add_metric([*self._values, str(place)], count)
        yield places
        for name, (text, _) in TALLIED.items():
            tally = totals.tallies[name]
            family = HistogramMetricFamily(self._prefix + name, text, labels=self._names)
            family.add_metric(self._values, tally.rows(), tally.total)
            yield family

    def _now(self, stats: Any, up: bool) -> Iterator[Metric]:
        age = time.monotonic() - self._taken
        yield self._gauge("engine_stats_age_seconds", "How old the figures of requests and cache are.", age)
        running, waiting = (stats.running, stats.waiting) if up else (0, 0)
        yield self._gauge("num_requests_running", "Requests in the batch of a step.", running)
        yield self._gauge("num_requests_waiting", "Requests that wait for room.", waiting)
        yield self._gauge("kv_cache_usage_perc", "Share of the cache's pages in use, 0 to 1.", stats.cache_usage)
        rate = stats.prefix_hits / stats.prefix_queries if stats.prefix_queries else 0.0
        yield self._gauge("prefix_cache_hit_rate", "Share of prompts' tokens found in the cache, 0 to 1.", rate)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(self._prefix + name, text, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(self._prefix + name, text, labels=self._names)
        family.add_metric(self._values, value)
        return family
