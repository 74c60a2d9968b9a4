"""The metrics sinks of an engine: made from what plugins offer, fed until they fail."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import attrs

from vllm_core.engine.meter import Listener
from vllm_core.interfaces.metrics import MetricsSink, RequestStats, StepStats
from vllm_core.plugins import Decision
from vllm_core.plugins.errors import PluginError

__all__ = ["Sinks", "open_sinks"]

log = logging.getLogger(__name__)


class Sinks(Listener):
    """``made``: by label, whose it is. One that raises is told of once and never called again."""

    def __init__(self, made: dict[str, MetricsSink]) -> None:
        self._made = made

    def __bool__(self) -> bool:
        return bool(self._made)

    def step(self, stats: StepStats) -> None:
        self._each("step", stats)

    def request(self, stats: RequestStats) -> None:
        self._each("request", stats)

    def close(self) -> None:
        """Safe to call twice."""
        self._each("close")
        self._made.clear()

    def _each(self, method: str, *arguments: Any) -> None:
        for label, sink in list(self._made.items()):
            try:
                getattr(sink, method)(*arguments)
            except Exception:
                log.exception("metrics sink %s failed; it gets nothing more", label)
                self._made.pop(label, None)


def open_sinks(decisions: Sequence[Decision]) -> Sinks:
    """Make every sink that was offered. One that cannot be made ends the start: it offered because it is configured."""
    made: dict[str, MetricsSink] = {}
    for decision in decisions:
        label = f"{decision.offer.name} ({decision.provided.owner})"
        try:
            made[label] = decision.load()(attrs.evolve(decision.query, options=decision.offer.options))
        except PluginError:
            raise
        except Exception as error:
            raise PluginError(
                f'metrics sink "{decision.offer.name}" cannot be made.',
                by=f"{decision.provided.owner}, plugin {decision.provided.plugin}, target {decision.offer.target}",
                why=f"{type(error).__name__}: {error}",
                instead=f'block = ["metrics_sink:{decision.offer.name}"] starts without it',
            ) from error
    return Sinks(made)
