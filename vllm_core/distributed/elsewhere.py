"""A step that runs in other processes, as the engine has it. No torch."""

from __future__ import annotations

from typing import Protocol

from vllm_core.interfaces.executor import StepError
from vllm_core.interfaces.steps import StepResult

__all__ = ["Elsewhere"]


class Asked(Protocol):
    def result(self, step: int, timeout: float | None) -> StepResult | None:
        """Once a step. None if it is not there after ``timeout`` seconds. Raises `StepError`."""


class Elsewhere:
    """``interfaces.steps.Pending``; the executor is asked until it has the result."""

    def __init__(self, executor: Asked, step: int) -> None:
        self._executor, self._step = executor, step
        self._result: StepResult | None = None

    def done(self) -> bool:
        if self._result is None:
            try:
                self._result = self._executor.result(self._step, 0.0)
            except StepError:
                return True  # ``result`` raises it
        return self._result is not None

    def result(self, timeout: float | None = None) -> StepResult:
        if self._result is None:
            self._result = self._executor.result(self._step, timeout)
        if self._result is None:
            raise TimeoutError(f"step {self._step} has not finished after {timeout} s")
        return self._result
