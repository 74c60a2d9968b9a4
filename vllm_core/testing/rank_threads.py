"""An executor whose ranks are threads of this process: several devices' steps in a debugger's reach."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

import attrs

from vllm_core.interfaces.executor import Capacity
from vllm_core.interfaces.steps import Pending, StepPlan, StepResult
from vllm_core.runner.runner import Runner
from vllm_core.testing.ranks import Ranks

__all__ = ["RankThreads", "make_runners"]


class RankThreads:
    """``interfaces.executor.Executor`` of a build for several ranks, which runs them with gloo between them.

    runners   by rank, once started
    """

    def __init__(self, build: Any) -> None:
        self._build = build
        self.layout = build.model.layout
        self.runners: list[Runner] = []

    def start(self) -> Capacity:
        self.ranks = Ranks(self.layout)
        made = make_runners(self._build, self.ranks)
        self.runners = [runner for runner, _ in made]
        speaker = made[self.layout.speaker][1]
        sizes = [capacity.memory for _, capacity in made]
        return attrs.evolve(speaker, memory={name: max(size.get(name, 0) for size in sizes) for name in speaker.memory})

    def launch(self, plan: StepPlan) -> Pending:
        return _Step(plan.step, self.ranks.begin(lambda rank, _: self._run(rank, plan)), self.layout.speaker)

    def _run(self, rank: int, plan: StepPlan) -> StepResult:
        return self.runners[rank].execute(plan).result(plan.step)

    def stop(self) -> None:
        if self.runners:
            self.ranks.close()


def make_runners(build: Any, ranks: Ranks) -> list[tuple[Runner, Capacity]]:
    """Of each rank, bound and filled in its thread."""
    return ranks.run(lambda rank, groups: build.make_runner(groups))


class _Step:
    def __init__(self, step: int, futures: Sequence[Future[StepResult]], speaker: int) -> None:
        self._step, self._futures, self._speaker = step, futures, speaker

    def done(self) -> bool:
        return all(future.done() for future in self._futures)

    def result(self, timeout: float | None = None) -> StepResult:
        done, _ = wait(self._futures, timeout, FIRST_EXCEPTION)
        for future in done:
            future.result()
        if len(done) < len(self._futures):
            raise TimeoutError(f"step {self._step} has not finished after {timeout} s")
        return self._futures[self._speaker].result()
