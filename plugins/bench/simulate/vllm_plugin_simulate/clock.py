"""Simulated time."""

from __future__ import annotations

import attrs

__all__ = ["Clock"]


@attrs.define
class Clock:
    """``now``: seconds since the simulation began. It only goes forward."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def until(self, at: float) -> None:
        self.now = max(self.now, at)

    def passes(self, seconds: float) -> None:
        self.now += seconds
