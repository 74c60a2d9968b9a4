"""The ops ``rms_norm``, ``add_rms_norm``, ``layer_norm`` and ``add_layer_norm``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.dtypes import CUDA_NAMES, SIZES
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "norm.cu"
MOST_THREADS = 512  # a row
WARP_ROWS = 4  # rows a block, where a warp has a row
SHAPE = tuple[int, int, int]  # elements an access, accesses a thread (0: as many as it takes), threads a row


def shape_of(size: int, dtype: str) -> SHAPE:
    """By the size of a row alone: so its sums have one order, whatever the batch."""
    width = 16 // SIZES[dtype]
    if size % width:
        return 1, 0, min(MOST_THREADS, -(-size // 32) * 32)
    parts = size // width
    for accesses in (1, 2, 4):
        if parts <= MOST_THREADS * accesses:
            return width, accesses, -(-parts // accesses // 32) * 32
    return width, 0, MOST_THREADS


def rms_norm(query: OpQuery) -> Callable[..., Tensor]:
    launch, width = _kernel(query, "rms_norm", "PPPiiillf")
    size, (dtype, weight_dtype) = int(query.shape["size"]), _dtypes(query)  # type: ignore[arg-type]

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if (
            x.dtype is not dtype or weight.dtype is not weight_dtype
        ):  # a layer may norm in another dtype than the model's
            return ops.rms_norm(x, weight, eps)
        x, *where = _rows(x, size, width)
        out = _like(x)
        launch(where[0], x, out, weight, where[0], size, *where[1:], eps)
        return out

    return rms_norm


def add_rms_norm(query: OpQuery) -> Callable[..., tuple[Tensor, Tensor]]:
    launch, width = _kernel(query, "add_rms_norm", "PPPiif")
    size, (dtype, weight_dtype) = int(query.shape["size"]), _dtypes(query)  # type: ignore[arg-type]

    def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        fits = x.dtype is residual.dtype is dtype and weight.dtype is weight_dtype
        if not fits or not _lie_well(x, residual, width):
            return ops.add_rms_norm(x, residual, weight, eps)
        launch(x.shape[0], x, residual, weight, x.shape[0], size, eps)
        return x, residual

    return add_rms_norm


def layer_norm(query: OpQuery) -> Callable[..., Tensor]:
    launch, width = _kernel(query, "layer_norm", "PPPPiiillf")
    size, (dtype, _) = int(query.shape["size"]), _dtypes(query)  # type: ignore[arg-type]

    def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        if x.dtype is not dtype or not _of(dtype, weight, bias):
            return ops.layer_norm(x, weight, bias, eps)
        x, *where = _rows(x, size, width)
        out = _like(x)
        launch(where[0], x, out, weight, bias, where[0], size, *where[1:], eps)
        return out

    return layer_norm


def add_layer_norm(query: OpQuery) -> Callable[..., tuple[Tensor, Tensor]]:
    launch, width = _kernel(query, "add_layer_norm", "PPPPiif")
    size, (dtype, _) = int(query.shape["size"]), _dtypes(query)  # type: ignore[arg-type]

    def add_layer_norm(
        x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        fits = x.dtype is residual.dtype is dtype and _of(dtype, weight, bias)
        if not fits or not _lie_well(x, residual, width):
            return ops.add_layer_norm(x, residual, weight, bias, eps)
        launch(x.shape[0], x, residual, weight, bias, x.shape[0], size, eps)
        return x, residual

    return add_layer_norm


def _kernel(query: OpQuery, name: str, signature: str) -> tuple[Callable[..., None], int]:
    """(``launch(rows, args...)``, elements of an access)."""
    width, accesses, threads = shape_of(int(query.shape["size"]), query.dtype)  # type: ignore[arg-type]
    variant = _variant(query.dtype, _weight(query), name.endswith("layer_norm"), width, accesses)
    kernel = Kernel(FILE, name, signature, variant.defines, dependent=True)

    def launch(rows: int, *args: Any) -> None:
        if threads == 32:  # a warp a row
            kernel(-(-rows // WARP_ROWS), (32, WARP_ROWS), *args)
        else:
            kernel(rows, threads, *args)

    return launch, width


def _weight(query: OpQuery) -> str:
    return str(query.shape.get("weight") or query.dtype)


def _dtypes(query: OpQuery) -> tuple[torch.dtype, torch.dtype]:
    return getattr(torch, query.dtype), getattr(torch, _weight(query))


def _of(dtype: torch.dtype, *tensors: Tensor | None) -> bool:
    return all(tensor is None or (tensor.dtype is dtype and not tensor.data_ptr() % 16) for tensor in tensors)


def _like(x: Tensor) -> Tensor:
    """A contiguous result."""
    return torch.empty_like(x) if x.is_contiguous() else torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _rows(x: Tensor, size: int, width: int) -> tuple[Any, ...]:
    """x itself if the kernel can read it there, else a copy; rows, inner, outer, step of norm.cu."""
    *outer, one = x.stride()
    if one == 1 and (width == 1 or not (x.data_ptr() % 16 or any(stride % width for stride in outer))):
        if len(outer) == 1:
            return x, x.shape[0], 1, outer[0], 0
        if len(outer) == 2:
            return x, x.shape[0] * x.shape[1], x.shape[1], *outer
    x = x.clone(memory_format=torch.contiguous_format)
    return x, x.numel() // size, 1, size, 0


def _lie_well(x: Tensor, residual: Tensor, width: int) -> bool:
    whole = x.is_contiguous() and residual.is_contiguous()
    return whole and (width == 1 or not (x.data_ptr() | residual.data_ptr()) % 16)


def _variant(dtype: str, weight: str, mean: bool, width: int, accesses: int) -> Variant:
    names = ("layer_norm", "add_layer_norm") if mean else ("rms_norm", "add_rms_norm")
    defines = {"TYPE": CUDA_NAMES[dtype], "W_TYPE": CUDA_NAMES[weight], "MEAN": int(mean)}
    return Variant(file=FILE, defines={**defines, "WIDTH": width, "ACCESSES": accesses}, names=names)


def variants() -> list[Variant]:
    found = []
    for dtype in ("bfloat16", "float16", "float32"):
        shapes = [(16 // SIZES[dtype], accesses) for accesses in (1, 2, 4, 0)] + [(1, 0)]
        found += [_variant(dtype, dtype, True, *shape) for shape in shapes]
        for weight in dict.fromkeys((dtype, "float32")):
            found += [_variant(dtype, weight, False, *shape) for shape in shapes]
    return found
