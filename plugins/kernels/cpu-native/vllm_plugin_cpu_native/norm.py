"""The ops ``rms_norm`` and ``add_rms_norm``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_core.interfaces.queries import OpQuery
from vllm_plugin_cpu_native import library

DTYPES = (torch.float32, torch.bfloat16)


def native_rms_norm(query: OpQuery) -> Callable[..., Tensor]:
    run = library.with_threads().native_rms_norm

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.dtype != weight.dtype or x.dtype not in DTYPES:  # a layer may norm in another dtype than the model's
            return F.rms_norm(x, weight.shape, weight, eps)
        x = x.contiguous()
        out, size = torch.empty_like(x), weight.shape[0]
        rows = x.numel() // size
        run(x.dtype == torch.float32, x.data_ptr(), None, out.data_ptr(), rows, size, weight.data_ptr(), eps)
        return out

    return rms_norm


def native_add_rms_norm(query: OpQuery) -> Callable[..., tuple[Tensor, Tensor]]:
    run = library.with_threads().native_rms_norm

    def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        if x.dtype != weight.dtype or x.dtype not in DTYPES:
            total = x + residual
            return F.rms_norm(total, weight.shape, weight, eps), total
        rows, size = x.shape
        args = x.data_ptr(), residual.data_ptr(), x.data_ptr(), rows, size, weight.data_ptr(), eps
        run(x.dtype == torch.float32, *args)
        return x, residual

    return add_rms_norm
