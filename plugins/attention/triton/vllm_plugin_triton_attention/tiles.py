"""Sizes of tiles: what fits a multiprocessor, and what was fastest where it was measured (an H200)."""

from __future__ import annotations

import attrs

SPAN = 256  # sequences that a program looks through at a time
PARTS = 64  # of a sequence that are added up at a time


@attrs.frozen
class Tile:
    rows: int  # queries x heads of a KV head
    keys: int
    warps: int
    stages: int  # tiles of keys on their way at a time, and the one that is used
    registers: int | None = None  # a thread, at most

    def options(self) -> dict[str, int | None]:
        return {"warps": self.warps, "stages": self.stages, "registers": self.registers}


def padded(size: int, least: int = 16) -> int:
    """The next power of two: what tl.arange counts to; products need 16 at least."""
    return max(least, 1 << (size - 1).bit_length())


def decode_tile(rows: int, dim: int, itemsize: int, arch: int) -> Tile:
    """``dim`` padded, the larger of keys' and values'; ``itemsize`` of the cache or the queries, bytes."""
    large = rows * dim > 64 * 128
    if itemsize == 4:
        return Tile(rows, 16, 8 if large else 4, 2)
    if rows == 16 and dim == 128 and arch == 90:
        return Tile(rows, 64, 4, 5, 168)  # three programs fit a multiprocessor
    return Tile(rows, max(16, min(64, 8192 // dim)), 8 if large else 4, 5)


def prefill_tile(rows: int, dim: int, itemsize: int, arch: int) -> Tile:
    if itemsize == 4:
        return Tile(max(rows, 32), 16, 8, 1)
    if dim > 128:
        return Tile(max(rows, 64), 32, 8, 3)
    if arch < 90:  # 64 keys would not fit the registers
        return Tile(max(rows, 128), 32, 8, 5 if arch == 80 else 3)
    if arch == 90:
        return Tile(max(rows, 128), 64, 8, 3, 128)  # two programs a multiprocessor: worth the few registers it spills
    return Tile(max(rows, 128), 64, 8, 3)


def copied_tile(rows: int) -> Tile:
    """Of `prefill_copied`; ``rows``: the least, heads of a KV head."""
    return Tile(max(rows, 64), 64, 4, 5)
