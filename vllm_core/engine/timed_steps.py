"""An executor whose steps are timed: how long each may take is written into the pulse before it is launched."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from vllm_core.engine.pulse import Pulse
from vllm_core.interfaces.executor import Capacity, Executor, StepOutOfMemory
from vllm_core.interfaces.steps import Pending, StepPlan, StepResult

__all__ = ["StepClock", "TimedSteps"]

TIMES = 4.0  # a step may take so many times as long as the slowest one like it
FIRST = 120.0  # seconds for each of the first steps of a size: they may compile, or record
FIRST_STEPS = 3
QUICK = 2.0  # seconds: if the first step of all was quicker, or those of SIZES sizes, others are believed to be as well
SIZES = 3
FADES = 0.98  # of the slowest step's seconds, with each step like it


class StepClock:
    """How long a step of so many tokens should take, from those that were as large.

    spare    seconds that any turn of the loop may take on top
    compile  seconds more while a step is launched: what only some requests need may compile in any of them
    """

    def __init__(self, spare: float, compile: float = 0.0) -> None:
        self.spare, self.compile = spare, compile
        self._trusted = False  # the first step of all needed no time to begin with
        self._seen: dict[int, int] = {}  # steps, by size
        self._slowest: dict[int, float] = {}  # seconds, by size
        self._firsts: list[float] = []  # seconds of the first step of each size, but the first of all

    def allowed(self, tokens: int) -> float:
        size = tokens.bit_length()
        if self._seen.get(size, 0) >= FIRST_STEPS:
            return TIMES * self._slowest[size]
        if not self._slowest or max(self._firsts, default=0.0) > QUICK:
            return FIRST
        if not self._trusted and len(self._firsts) < SIZES:
            return FIRST
        near = max((other for other in self._slowest if other <= size), default=min(self._slowest))
        return TIMES * self._slowest[near] * 2.0 ** max(0, size - near)

    def learn(self, tokens: int, seconds: float) -> None:
        size = tokens.bit_length()
        seen = self._seen[size] = self._seen.get(size, 0) + 1
        if seen == 1 and len(self._seen) > 1:
            self._firsts.append(seconds)
        elif seen == 1:
            self._trusted = seconds <= QUICK
        if seen < FIRST_STEPS and seconds > QUICK:
            seconds = 0.0  # it has compiled: no measure of those that follow
        self._slowest[size] = max(seconds, FADES * self._slowest.get(size, 0.0))


class TimedSteps:
    """``interfaces.executor.Executor`` around another one."""

    def __init__(self, executor: Executor, pulse: Pulse, clock: StepClock) -> None:
        self._executor, self._pulse, self._clock = executor, pulse, clock
        self._flying: deque[tuple[int, int]] = deque()  # (step, tokens), oldest first
        self._free = 0.0  # when the device had finished the last step that ended
        self._apart = hasattr(executor, "on_end")  # it has processes of its own: a launch only tells them

    def start(self) -> Capacity:
        return self._executor.start()

    def launch(self, plan: StepPlan) -> Pending:
        tokens = sum(plan.num_tokens)
        self._flying.append((plan.step, tokens))
        self.beat(self._clock.compile)
        try:
            pending = self._executor.launch(plan)
        except BaseException:
            self._flying.pop()
            raise
        self.beat()
        return _Timed(self, pending, tokens, time.monotonic())

    def stop(self) -> None:
        self._executor.stop()

    def when_it_ends(self, tell: Callable[[str], None]) -> None:
        """Call ``tell`` with the reason, from another thread, when processes of the executor end by themselves."""
        if hasattr(self._executor, "on_end"):
            self._executor.on_end = tell

    def beat(self, more: float = 0.0) -> None:
        """The loop goes on, and may take as long as the oldest step in flight may, and ``more`` seconds.

        Those behind it have a beat of their own coming: the one that it gives when it has finished.
        """
        step, seconds = -1, 0.0
        if self._flying:
            step, tokens = self._flying[0]
            seconds = self._clock.allowed(tokens)
            if self._apart:
                more = self._clock.compile
        self._pulse.busy(self._clock.spare + more + seconds, step)

    def finished(self, tokens: int, begun: float) -> None:
        now = time.monotonic()
        self._clock.learn(tokens, now - max(begun, self._free))
        self._free = now
        self._flying.popleft()
        self.beat()

    def lost(self) -> None:
        """The oldest step has not run: nothing is learned of it."""
        self._flying.popleft()
        self.beat()


class _Timed:
    def __init__(self, steps: TimedSteps, pending: Pending, tokens: int, begun: float) -> None:
        self._steps, self._pending, self._tokens, self._begun = steps, pending, tokens, begun

    def done(self) -> bool:
        return self._pending.done()

    def result(self, timeout: float | None = None) -> StepResult:
        try:
            result = self._pending.result(timeout)
        except StepOutOfMemory:
            self._steps.lost()
            raise
        self._steps.finished(self._tokens, self._begun)
        return result
