"""Products with matrices in blocks.

A `Product` gets the file's own blocks, so that a native kernel that reads them can take the place of
`Tiled` in `product_for`, for the types and devices that it serves.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vllm_plugin_gguf.dequantize import PLAIN, Type, dequantize_into

_TILE = 1 << 18  # numbers dequantized at a time: 1 MiB in float32, which stays in a core's cache


class Product(Protocol):
    def __call__(self, x: Tensor, blocks: Tensor, out: Tensor) -> None:
        """out = x W^T for W in blocks.

        x        [T, in_size]
        blocks   uint8 [rows, blocks of a row, bytes of a block], contiguous
        out      [T, rows], maybe with a stride between rows
        """


class Workspace:
    """The buffer of one engine into which tiles are dequantized, made when it is first used."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def take(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """Uninitialised [rows, columns], of the dtype and on the device of ``like``; the last one is given up."""
        key, needed = (like.dtype, like.device), rows * columns
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < needed:
            buffer = self._buffers[key] = torch.empty(max(needed, _TILE), dtype=like.dtype, device=like.device)
        return buffer[:needed].view(rows, columns)


class Tiled:
    """Dequantizes some rows at a time and multiplies with them, on any device."""

    def __init__(self, kind: Type, workspace: Workspace) -> None:
        self.kind, self.workspace = kind, workspace

    def __call__(self, x: Tensor, blocks: Tensor, out: Tensor) -> None:
        rows, columns = len(blocks), x.shape[-1]
        if PLAIN.get(self.kind) == x.dtype:
            torch.mm(x, blocks.view(x.dtype).view(rows, columns).t(), out=out)
            return
        step = max(1, _TILE // columns)
        for i in range(0, rows, step):
            part = blocks[i : i + step]
            tile = self.workspace.take(len(part), columns, x)
            dequantize_into(part, self.kind, tile)
            torch.mm(x, tile.t(), out=out[:, i : i + step])


def product_for(kind: Type, workspace: Workspace) -> Product:
    """The fastest way here to multiply with blocks of this type."""
    return Tiled(kind, workspace)
