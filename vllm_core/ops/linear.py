"""Dense products and the lookups at both ends of a model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_core.ops.table import op


@op
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b.

    x        [T, in_size].
    weight   [out_size, in_size], dtype of x.
    bias     [out_size] or None.
    Query    in_size, out_size, bias (bool).
    """
    return F.linear(x, weight, bias)


@op
def scaled_linear(x: Tensor, numbers: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """(x N^T) * scales + b, rounded once to x's dtype.

    x         [T, in_size].
    numbers   N, int8 [out_size, in_size].
    scales    float32 [out_size], contiguous.
    bias      [out_size], dtype of x, or None.
    Query     in_size, out_size, bias (bool).
    """
    y = F.linear(x.float(), numbers.float()).mul_(scales)
    return (y if bias is None else y.add_(bias)).to(x.dtype)


@op
def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Rows of ``weight`` [V, N] at ``ids`` (integers [T] below V) -> [T, N]. Query: size=N, vocab=V."""
    return F.embedding(ids, weight)


@op
def argmax(logits: Tensor) -> Tensor:
    """Index of each row's largest element, the lowest of equals: [T, V] -> int64 [T]. Query: vocab=V."""
    return torch.argmax(logits, dim=-1)
