"""The activations of the op table, alone and gated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_core.ops import OPS
from vllm_kernels.dtypes import CUDA_NAMES, SIZES
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "activation.cu"
GATED = {"silu_and_mul": "SILU", "gelu_and_mul": "GELU", "gelu_tanh_and_mul": "GELU_TANH"}
ALONE = {"gelu": "GELU", "gelu_tanh": "GELU_TANH", "relu": "RELU"}


def gated(query: OpQuery) -> Callable[[Tensor], Tensor]:
    """x [T, 2N] -> [T, N]."""
    size, dtype = int(query.shape["size"]), getattr(torch, query.dtype)  # type: ignore[arg-type]
    width = 16 // SIZES[query.dtype]
    width = 1 if size % width else width
    kernel = _kernel(query.dtype, GATED[query.op], width, "act_and_mul", "PPi")
    reference = OPS[query.op].reference
    # A block a part of a row, as long as the row has so many; no shorter than a warp.
    parts = -(-size // width)
    blocks = -(-parts // 256)
    threads = -(-parts // blocks // 32) * 32

    def run(x: Tensor) -> Tensor:
        if x.dtype != dtype or x.dim() != 2:
            return reference(x)
        x = _contiguous(x, width)
        out = torch.empty((x.shape[0], size), dtype=dtype, device=x.device)
        kernel((x.shape[0], blocks), threads, x, out, size)
        return out

    return run


def alone(query: OpQuery) -> Callable[[Tensor], Tensor]:
    """x [T, N] -> [T, N]."""
    size, dtype = int(query.shape["size"]), getattr(torch, query.dtype)  # type: ignore[arg-type]
    width = 16 // SIZES[query.dtype]
    width = 1 if size % width else width
    kernel = _kernel(query.dtype, ALONE[query.op], width, "act_alone", "PPl")
    reference = OPS[query.op].reference

    def run(x: Tensor) -> Tensor:
        if x.dtype != dtype or x.numel() % width:
            return reference(x)
        x = _contiguous(x, width)
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        kernel(-(-x.numel() // (256 * width)), 256, x, out, x.numel())
        return out

    return run


def _contiguous(x: Tensor, width: int) -> Tensor:
    x = x.contiguous()
    return x if width == 1 or not x.data_ptr() % 16 else x.clone()


def _kernel(dtype: str, act: str, width: int, name: str, signature: str) -> Kernel:
    return Kernel(FILE, name, signature, _variant(dtype, act, width).defines, dependent=True)


def _variant(dtype: str, act: str, width: int) -> Variant:
    names = tuple(n for n, acts in (("act_and_mul", GATED), ("act_alone", ALONE)) if act in acts.values())
    return Variant(file=FILE, defines={"TYPE": CUDA_NAMES[dtype], "ACT": act, "WIDTH": width}, names=names)


def variants() -> list[Variant]:
    acts = dict.fromkeys((*GATED.values(), *ALONE.values()))
    return [
        _variant(dtype, act, width)
        for dtype in ("bfloat16", "float16", "float32")
        for act in acts
        for width in (16 // SIZES[dtype], 1)
    ]
