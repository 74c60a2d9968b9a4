"""Normalisation over the last axis."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_core.ops.table import op


@op
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """weight * x / sqrt(mean(x**2) + eps) over the last axis (arXiv 1910.07467).

    x        [..., N] float32, bfloat16 or float16; rows of N contiguous elements at any stride.
    weight   [N], dtype of x, or float32: then x is rounded only once it has been multiplied.
    Row t reads row t only, in an order fixed by N: the result does not depend on T.
    Query    size=N; weight="float32" if it is that and x is not.
    """
    if weight.dtype != x.dtype:
        return F.rms_norm(x.float(), (x.shape[-1],), weight, eps).to(x.dtype)
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


@op
def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual); the sum is rounded to x's dtype before it is normalised.

    x, residual   [T, N], same dtype, contiguous; both may be overwritten.
    weight        [N], dtype of x or float32, as in `rms_norm`.
    Query         size=N; weight="float32" if it is that and x is not.
    """
    total = torch.add(x, residual)
    return rms_norm(total, weight, eps), total


@op
def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """weight * (x - mean(x)) / sqrt(var(x) + eps) + bias over the last axis (arXiv 1607.06450).

    x              [..., N].
    weight, bias   [N], dtype of x, or None.
    Query          size=N.
    """
    return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)


@op
def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """(layer_norm(x + residual), x + residual); the sum is rounded to x's dtype before it is normalised.

    x, residual    [T, N], same dtype, contiguous; both may be overwritten.
    weight, bias   [N], dtype of x, or None.
    Query          size=N.
    """
    total = torch.add(x, residual)
    return F.layer_norm(total, (total.shape[-1],), weight, bias, eps), total
