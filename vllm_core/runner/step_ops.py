"""The ops of a step around the model: inputs from rows, what is done to logits and pages, and the rows' way on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from vllm_core.ops import (
    apply_token_bitmask,
    commit_tokens,
    copy_pages,
    edit_logits,
    page_slots,
    penalize,
    sampling_rows,
    step_inputs,
    token_logprobs,
)


@attrs.frozen
class StepOps:
    """Each as its plain reference in ``vllm_core.ops`` says."""

    step_inputs: Callable[..., Any] = step_inputs
    page_slots: Callable[..., Any] = page_slots
    sampling_rows: Callable[..., Any] = sampling_rows
    commit_tokens: Callable[..., Any] = commit_tokens
    edit_logits: Callable[..., Any] = edit_logits
    penalize: Callable[..., Any] = penalize
    token_logprobs: Callable[..., Any] = token_logprobs
    copy_pages: Callable[..., Any] = copy_pages
    apply_token_bitmask: Callable[..., Any] = apply_token_bitmask

    @classmethod
    def ask(cls, plan: Any) -> StepOps:
        """The best kernels that a plan (``interfaces.plan.Plan``) finds."""
        return cls(**{field.name: plan.op(field.name) for field in attrs.fields(cls)})
