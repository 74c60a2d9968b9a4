"""Fused halves of a decoder layer on several tensor-parallel ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan


def fused_over_ranks(plan: Plan, name: str, layer: Any) -> Callable[..., Any] | None:
    """A kernel for this layer, or None: then it composes ops.

    Kernels know no ranks: one that is given a rank's share of the heads or of the intermediate size gives that
    rank's part of a sum, which is added up here. A norm behind the sum would come too early, in the kernel.
    """
    group = plan.group("tp")
    if group.size == 1:
        return plan.fused(name, layer)
    kernel = plan.fused(name, layer) if layer.post_norm is None else None
    if kernel is None:
        return None
    add_up = group.all_reduce

    def run(x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        part, total = kernel(x, residual, batch)
        return add_up(part), total

    return run
