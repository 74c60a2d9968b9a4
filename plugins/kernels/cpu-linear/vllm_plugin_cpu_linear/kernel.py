"""The op ``linear`` with weights in the layout that oneDNN's products read fastest."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery


class PackedLinear:
    """`interfaces.op.PackingKernel` for x [T, in_size] and weights [out_size, in_size].

    Through the ops that torch's own compiler emits for packed weights (torch/_inductor/mkldnn_ir.py).
    """

    def __init__(self, query: OpQuery) -> None:
        self._multiply = torch.ops.mkldnn._linear_pointwise.default

    def pack(self, weight: Tensor) -> Tensor:
        """The weight in oneDNN's layout for any number of tokens, in memory of its own."""
        return torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not len(x):
            return x.new_empty(0, weight.shape[0])
        return self._multiply(x, weight, bias, "none", [], "")
