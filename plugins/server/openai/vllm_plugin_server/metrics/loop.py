"""How late the event loop is: an observer of what `lag` measures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram

__all__ = ["BOUNDS", "LoopFigures"]

BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds


class LoopFigures:
    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        self._seconds = Histogram(
            f"{prefix}event_loop_lag_seconds", "How late the event loop was, asked each 10 ms while requests are open,"
            " less what it waited for a processor.",
            buckets=BOUNDS, registry=registry,
        )  # fmt: skip

    def lagged(self, seconds: float) -> None:
        self._seconds.observe(seconds)
