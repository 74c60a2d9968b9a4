"""Activations: act(x), or gated: act(gate) * up, with gate and up side by side (arXiv 2002.05202)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vllm_core.ops.table import op


@op
def silu_and_mul(x: Tensor) -> Tensor:
    """x [T, 2N] = (gate, up) -> silu(gate) * up [T, N]. Query: size=N."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


@op
def gelu_and_mul(x: Tensor) -> Tensor:
    """x [T, 2N] = (gate, up) -> gelu(gate) * up [T, N], gelu by the error function. Query: size=N."""
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate).mul_(up)


@op
def gelu_tanh_and_mul(x: Tensor) -> Tensor:
    """x [T, 2N] = (gate, up) -> gelu(gate) * up [T, N], gelu by its tanh approximation. Query: size=N."""
    gate, up = x.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh").mul_(up)


@op
def gelu(x: Tensor) -> Tensor:
    """x [T, N] -> gelu(x) [T, N], by the error function. Query: size=N."""
    return F.gelu(x)


@op
def gelu_tanh(x: Tensor) -> Tensor:
    """x [T, N] -> gelu(x) [T, N], by its tanh approximation. Query: size=N."""
    return F.gelu(x, approximate="tanh")


@op
def relu(x: Tensor) -> Tensor:
    """x [T, N] -> max(x, 0) [T, N]. Query: size=N."""
    return F.relu(x)
