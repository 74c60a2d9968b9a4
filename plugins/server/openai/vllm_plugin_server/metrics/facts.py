"""Figures that do not change while a server runs: where the seconds of its start went, and how it was set up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["Facts"]


class Facts(Collector):
    """timings   seconds by stage of the engine's start
    cache     what is known of the KV cache, as the labels of ``cache_config_info``
    """

    def __init__(
        self, prefix: str, labels: Mapping[str, str], timings: Mapping[str, float], cache: Mapping[str, object]
    ) -> None:
        self._prefix, self._labels = prefix, dict(labels)
        self.timings, self.cache = dict(timings), {key: str(value) for key, value in cache.items()}

    def collect(self) -> Iterable[Metric]:
        stages = GaugeMetricFamily(
            f"{self._prefix}startup_seconds", "Where the seconds of the start went.", labels=[*self._labels, "stage"]
        )
        for stage, seconds in self.timings.items():
            stages.add_metric([*self._labels.values(), stage], seconds)
        yield stages
        names = [*self._labels, *self.cache]
        info = GaugeMetricFamily(f"{self._prefix}cache_config_info", "How the KV cache is set up.", labels=names)
        info.add_metric([*self._labels.values(), *self.cache.values()], 1.0)
        yield info
