"""Two ways to alternate between the scheduler and the devices. Both give the same tokens."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Protocol

from vllm_core.engine.request import Request
from vllm_core.engine.scheduler import Scheduler
from vllm_core.interfaces.executor import Executor, StepOutOfMemory
from vllm_core.interfaces.steps import Pending

__all__ = ["OverlappedLoop", "PlainLoop", "StepLoop"]


class StepLoop(Protocol):
    def step(self) -> list[Request]:
        """Go on by about one step. Requests with new tokens are returned; none if nothing can be done."""

    def abandon(self) -> None:
        """Wait for what is in flight and take nothing of it. The loop is of no use then."""


class PlainLoop:
    """One step at a time: schedule, launch, wait. Easier to follow in a debugger."""

    def __init__(self, scheduler: Scheduler, executor: Executor) -> None:
        self._scheduler = scheduler
        self._executor = executor

    def step(self) -> list[Request]:
        flight = self._scheduler.schedule()
        if flight is None:
            return []
        try:
            result = self._executor.launch(flight.plan).result()
        except StepOutOfMemory as error:
            self._scheduler.lose(error)
            return []
        return self._scheduler.retire(result)

    def abandon(self) -> None:
        """Nothing is in flight between two steps."""


class OverlappedLoop:
    """Launches a step before the result of the one before it is fetched.

    While the device works on one step, the host takes in the last one and schedules the next.
    That a request has ended is learned when it runs in one more step, whose result is dropped.
    """

    def __init__(self, scheduler: Scheduler, executor: Executor) -> None:
        self.depth = scheduler.depth  # steps in flight at most
        self._scheduler = scheduler
        self._executor = executor
        self._pending: deque[Pending] = deque()  # as scheduler.flights

    def step(self) -> list[Request]:
        news: dict[Request, None] = {}  # in order, each once
        # What is done already costs no wait, and the next step is better scheduled knowing it.
        while self._pending and self._pending[0].done():
            news.update(self._retire())
        flight = self._scheduler.schedule()
        if flight is not None:
            try:
                self._pending.append(self._executor.launch(flight.plan))
            except StepOutOfMemory as error:
                while self._pending:  # those before it go on
                    news.update(self._retire())
                self._scheduler.lose(error)
                return list(news)
        if len(self._pending) >= self.depth or (flight is None and self._pending and not news):
            news.update(self._retire())
        return list(news)

    def _retire(self) -> dict[Request, None]:
        try:
            result = self._pending.popleft().result()
        except StepOutOfMemory as error:
            self.abandon()  # none of those behind it was run
            self._scheduler.lose(error)
            return {}
        return dict.fromkeys(self._scheduler.retire(result))

    def abandon(self) -> None:
        while self._pending:
            with contextlib.suppress(StepOutOfMemory):
                self._pending.popleft().result()
