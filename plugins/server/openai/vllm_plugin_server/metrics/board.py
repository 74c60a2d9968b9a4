"""Where all figures of a server hang together, and how they are written out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from vllm_core.serving import EngineDeadError
from vllm_plugin_server.metrics import shared
from vllm_plugin_server.metrics.calls import CallFigures
from vllm_plugin_server.metrics.dropped import count_dropped
from vllm_plugin_server.metrics.engines import Engines, Joined
from vllm_plugin_server.metrics.facts import Facts
from vllm_plugin_server.metrics.http import HttpFigures
from vllm_plugin_server.metrics.loop import LoopFigures
from vllm_plugin_server.metrics.prefix import DEFAULT, check_prefix
from vllm_plugin_server.metrics.processes import ServerProcesses

__all__ = ["Board"]

PATIENCE = 1.0  # seconds that the engine has for an answer, which it gives between two steps


class Board:
    """longest    tokens of the longest request
    ask        asks the engines how they are just now
    states     of the engines, by number
    pids       of the engines' processes, while there are any
    timings    seconds by stage of the start
    cache      labels of ``cache_config_info``
    """

    def __init__(
        self,
        *,
        model: str,
        longest: int,
        ask: Callable[[], Any],
        states: Callable[[], Mapping[int, str]],
        pids: Callable[[], Sequence[int]],
        timings: Mapping[str, float],
        cache: Mapping[str, object],
        prefix: str = DEFAULT,
    ) -> None:
        disable_created_metrics()  # a second series for each counter and histogram, which nobody reads
        self.prefix = check_prefix(prefix)
        counted = CollectorRegistry()
        count_dropped(counted, prefix)
        self.calls = CallFigures(counted, prefix, model, longest, list(states()))
        self.http = HttpFigures(counted)
        self.loop = LoopFigures(counted, prefix)
        self._ask = ask
        shared.join()
        if (folder := shared.folder()) is not None:
            counted = CollectorRegistry()
            MultiProcessCollector(counted, path=str(folder))
        self.engines = Engines(prefix, model, states, folder)
        self._registry = counted
        # Of its own, as requests may fill the threads that read them: then it is wanted most to see the figures.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._writer.submit(int)  # its thread is there from now on
        for collector in (
            self.engines,
            Joined(Facts(prefix, labels, timings, cache) for labels in self.engines.labels.values()),
            ServerProcesses(shared.live_pids),
            ServerProcesses(pids, "engine"),
        ):
            self._registry.register(collector)

    async def refresh(self) -> None:
        """Ask the engine. If it is dead or busy for long, the figures say so."""
        try:
            async with asyncio.timeout(PATIENCE):
                self.engines.take(await self._ask())
        except TimeoutError:
            self.engines.take(None)
        except EngineDeadError:
            self.engines.take(None)

    async def page(self, accept: str) -> tuple[str, bytes]:
        """`text` beside the event loop: it takes dozens of milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self.text, accept)

    async def load(self) -> dict[str, Any]:
        """vLLM's ``server_load``, requests that this server's processes wait for, and what the engine makes of it."""
        held: float = self.calls.held
        if shared.folder() is not None:
            name = f"{self.prefix}api_server_requests"
            held = await asyncio.get_running_loop().run_in_executor(self._writer, self.value, name)
        return {"server_load": int(held), **self.engines.load()}

    def text(self, accept: str) -> tuple[str, bytes]:
        """(content type, body): Prometheus' text, or OpenMetrics if ``accept`` prefers it."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(self._registry)

    def value(self, name: str) -> float:
        """The sum of a figure's samples, by the sample's full name."""
        return sum(s.value for metric in self._registry.collect() for s in metric.samples if s.name == name)
