"""An executor without devices: steps take simulated time, and every row gets token 0."""

from __future__ import annotations

import attrs
import numpy as np

from vllm_core.interfaces.steps import StepPlan, StepResult
from vllm_plugin_simulate.clock import Clock
from vllm_plugin_simulate.step_time import StepTime, Work

__all__ = ["SimulatedPipeline", "work_of"]


def work_of(plan: StepPlan) -> Work:
    decoding = context = 0
    prompts = []
    for tokens, end in zip(plan.num_tokens, plan.kv_bounds, strict=True):
        if tokens == 1:
            decoding += 1
            context += end
        else:
            prompts.append((tokens, end - tokens))
    return Work(decoding, context, tuple(prompts), sum(plan.samples))


@attrs.frozen
class SimulatedStep:
    """``interfaces.steps.Pending``: to wait for it moves the clock."""

    plan: StepPlan
    clock: Clock
    end: float  # seconds: its ids are on the host
    retire: float  # seconds for the host to take it in

    def done(self) -> bool:
        return self.clock.now >= self.end

    def result(self, timeout: float | None = None) -> StepResult:
        self.clock.until(self.end)
        self.clock.passes(self.retire)
        ids = np.where(np.asarray(self.plan.samples, dtype=bool), 0, -1).astype(np.int32)
        return StepResult(step=self.plan.step, token_ids=ids[:, None])


class SimulatedPipeline:
    """``interfaces.executor.Executor``, as far as a loop needs it: stages, each busy with one step at a time.

    A step waits at the first stage for the stage to be free, and for the ids that earlier steps draw at the last stage
    for its rows. Chunks of prompts wait for no ids. Host work moves the clock.
    """

    def __init__(self, time: StepTime, clock: Clock) -> None:
        self.time, self.clock = time, clock
        self.busy = [0.0] * len(time.stages)  # seconds of work of each stage
        self.steps = 0
        self._free = [0.0] * len(time.stages)  # when it is
        self._drawn: dict[int, float] = {}  # by row: when the newest id drawn for it is at the first stage

    def launch(self, plan: StepPlan) -> SimulatedStep:
        work, time, host = work_of(plan), self.time, self.time.host
        rows, recorded = len(plan.rows), not work.prompts or work.tokens <= host.recorded_tokens
        self.clock.passes(host.step_seconds + rows * (host.schedule_row_seconds + host.prepare_row_seconds))
        for init in plan.inits:  # whoever had the row before
            self._drawn.pop(init.row, None)
        at = max(self.clock.now, max((self._drawn.get(row, 0.0) for row in plan.rows), default=0.0))
        if not recorded:  # the host is busy launching; the device begins with the first kernel
            self.clock.passes(max(time.stages) * time.launch_seconds)
        for stage in range(len(time.stages)):
            begin = max(at, self._free[stage])
            seconds = time.seconds(work, stage)
            self._free[stage] = at = begin + seconds
            self.busy[stage] += seconds
            if stage + 1 < len(time.stages):
                at += time.split.send_seconds(stage, time.send_bytes(work.tokens))
        back = at + time.split.back_seconds()
        for row, samples in zip(plan.rows, plan.samples, strict=True):
            if samples:
                self._drawn[row] = back
        self.steps += 1
        return SimulatedStep(plan, self.clock, at, rows * host.retire_row_seconds)
