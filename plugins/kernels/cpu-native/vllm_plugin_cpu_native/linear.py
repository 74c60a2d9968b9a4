"""The op ``linear`` on weights as they are stored."""

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
        x = x.contiguous()
        tokens, inner = x.shape
        out = torch.empty(tokens, weight.shape[0], dtype=x.dtype)
        if tokens:
            self._multiply(
                *(
                    self._is_float,
                    x.data_ptr(),
                    tokens,
                    weight.data_ptr(),
                    bias.data_ptr() if bias is not None else None,
                ),
                *(weight.shape[0], inner, out.data_ptr()),
            )
        return out
