"""Figures on their way to another process: gathered for a while, sent together."""

from __future__ import annotations

import time

import msgspec

from vllm_core.engine.meter import Listener
from vllm_core.interfaces.metrics import RequestStats, StepStats

__all__ = ["Figures", "Gathered"]

INTERVAL = 0.1  # seconds between two messages of figures, at least, while steps run


class Figures(msgspec.Struct, frozen=True, tag=True):
    """What the engine did since the last ones, in order. All of it: of every step and of every request that ended."""

    steps: list[StepStats]
    requests: list[RequestStats]
    engine: int = 0  # whose they are, among several: the front that tells them knows


class Gathered(Listener):
    """Keeps figures until they are taken."""

    def __init__(self) -> None:
        self._steps: list[StepStats] = []
        self._requests: list[RequestStats] = []
        self._next = 0.0

    def step(self, stats: StepStats) -> None:
        self._steps.append(stats)

    def request(self, stats: RequestStats) -> None:
        self._requests.append(stats)

    def take(self, idle: bool) -> Figures | None:
        """What has come together, if it is time to send it. ``idle``: nothing more will come for a while."""
        now = time.monotonic()
        if not (self._steps or self._requests) or (now < self._next and not idle):
            return None
        self._next = now + INTERVAL
        figures = Figures(self._steps, self._requests)
        self._steps, self._requests = [], []
        return figures
