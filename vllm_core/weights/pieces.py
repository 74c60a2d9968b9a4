"""Tensors cut into pieces of a few megabytes that go from a file to a device as they are."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

import attrs
import torch

from vllm_core.interfaces.weights import Slices, WeightSource
from vllm_core.weights.transforms import full, run_of

if TYPE_CHECKING:
    from vllm_core.weights.copies import Copy

__all__ = ["CHUNK", "Piece", "pieces"]

CHUNK = 8 << 20
"""Bytes of a piece, at most: long enough that reading it takes far longer than starting to."""

Where = tuple[int | slice, ...]


@attrs.frozen
class Piece:
    """Numbers of one tensor that fill ``copy.target()[where]``."""

    copy: Copy
    where: Where
    shape: tuple[int, ...]
    dtype: torch.dtype  # as stored
    path: str
    start: int  # of the first number, bytes in the file
    nbytes: int
    rectangle: tuple[int, tuple[int, ...], Slices] | None  # the tensor's first byte, shape and this part, if not a run


def pieces(
    copy: Copy, source: WeightSource, chunk: int = CHUNK, kinds: tuple[str, ...] = ("cuda",)
) -> list[Piece] | None:
    """A copy cut up, in order; None if it must go another way: its numbers are rearranged, or are not in a file.

    kinds   of devices for which that is worth while: on a CPU the file's own pages are read
    """
    locate = getattr(source, "locate", None)
    if locate is None or not copy.plain or copy.parameter.device.type not in kinds:
        return None
    info, file = source.tensors()[copy.name], locate(copy.name)
    dtype = getattr(torch, info.dtype, None)
    if file is None or dtype is None or info.nbytes != prod(info.shape) * dtype.itemsize:
        return None
    region = full(copy.slices, info.shape)
    first = run_of(region, info.shape)
    squeezed = region[len(region) - len(copy.wanted) :]  # less the number of a stacked tensor
    found = []
    for where, shape, skipped in _cut(copy.wanted, chunk // dtype.itemsize):
        rectangle = None
        if first is None:
            part = (*region[: len(region) - len(squeezed)], *_part(squeezed, where))
            rectangle = (file.offset, info.shape, part)
            begin = sum(a * prod(info.shape[d + 1 :]) for d, (a, _) in enumerate(part))
        else:
            begin = first + skipped
        at, nbytes = file.offset + begin * dtype.itemsize, prod(shape) * dtype.itemsize
        found.append(Piece(copy, where, shape, dtype, file.path, at, nbytes, rectangle))
    return found


def _cut(shape: tuple[int, ...], limit: int) -> Iterator[tuple[Where, tuple[int, ...], int]]:
    """(where, shape, elements before it) of rectangles of at most ``limit`` elements, each a run of a tensor."""
    if prod(shape) <= limit or not shape:
        yield (), shape, 0
        return
    row = prod(shape[1:])
    if row > limit:
        for i in range(shape[0]):
            for where, part, skipped in _cut(shape[1:], limit):
                yield (i, *where), part, i * row + skipped
        return
    step = limit // row
    for i in range(0, shape[0], step):
        stop = min(i + step, shape[0])
        yield (slice(i, stop),), (stop - i, *shape[1:]), i * row


def _part(region: Slices, where: Where) -> Slices:
    """The part of a region that ``where`` picks."""
    picked = []
    for d, (start, stop) in enumerate(region):
        if d >= len(where):
            picked.append((start, stop))
        elif isinstance(pick := where[d], int):
            picked.append((start + pick, start + pick + 1))
        else:
            picked.append((start + pick.start, start + pick.stop))
    return tuple(picked)
