"""Figures of all engines of a server, each under its own number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vllm_plugin_server.metrics.engine import EngineFigures
from vllm_plugin_server.metrics.totals import SharedTotals, Totals

__all__ = ["Engines", "Joined"]


class Joined(Collector):
    """Collectors whose figures have the same names, and labels that tell them apart: each name is told once."""

    def __init__(self, parts: Iterable[Collector]) -> None:
        self._parts = list(parts)

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for part in self._parts:
            for metric in part.collect():
                if (known := found.setdefault(metric.name, metric)) is not metric:
                    known.samples += metric.samples
        return found.values()


class Engines(Joined):
    """``took`` is for ``AsyncLLM.on_stats``, ``take`` for what ``AsyncLLM.stats`` answered just now.

    states   of the engines, by number
    folder   where several server processes count together; None: this one counts alone
    """

    def __init__(
        self, prefix: str, model: str, states: Callable[[], Mapping[int, str]], folder: Path | None = None
    ) -> None:
        numbers = list(states())
        self.totals: dict[int, Totals | SharedTotals] = {
            n: Totals() if folder is None else SharedTotals(folder, n) for n in numbers
        }
        self.labels = {n: {"model_name": model, "engine": str(n)} for n in numbers}
        self.figures = {
            n: EngineFigures(prefix, self.labels[n], self.totals[n], lambda n=n: states()[n]) for n in numbers
        }
        self._states = states
        super().__init__(self.figures.values())

    def took(self, figures: Any) -> None:
        self.totals[figures.engine].took(figures)

    def take(self, stats: Any) -> None:
        """``stats`` None: nobody has answered in time."""
        for number, figures in self.figures.items():
            its = () if stats is None else [one for one in stats.engines if one.engine == number]
            figures.take(next((one for one in its if one.state == "ready"), None))

    def load(self) -> dict[str, Any]:
        """Of all together; of each as well, if there are several."""
        each = {number: figures.load() for number, figures in self.figures.items()}
        ready = [load for number, load in each.items() if self._states()[number] == "ready"]
        found: dict[str, Any] = {key: sum(load[key] for load in each.values()) for key in ("running", "waiting")}
        found["cache_usage"] = sum(load["cache_usage"] for load in ready) / max(1, len(ready))
        if len(each) > 1:
            states = self._states()
            found["engines"] = [{"engine": n, "state": states[n], **load} for n, load in each.items()]
        return found
