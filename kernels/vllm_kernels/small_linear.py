"""The op ``linear``: few tokens by a kernel that reads the weight once at full speed, more by torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.small_product import product


def linear(query: OpQuery) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    in_size, out_size = query.shape["in_size"], query.shape["out_size"]
    few = product(in_size, out_size, query.dtype, device=torch.cuda.current_device())
    if not few.most:
        return F.linear

    def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if few.takes(x) and weight.is_contiguous() and not weight.data_ptr() % 16:
            return few(x, weight, bias)
        return F.linear(x, weight, bias)

    return multiply
