"""Recorded steps: which sizes there are, which plan runs in which, and when one is recorded.

A step that fits no size runs op by op, as without graphs. Sizes are recorded when they are first needed, the
largest of all at the start, so that the memory they share is as large as it will ever be.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from vllm_core.interfaces.steps import StepPlan
from vllm_core.runner.staging import HostBuffers
from vllm_core.runner.static_step import DRAW, FORWARD, GREEDY, Machinery, Size, StaticStep

log = logging.getLogger(__name__)

MIXED = (64, 128, 256, 512)  # tokens of recorded steps in which prompts are computed
FIRST = (1,)  # rows of decoding steps recorded at the start, beside the largest


def decode_sizes(most: int) -> list[int]:
    """Rows of decoding steps: close together where a step costs by the row."""
    sizes = [1, 2, 4, *range(8, min(most, 64), 8), *range(64, min(most, 256), 16), *range(256, most, 32), most]
    return sorted({size for size in sizes if size <= most})


@attrs.frozen
class Recorded:
    step: StaticStep
    replay: Callable[[], Any]


class StepGraphs:
    """``run(plan, ending)`` if there is a size for it, else None.

    record       makes a step that can be run again: `cuda_graph.CudaRecorder`
    max_rows     most rows of a step
    max_tokens   most tokens of a step, the engine's budget
    """

    def __init__(
        self,
        machinery: Machinery,
        record: Callable[[StaticStep], Callable[[], Any]],
        max_rows: int,
        max_tokens: int,
        mixed: Sequence[int] = MIXED,
    ) -> None:
        self._machinery, self._record = machinery, record
        self.most = min(max_rows, max_tokens // (1 + machinery.num_drafts))
        self.decode = decode_sizes(self.most)
        self.mixed = [tokens for tokens in mixed if tokens <= max_tokens]
        self._recorded: dict[Size, Recorded | None] = {}  # None: there was no memory for it
        self._buffers = HostBuffers(4 * (max(self.most, *self.mixed, 0) + 1) + 1, machinery.rows.device)
        self.seconds: dict[Size, float] = {}  # that recording took

    def warm_up(self) -> None:
        """Record what serving begins with: the largest step, and those of a single stream."""
        longest = 1 + self._machinery.num_drafts
        ending = FORWARD if self._machinery.num_drafts or not self._machinery.samples else GREEDY
        for rows in (self.most, *(n for n in FIRST if n < self.most)):
            self._of(Size(rows, rows * longest, longest, ending))

    def run(self, plan: StepPlan, ending: str) -> StaticStep | None:
        """Launch the plan's step; its results are overwritten by the next step of its size."""
        size = self._size(plan, ending)
        if size is None:
            return None
        recorded = self._of(size)
        if recorded is None:
            return None
        step = recorded.step
        with self._buffers.take(step.count) as (host, move):
            step.fill(host, plan)
            move(step.inputs)
        if step.x is not None and self._machinery.stage is not None:
            self._machinery.stage.fill(step.x, sum(plan.num_tokens))
        recorded.replay()
        return step

    def _size(self, plan: StepPlan, ending: str) -> Size | None:
        rows, tokens, longest = len(plan.rows), sum(plan.num_tokens), max(plan.num_tokens)
        each = 1 + self._machinery.num_drafts
        if longest <= each:
            # Padding sequences must have room for what the rows lack.
            i = bisect_left(self.decode, rows)
            if longest == 1 and each > 1:
                each = 1
            if i < len(self.decode) and rows * each == tokens:
                return Size(self.decode[i], self.decode[i] * each, each, ending)
        i = bisect_left(self.mixed, tokens)
        if i == len(self.mixed):
            return None
        width = self.mixed[i]
        padded = min(width, self.decode[-1] + 1)
        if rows + (tokens < width) > padded:
            return None
        return Size(padded, width, width, ending)

    def _of(self, size: Size) -> Recorded | None:
        if size not in self._recorded:
            start = time.perf_counter()
            self._recorded[size] = None
            recorded, lacking = self._try(size)
            if lacking:
                # While a graph is recorded torch gives back nothing that it keeps for reuse.
                torch.cuda.empty_cache()
                recorded, lacking = self._try(size)
            if lacking:
                log.warning("no memory to record a step of %d rows, which will run op by op: %s", size.rows, lacking)
            self._recorded[size] = recorded
            self.seconds[size] = time.perf_counter() - start
            log.debug("recorded %s in %.1f ms", size, self.seconds[size] * 1e3)
        return self._recorded[size]

    def _try(self, size: Size) -> tuple[Recorded | None, str]:
        """The step of this size, or why there is no memory for it."""
        try:
            step = StaticStep(size, self._machinery)
            with self._buffers.take(step.count) as (host, move):
                step.fill(host, None)
                move(step.inputs)
            return Recorded(step, self._record(step)), ""
        except torch.OutOfMemoryError as error:
            return None, str(error)


def ending_of(greedy: np.ndarray, top_k: np.ndarray, truncated: np.ndarray, any_sampling: bool) -> str:
    """How a step of these rows can end without the host: GREEDY, DRAW, or FORWARD if the sampler needs its facts."""
    if greedy.all():
        return GREEDY
    if any_sampling or not ((top_k > 0) | truncated)[~greedy].any():
        return DRAW
    return FORWARD
