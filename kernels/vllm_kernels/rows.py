"""The ops ``embedding`` and ``copy_pages``: whole rows by number, as bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.dtypes import SIZES
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "rows.cu"
UNITS = {16: "uint4", 4: "u32", 2: "u16", 1: "u8"}  # bytes -> type
WIDE = {torch.int64: 1, torch.int32: 0}  # dtypes of numbers
THREADS = 256


def embedding(query: OpQuery) -> Callable[[Tensor, Tensor], Tensor]:
    size, dtype = int(query.shape["size"]), getattr(torch, query.dtype)  # type: ignore[arg-type]
    unit = unit_of(size * SIZES[query.dtype])
    kernel = _kernel("gather_rows", unit)
    units = size * SIZES[query.dtype] // unit
    blocks = -(-units // THREADS)
    threads = -(-units // blocks // 32) * 32

    def embedding(ids: Tensor, weight: Tensor) -> Tensor:
        fits = weight.dtype == dtype and ids.dtype in WIDE and ids.dim() == 1
        if not fits or not weight.is_contiguous() or weight.data_ptr() % unit:
            return ops.embedding(ids, weight)
        out = torch.empty((ids.shape[0], size), dtype=dtype, device=weight.device)
        kernel((ids.shape[0], blocks), threads, weight, out, ids.contiguous(), WIDE[ids.dtype], units)
        return out

    return embedding


def copy_pages(query: OpQuery) -> Callable[..., None]:
    """Through memory of their own: a page may be read by one copy and written by another."""
    unit = 16  # the size of pages is not known yet; that of others is no multiple
    gather, scatter = _kernel("gather_rows", unit), _kernel("scatter_rows", unit)

    def copy_pages(pages: Tensor, sources: Tensor, targets: Tensor) -> None:
        if not len(sources):
            return
        size = pages[0].numel() * pages.element_size()
        if size % unit or not pages.is_contiguous() or pages.data_ptr() % unit:
            ops.copy_pages(pages, sources, targets)
            return
        units = size // unit
        between = torch.empty((len(sources), *pages.shape[1:]), dtype=pages.dtype, device=pages.device)
        grid = (len(sources), min(64, -(-units // THREADS)))
        gather(grid, THREADS, pages, between, sources.contiguous(), WIDE[sources.dtype], units)
        scatter(grid, THREADS, between, pages, targets.contiguous(), WIDE[targets.dtype], units)

    return copy_pages


def unit_of(size: int) -> int:
    """Bytes at a time of a row of ``size`` bytes."""
    return next(unit for unit in UNITS if size % unit == 0)


@cache
def _kernel(name: str, unit: int) -> Kernel:
    return Kernel(FILE, name, "PPPil", _variant(unit).defines, dependent=True)


def _variant(unit: int) -> Variant:
    return Variant(file=FILE, defines={"UNIT": UNITS[unit]}, names=("gather_rows", "scatter_rows"))


def variants() -> list[Variant]:
    return [_variant(unit) for unit in UNITS]
