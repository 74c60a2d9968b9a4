"""The ops of a step around the model: inputs from rows, what is done to logits, and the rows' way on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from vllm_core.ops import commit_tokens, page_slots, penalize, sampling_rows, step_inputs, token_logprobs


@attrs.frozen
class StepOps:
    """Each as its plain reference in ``vllm_core.ops.steps`` or ``.logits`` says."""

    step_inputs: Callable[..., Any] = step_inputs
    page_slots: Callable[..., Any] = page_slots
    sampling_rows: Callable[..., Any] = sampling_rows
    commit_tokens: Callable[..., Any] = commit_tokens
    penalize: Callable[..., Any] = penalize
    token_logprobs: Callable[..., Any] = token_logprobs

    @classmethod
    def ask(cls, plan: Any) -> StepOps:
        """The best kernels that a plan (``interfaces.plan.Plan``) finds."""
        return cls(**{field.name: plan.op(field.name) for field in attrs.fields(cls)})
