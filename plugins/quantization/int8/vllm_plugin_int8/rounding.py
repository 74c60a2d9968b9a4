"""Rounding to 8 bits: symmetric, one scale a row."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 127  # -128 is left out, so that zero is in the middle


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [R, N] -> int8 [R, N] and float32 scales [R, 1] with x ~ numbers * scales.

    scale = max |row| / 127; a number is x / scale, to the nearest and of two to the even one. A row of zeros has
    the scale 0.
    """
    if not x.numel():
        return x.to(torch.int8), x.new_zeros(len(x), 1, dtype=torch.float32)
    most = x.abs().amax(-1, keepdim=True).float()  # ten times as fast as a norm on CPUs, which is not vectorised
    scales = most / most.new_full((), MOST)  # by a tensor: CUDA multiplies with 1 / number instead, and is off by a bit
    numbers = (x / scales.masked_fill(scales == 0, 1)).round_()
    return numbers.to(torch.int8), scales
