"""Products with 8-bit integers, each through the fastest op that was found exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows up to which the packed op is faster than unpacking: with 576 x 1536 weights on one core of an EPYC with AVX512,
# 23 us against 346 for 1 row, 188 against 215 for 16, 282 against 242 for 24.
FEW = 16
PIECE = {"cpu": 1 << 20, "cuda": 1 << 26}  # weights unpacked at a time
UNIT = 8  # torch._int_mm on CUDA takes inputs and outputs in multiples of it,
LEAST = 32  # and no fewer than 17 rows

Product = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x [T, in], weight int8 [out, in], scales float32 [out, 1]) -> [T, out]."""


def integers(x: Tensor, weight: Tensor) -> Tensor:
    """x int8 [T, in], weight int8 [out, in] -> int32 [T, out], exact."""
    if x.device.type != "cuda":
        return torch._int_mm(x, weight.t())
    tokens, out = len(x), len(weight)
    rows, columns, inputs = max(0, LEAST - tokens), -out % UNIT, -x.shape[1] % UNIT
    if rows or inputs:
        x = F.pad(x, (0, inputs, 0, rows))
    if columns or inputs:
        weight = F.pad(weight, (0, inputs, 0, columns))
    return torch._int_mm(x, weight.t())[:tokens, :out]


def unpacking(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """A part of the weight is made dense at a time."""
    step = max(1, PIECE[x.device.type] // weight.shape[1])
    parts = zip(weight.split(step), scales.split(step), strict=True)
    if x.dtype == torch.float16:  # sums of what is not scaled would leave its range
        made = [F.linear(x, (part * scale).to(x.dtype)) for part, scale in parts]
    else:
        made = [F.linear(x, part.to(x.dtype)) * scale.t() for part, scale in parts]
    return made[0] if len(made) == 1 else torch.cat(made, -1)


def product_of(device: torch.device, dtype: torch.dtype, in_size: int) -> Product:
    """The fastest product of activations with 8-bit weights."""
    # The packed op reads 32 inputs at a time, past the end of a row that is no multiple of it; in float32 it is slow.
    if device.type != "cpu" or dtype != torch.bfloat16 or in_size % 32 or not packed_op_works():
        return unpacking
    ones: dict[int, Tensor] = {}

    def product(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
        if len(x) > FEW:
            return unpacking(x, weight, scales)
        if (one := ones.get(len(weight))) is None:
            one = ones[len(weight)] = torch.ones(len(weight), dtype=dtype)  # its own scales would be bfloat16
        return torch._weight_int8pack_mm(x.contiguous(), weight, one) * scales.t()

    return product


@cache
def packed_op_works() -> bool:
    """torch._weight_int8pack_mm is there, and right where all sums are small whole numbers."""
    weight = (torch.arange(9 * 64).view(9, 64) % 7 - 3).to(torch.int8)
    x = (torch.arange(3 * 64).view(3, 64) % 3 - 1).to(torch.bfloat16)
    try:
        got = torch._weight_int8pack_mm(x, weight, torch.ones(9, dtype=torch.bfloat16))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return torch.equal(got.float(), x.float() @ weight.float().T)


@cache
def inexact_on_cpu() -> str:
    """Why integer products cannot be used on this processor; "" if they can.

    Numbers are as large as they become: some instructions add pairs of products in 16 bits, and lose what is above.
    """
    x = torch.full((5, 96), 127, dtype=torch.int8)
    x[1], x[2, ::2] = -127, -128
    weight = torch.full((7, 96), -127, dtype=torch.int8)
    weight[1], weight[2, ::2] = 127, -128
    try:
        got = integers(x, weight)
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        return f"this torch multiplies no 8-bit integers on this processor: {error}"
    if not torch.equal(got.long(), x.long() @ weight.long().T):
        return "products of 8-bit integers come out wrong on this processor"
    return ""
