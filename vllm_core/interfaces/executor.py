"""Where steps run: in this process, in worker processes, on other hosts. No torch."""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from vllm_core.interfaces.cache import CachePlan
from vllm_core.interfaces.steps import Pending, StepPlan


@attrs.frozen(kw_only=True)
class Capacity:
    """What the devices were found to hold once the model was loaded."""

    caches: CachePlan
    num_pages: int  # page 0 included, which nobody gets
    max_rows: int
    num_drafts: int  # drafts a step and row (0: no speculation)
    vocab_size: int
    stages: int = 1  # pipeline stages that a step passes through; each works on a step of its own meanwhile
    lookahead: int = 0  # tokens behind a row's last known one whose cache entries its proposer writes
    memory: dict[str, int] = attrs.field(factory=dict)  # bytes by purpose: weights, kv_cache, rows, ...
    timings: dict[str, float] = attrs.field(factory=dict)  # seconds by stage of the start


class StepOutOfMemory(RuntimeError):
    """Raised by `Executor.launch` or by the result of a step: no memory for what the step computes on its way.

    The step is lost, and its number is used up. Rows that were to run in it, or were taken for it, hold
    anything now: each of them must be taken anew (``RowInit``) before it runs again. So may pages that
    only they use. Nothing else was touched, steps launched before go on, and others may be launched:
    what was kept for reuse has been given back to the device.

    If the result of a step raises it, the results of all steps that were launched meanwhile do so as well: none of
    them was run. Others may be launched once all have been asked for.
    """

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step} had not enough memory: {reason}")
        self.step, self.reason = step, reason


class StepError(RuntimeError):
    """A step failed, and with it the engine: later steps would read what it left behind."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step}: {reason}")
        self.step = step


class Executor(Protocol):
    """Builds the model from resolved choices and runs steps strictly in the order launched."""

    def __init__(self, build: Any, **options: Any) -> None:
        """``build`` is what ``vllm_core.runner.build.Build`` resolved; ``options`` are the offer's."""

    def start(self) -> Capacity:
        """Load the model and make caches and rows. Returns when steps can be launched.

        An executor is started once: ``RuntimeError`` if it was before, even if it was stopped since.
        """

    def launch(self, plan: StepPlan) -> Pending:
        """Queue a step and return at once, without waiting for the device.

        Raises `StepOutOfMemory`, or lets the result raise it; after this the executor goes on. Any other failure is
        a `StepError` that names this step and its cause, and ends the executor: what is launched later raises it, too.
        """

    def stop(self) -> None:
        """End all that ``start`` began: no thread, process, file or shared memory is left. Safe to call twice, after a
        failure, and without a start. Steps that have not run raise `StepError`.
        """
