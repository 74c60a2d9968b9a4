"""The ops ``linear`` and ``scaled_linear`` on weights as they are stored."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_plugin_cpu_native import library


class NativeLinear:
    """``OpKernel`` for x [T, in_size] and weights [out_size, in_size], both row by row in memory."""

    def __init__(self, query: OpQuery) -> None:
        self._multiply = library.with_threads().native_linear
        self._is_float = query.dtype == "float32"

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self._run(x, weight, None, bias)

    def _run(self, x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None) -> Tensor:
        x = x.contiguous()
        tokens, inner = x.shape
        out = torch.empty(tokens, weight.shape[0], dtype=x.dtype)
        if tokens:
            more = (None if tensor is None else tensor.data_ptr() for tensor in (scales, bias))
            self._multiply(
                *(self._is_float, x.data_ptr(), tokens, weight.data_ptr(), *more),
                *(weight.shape[0], inner, out.data_ptr()),
            )
        return out


class NativeScaledLinear(NativeLinear):
    """The same for weights of whole numbers, int8, and a float32 scale for each output."""

    def __call__(self, x: Tensor, numbers: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
        return self._run(x, numbers, scales, bias)
