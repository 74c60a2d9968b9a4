"""Where all figures of a server hang together, and how they are written out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_core.serving import EngineDeadError
from vllm_plugin_server.metrics import shared
from vllm_plugin_server.metrics.calls import CallFigures
from vllm_plugin_server.metrics.engine import EngineFigures
from vllm_plugin_server.metrics.facts import Facts
from vllm_plugin_server.metrics.http import HttpFigures
from vllm_plugin_server.metrics.prefix import DEFAULT, check_prefix
from vllm_plugin_server.metrics.processes import EngineProcess, ServerProcesses
from vllm_plugin_server.metrics.totals import SharedTotals, Totals

__all__ = ["Board"]

PATIENCE = 1.0  # seconds that the engine has for an answer, which it gives between two steps


class Board:
    """longest    tokens of the longest request
    ask        asks the engine how it is just now
    state      of the engine
    pid        of the engine's process, while there is one
    timings    seconds by stage of the start
    cache      labels of ``cache_config_info``
    """

    def __init__(
        self,
        *,
        model: str,
        longest: int,
        ask: Callable[[], Any],
        state: Callable[[], str],
        pid: Callable[[], int | None],
        timings: Mapping[str, float],
        cache: Mapping[str, object],
        prefix: str = DEFAULT,
    ) -> None:
        disable_created_metrics()  # a second series for each counter and histogram, which nobody reads
        self.prefix = check_prefix(prefix)
        labels = {"model_name": model, "engine": "0"}
        counted = CollectorRegistry()
        self.calls = CallFigures(counted, prefix, model, longest)
        self.http = HttpFigures(counted)
        self.totals: Totals | SharedTotals = Totals()
        self._ask = ask
        shared.join()
        if (folder := shared.folder()) is not None:
            self.totals = SharedTotals(folder)
            counted = CollectorRegistry()
            MultiProcessCollector(counted, path=str(folder))
        self.engine = EngineFigures(prefix, labels, self.totals, state)
        self._registry = counted
        for collector in (
            self.engine,
            Facts(prefix, labels, timings, cache),
            ServerProcesses(shared.live_pids),
            EngineProcess(pid),
        ):
            self._registry.register(collector)

    async def refresh(self) -> None:
        """Ask the engine. If it is dead or busy for long, the figures say so."""
        try:
            async with asyncio.timeout(PATIENCE):
                self.engine.take(await self._ask())
        except TimeoutError:
            self.engine.take(None)
        except EngineDeadError:
            self.engine.take(None)

    def text(self, accept: str) -> tuple[str, bytes]:
        """(content type, body): Prometheus' text, or OpenMetrics if ``accept`` prefers it."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self._registry)

    def value(self, name: str) -> float:
        """The sum of a figure's samples, by the sample's full name."""
        return sum(s.value for metric in self._registry.collect() for s in metric.samples if s.name == name)
