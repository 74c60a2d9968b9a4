"""CPU, memory and files of the server's processes, and of the engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["ServerProcesses"]

EARLIEST = ("process_start_time_seconds", "process_max_fds")  # of several processes: the smallest; else the sum


class ServerProcesses(Collector):
    """``process_*``: the sum over all processes that answer HTTP. ``pids`` gives those that live.

    ``engine_process_*`` with the namespace "engine", of the engines: nothing while there is none.
    """

    def __init__(self, pids: Callable[[], Sequence[int]], namespace: str = "") -> None:
        self._pids, self._namespace = pids, namespace

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for pid in self._pids():
            for metric in ProcessCollector(self._namespace, registry=None, pid=lambda pid=pid: pid).collect():
                if (known := found.get(metric.name)) is None:
                    found[metric.name] = metric
                    continue
                old, new = known.samples[0], metric.samples[0]
                both = min if metric.name.endswith(EARLIEST) else sum
                known.samples = [old._replace(value=both((old.value, new.value)))]
        return found.values()
