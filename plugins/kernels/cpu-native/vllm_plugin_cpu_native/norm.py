"""The ops ``rms_norm`` and ``add_rms_norm``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.queries import OpQuery
from vllm_plugin_cpu_native import library

DTYPES = (torch.float32, torch.bfloat16)


def native_rms_norm(query: OpQuery) -> Callable[..., Tensor]:
    run = library.with_threads().native_rms_norm

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.dtype != weight.dtype and weight.dtype == torch.float32:  # what is exact in float32 is rounded once
            return rms_norm(x.float(), weight, eps).to(x.dtype)
        if x.dtype != weight.dtype or x.dtype not in DTYPES:  # a layer may norm in another dtype than the model's
            return ops.rms_norm(x, weight, eps)
        x = x.contiguous()
        out, size = torch.empty_like(x), weight.shape[0]
        rows = x.numel() // size
        run(x.dtype == torch.float32, x.data_ptr(), None, out.data_ptr(), rows, size, weight.data_ptr(), eps)
        return out

    return rms_norm


def native_add_rms_norm(query: OpQuery) -> Callable[..., tuple[Tensor, Tensor]]:
    run, normed = library.with_threads().native_rms_norm, native_rms_norm(query)

    def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        if x.dtype != weight.dtype or x.dtype not in DTYPES:
            total = x + residual
            return normed(total, weight, eps), total
        rows, size = x.shape
        args = x.data_ptr(), residual.data_ptr(), x.data_ptr(), rows, size, weight.data_ptr(), eps
        run(x.dtype == torch.float32, *args)
        return x, residual

    return add_rms_norm
