"""CPU, memory and files of the server's processes, and of the engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["EngineProcess", "ServerProcesses"]

EARLIEST = ("process_start_time_seconds", "process_max_fds")  # of several processes: the smallest; else the sum


class ServerProcesses(Collector):
    """``process_*``: the sum over all processes that answer HTTP. ``pids`` gives those that live."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for pid in self._pids():
            for metric in ProcessCollector(registry=None, pid=lambda pid=pid: pid).collect():
                if (known := found.get(metric.name)) is None:
                    found[metric.name] = metric
                    continue
                old, new = known.samples[0], metric.samples[0]
                both = min if metric.name in EARLIEST else sum
                known.samples = [old._replace(value=both((old.value, new.value)))]
        return found.values()


class EngineProcess(Collector):
    """``engine_process_*`` of the engine; nothing while there is none. ``pid`` may change: it can be started again."""

    def __init__(self, pid: Callable[[], int | None]) -> None:
        self._pid = pid

    def collect(self) -> Iterable[Metric]:
        if (pid := self._pid()) is None:
            return ()
        return ProcessCollector(namespace="engine", registry=None, pid=lambda: pid).collect()
