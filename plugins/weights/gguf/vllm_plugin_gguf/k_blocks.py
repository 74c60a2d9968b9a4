"""The K types, 256 numbers a block: Q2_K to Q6_K. Sub-blocks have scales of their own, quantized in turn.

The layouts are those of ggml (ggml-common.h, ggml-quants.c). Each function takes blocks uint8
[B, bytes] and fills out float32 [B, 256], with the operations of ``gguf.quants`` in their order,
so that the results are the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_plugin_gguf.small_blocks import EIGHT, half, shifts


def _shifted(packed: Tensor, width: int, by: tuple[int, ...]) -> Tensor:
    """uint8 [B, n x width] -> [B, n, len(by), width]: each group of bytes once for each shift."""
    return packed.reshape(len(packed), -1, 1, width) >> shifts(by, packed.device).view(-1, 1)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Of Q4_K and Q5_K: 12 bytes hold 8 scales and 8 minima of 6 bits, float32 [B, 8] each.

    The first four of each have a byte, whose two upper bits belong to one of the last four.
    """
    low, middle, mixed = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([low & 63, (mixed & 15) | ((low >> 2) & 48)], -1)
    minima = torch.cat([middle & 63, (mixed >> 4) | ((middle >> 2) & 48)], -1)
    return scales.float(), minima.float()


def _affine(q: Tensor, scales: Tensor, minima: Tensor, out: Tensor) -> None:
    """out = scale x q - minimum; q uint8 [B, parts, numbers], scales and minima [B, parts]."""
    parts = out.view(q.shape)
    parts.copy_(q)
    parts.mul_(scales.unsqueeze(-1)).sub_(minima.unsqueeze(-1))


def q2_k(blocks: Tensor, out: Tensor) -> None:
    """84 bytes: 16 x (scale, minimum) of 4 bits, 256 numbers of 2 bits, scale of scales, scale of minima."""
    small = blocks[:, :16]
    q = _shifted(blocks[:, 16:80], 32, (0, 2, 4, 6)) & 3
    scales, minima = half(blocks, 80) * (small & 15).float(), half(blocks, 82) * (small >> 4).float()
    _affine(q.view(-1, 16, 16), scales, minima, out)


def q3_k(blocks: Tensor, out: Tensor) -> None:
    """110 bytes: 256 third bits, 256 numbers of 2 bits, 16 scales of 6 bits, scale of scales.

    A number stands for 4 less where its third bit is 0; a scale for 32 less.
    """
    low, high = blocks[:, 96:104], blocks[:, 104:108]
    small = (_shifted(low, 8, (0, 4)).flatten(1) & 15) | ((_shifted(high, 4, (0, 2, 4, 6)).flatten(1) & 3) << 4)
    scales = half(blocks, 108) * (small.to(torch.int8) - 32).float()
    third = (_shifted(blocks[:, :32], 32, EIGHT).flatten(1) & 1) ^ 1
    two = _shifted(blocks[:, 32:96], 32, (0, 2, 4, 6)).flatten(1) & 3
    parts = out.view(-1, 16, 16)
    parts.copy_((two.to(torch.int8) - (third << 2).to(torch.int8)).view(-1, 16, 16))
    parts.mul_(scales.unsqueeze(-1))


def q4_k(blocks: Tensor, out: Tensor) -> None:
    """144 bytes: scale of scales, scale of minima, 8 x (scale, minimum) of 6 bits, 256 numbers of 4 bits."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    q = _shifted(blocks[:, 16:], 32, (0, 4)) & 15
    _affine(q.view(-1, 8, 32), half(blocks, 0) * scales, half(blocks, 2) * minima, out)


def q5_k(blocks: Tensor, out: Tensor) -> None:
    """176 bytes: as Q4_K, with 256 fifth bits before the numbers."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    fifth = (_shifted(blocks[:, 16:48], 32, EIGHT).flatten(1) & 1) << 4
    q = fifth | (_shifted(blocks[:, 48:], 32, (0, 4)).flatten(1) & 15)
    _affine(q.view(-1, 8, 32), half(blocks, 0) * scales, half(blocks, 2) * minima, out)


def q6_k(blocks: Tensor, out: Tensor) -> None:
    """210 bytes: 256 numbers of 6 bits as 4 low and 2 high ones, 16 scales of 8 bits, scale of scales.

    A number stands for 32 less.
    """
    low = _shifted(blocks[:, :128], 64, (0, 4)).flatten(1) & 15
    high = (_shifted(blocks[:, 128:192], 32, (0, 2, 4, 6)).flatten(1) & 3) << 4
    scales = half(blocks, 208) * blocks[:, 192:208].contiguous().view(torch.int8).float()
    parts = out.view(-1, 16, 16)
    parts.copy_(((low | high).to(torch.int8) - 32).view(-1, 16, 16))
    parts.mul_(scales.unsqueeze(-1))
