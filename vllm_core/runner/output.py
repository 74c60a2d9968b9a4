"""What a step leaves on the device for the host, and its way there."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from torch import Tensor

from vllm_core.interfaces.steps import LogprobLines, StepResult
from vllm_core.runner.logprobs import TokenLogprobs


@attrs.frozen
class Lines:
    """`interfaces.steps.LogprobLines`, its numbers still on the device."""

    rows: list[int]
    counts: list[int]
    first: list[int]
    found: TokenLogprobs

    def map(self, move: Callable[[Tensor], Tensor]) -> Lines:
        f = self.found
        return attrs.evolve(self, found=TokenLogprobs(move(f.token_ids), move(f.logprobs), move(f.ranks)))

    def result(self) -> LogprobLines:
        f = self.found
        return LogprobLines(
            rows=self.rows,
            counts=self.counts,
            first=self.first,
            token_ids=f.token_ids.numpy(),
            logprobs=f.logprobs.numpy(),
            ranks=f.ranks.numpy(),
        )


@attrs.frozen
class StepOutput:
    """token_ids   int32 [S, 1 + K], -1 where nothing was emitted"""

    token_ids: Tensor
    logprobs: list[Lines] = attrs.field(factory=list)
    prompt_logprobs: list[Lines] = attrs.field(factory=list)
    failed: dict[int, str] = attrs.field(factory=dict)  # as in ``StepResult``

    def map(self, move: Callable[[Tensor], Tensor]) -> StepOutput:
        """The same, each tensor moved."""
        return StepOutput(
            move(self.token_ids),
            [lines.map(move) for lines in self.logprobs],
            [lines.map(move) for lines in self.prompt_logprobs],
            self.failed,
        )

    def result(self, step: int) -> StepResult:
        """For the host, where the tensors are by now."""
        return StepResult(
            step=step,
            token_ids=self.token_ids.numpy(),
            logprobs=[lines.result() for lines in self.logprobs],
            prompt_logprobs=[lines.result() for lines in self.prompt_logprobs],
            failed=self.failed,
        )
