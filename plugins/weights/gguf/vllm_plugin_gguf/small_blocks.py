"""Types of 32 numbers a block: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

The layouts are those of ggml (ggml-common.h, ggml-quants.c). Each function takes blocks uint8
[B, bytes] and fills out float32 [B, 32], with the operations of ``gguf.quants`` in their order,
so that the results are the same bits.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

EIGHT = tuple(range(8))


def half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte ``at`` of each block, as float32 [B, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


@cache
def shifts(by: tuple[int, ...], device: torch.device) -> Tensor:
    """uint8 [len(by)], made once: on a GPU a new one would have the host wait."""
    return torch.tensor(by, dtype=torch.uint8, device=device)


def bits(packed: Tensor) -> Tensor:
    """uint8 [B, n] -> 0 or 1, uint8 [B, 8 n], the lowest bit of each byte first."""
    return ((packed.unsqueeze(-1) >> shifts(EIGHT, packed.device)) & 1).flatten(1)


def _nibbles(packed: Tensor, out: Tensor) -> None:
    """Low halves of the bytes first, then the high halves."""
    packed = packed.contiguous()  # half again as fast as with a stride
    out[:, :16] = packed & 15
    out[:, 16:] = packed >> 4


def _five_bits(low: Tensor, high: Tensor) -> Tensor:
    """uint8 [B, 32], from 0 to 31."""
    fifth = bits(high) << 4
    fifth[:, :16] |= low & 15
    fifth[:, 16:] |= low >> 4
    return fifth


def q4_0(blocks: Tensor, out: Tensor) -> None:
    """18 bytes: scale, 16 x 2 numbers from 0 to 15 that stand for -8 to 7."""
    _nibbles(blocks[:, 2:], out)
    out.sub_(8).mul_(half(blocks, 0))


def q4_1(blocks: Tensor, out: Tensor) -> None:
    """20 bytes: scale, minimum, 16 x 2 numbers from 0 to 15."""
    _nibbles(blocks[:, 4:], out)
    out.mul_(half(blocks, 0)).add_(half(blocks, 2))


def q5_0(blocks: Tensor, out: Tensor) -> None:
    """22 bytes: scale, 32 fifth bits, 16 x 2 low halves of numbers that stand for -16 to 15."""
    out.copy_(_five_bits(blocks[:, 6:], blocks[:, 2:6]))
    out.sub_(16).mul_(half(blocks, 0))


def q5_1(blocks: Tensor, out: Tensor) -> None:
    """24 bytes: scale, minimum, 32 fifth bits, 16 x 2 low halves of numbers from 0 to 31."""
    out.copy_(_five_bits(blocks[:, 8:], blocks[:, 4:8]))
    out.mul_(half(blocks, 0)).add_(half(blocks, 2))


def q8_0(blocks: Tensor, out: Tensor) -> None:
    """34 bytes: scale, 32 signed bytes."""
    out.copy_(blocks[:, 2:].view(torch.int8))
    out.mul_(half(blocks, 0))
