"""Runners of pipeline stages. Each has all rows and moves them on itself, so that nobody waits for a host.

Only the last stage samples. Which tokens a row got is known there first; earlier stages take it over before they
need it: when the row runs again, when another request takes the row, or when too much has come together.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.proposer import Drafts
from vllm_core.interfaces.steps import StepPlan
from vllm_core.runner.inputs import Inputs, check, prepare
from vllm_core.runner.output import StepOutput
from vllm_core.runner.runner import Runner
from vllm_core.runner.stage import Stage
from vllm_core.runner.staging import upload
from vllm_core.runner.verify import write_drafts

__all__ = ["EarlyStage", "LastStage"]


class LastStage(Runner):
    """Receives hidden states, samples, and tells the others: int32 [N, 1 + 2 K] for N rows that sampled.

    Of each row what it emitted, -1 behind it, and its next K drafts.
    """

    stage: Stage

    def execute(self, plan: StepPlan) -> StepOutput:
        output = super().execute(plan)
        if any(plan.samples):
            self.stage.tell(self._told(output.token_ids, plan))
        return output

    @torch.inference_mode()
    def _told(self, token_ids: Tensor, plan: StepPlan) -> Tensor:
        rows, which = self.rows, np.flatnonzero(plan.samples)
        new = upload({"which": which, "rows": np.array(plan.rows, dtype=np.int64)[which]}, self.device)
        emitted = token_ids.index_select(0, new["which"])
        if not self.num_drafts:
            return emitted
        column = torch.arange(self.num_drafts, device=self.device)
        at = (new["rows"] * rows.room + rows.num_tokens.index_select(0, new["rows"]))[:, None] + column
        drafts = rows.token_ids.view(-1).index_select(0, at.view(-1)).view(at.shape)
        return torch.cat((emitted, drafts), 1)


@attrs.frozen
class _Sampled:
    """A step whose rows are not known to have moved on: they did, on the last stage."""

    rows: frozenset[int]
    at: Tensor  # int64 [N], the rows
    advance: Tensor  # int64 [N], tokens computed for certain


class EarlyStage(Runner):
    """Computes its layers and passes hidden states on; proposers, samplers and reports are the last stage's.

    Its results mean nothing.
    """

    drafts_elsewhere = True

    stage: Stage

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sampled: deque[_Sampled] = deque()  # in the order of their steps

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepOutput:
        result = torch.full((len(plan.rows), 1 + self.num_drafts), -1, dtype=torch.int32, device=self.device)
        self._settle(plan)
        self._admit(plan)
        if plan.rows:
            check(plan, self.rows)
            inputs = prepare(plan, self.rows, self._ops)
            hidden = self._recorded_forward(plan, inputs)
            # The next step of its size writes where a recorded one left it, perhaps before it has gone.
            self.stage.pass_on(self._forward(inputs) if hidden is None else hidden.clone())
            self._move_on(inputs)
        return StepOutput(result)

    @torch.inference_mode()
    def forward_logits(self, plan: StepPlan) -> Tensor:
        """As on the last stage, which gives the logits; here they are none."""
        self.execute(plan)
        return torch.empty(0, self.model.vocab_size, device=self.device)

    def _take(self, plan: StepPlan) -> None:
        """What requests ask of the sampler is nothing to this stage."""

    def _move_on(self, inputs: Inputs) -> None:
        """Rows that did not sample are known to be further on; the others wait for the last stage's word."""
        known = inputs.advance
        if len(inputs.sampling_rows_host):
            advance = known.index_select(0, inputs.sampling)
            known = known.index_fill(0, inputs.sampling, 0)
            rows = frozenset(inputs.sampling_rows_host.tolist())
            self._sampled.append(_Sampled(rows, inputs.sampling_rows, advance))
        self.rows.num_computed.index_add_(0, inputs.rows, known.int())

    def _settle(self, plan: StepPlan) -> None:
        """Take over what rows of this plan have got since they ran last."""
        wanted = {*plan.rows, *(init.row for init in plan.inits)}
        needed = [i for i, step in enumerate(self._sampled) if step.rows & wanted]
        # As many steps as there are stages may be on their way; those before them have long been told.
        late = len(self._sampled) - self.stage.ids.size
        for _ in range(max(late, needed[-1] + 1 if needed else 0)):
            self._hear(self._sampled.popleft())

    def _hear(self, step: _Sampled) -> None:
        """As `verify.advance` and `write_drafts` did on the last stage."""
        rows, n, k = self.rows, len(step.at), self.num_drafts
        told = self.stage.hear(torch.empty((n, 1 + 2 * k), dtype=torch.int32, device=self.device))
        emitted = told[:, : 1 + k]
        self._ops.commit_tokens(
            rows.token_ids,
            rows.num_tokens,
            rows.num_computed,
            step.at,
            step.advance,
            torch.arange(n, device=self.device),
            emitted.long(),
            (emitted >= 0).sum(1) - 1,
            torch.empty((n, 1 + k), dtype=torch.int32, device=self.device),
        )
        if k:
            write_drafts(rows, step.at, Drafts(ids=told[:, 1 + k :]), self.model.vocab_size)
