"""The op ``rotary``: heads are turned where they lie."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.dtypes import CUDA_NAMES, SIZES
from vllm_kernels.heads import head_width
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "rotary.cu"
THREADS = 256


def rotary(query: OpQuery) -> Callable[..., Tensor]:
    dim, turned = int(query.shape["rotary_dim"]), getattr(torch, query.dtype)  # type: ignore[arg-type]
    pairs = bool(query.shape["interleaved"])
    elements = head_width(dim, dim, pairs)
    kernel = Kernel(FILE, "rotary", "PPPiiiill", _variant(query.dtype, elements, pairs).defines, dependent=True)
    shift = (dim // elements - 1).bit_length()
    bytes_at_once = min(16, elements * SIZES[query.dtype])

    def rotary(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
        tokens, heads, size = x.shape
        token_stride, head_stride, one = x.stride()
        fits = x.dtype == turned and one == 1 and bool(interleaved) == pairs and 2 * cos.shape[1] == dim
        if not fits or token_stride % elements or head_stride % elements or x.data_ptr() % bytes_at_once:
            return ops.rotary(x, cos, sin, interleaved)
        kernel(
            (tokens, -(-(heads << shift) // THREADS)), THREADS,
            x, cos.contiguous(), sin.contiguous(), heads, size, dim // 2, shift, token_stride, head_stride,
        )  # fmt: skip
        return x

    return rotary


def _variant(dtype: str, elements: int, pairs: bool) -> Variant:
    defines = {"TYPE": CUDA_NAMES[dtype], "WIDTH": elements, "INTERLEAVED": int(pairs)}
    return Variant(file=FILE, defines=defines, names=("rotary",))


def variants() -> list[Variant]:
    return [
        _variant(dtype, elements, pairs)
        for dtype in ("bfloat16", "float16", "float32")
        for elements in (8, 4, 2)
        for pairs in (False, True)
    ]
