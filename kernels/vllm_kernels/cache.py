"""The op ``write_kv``: keys and values to their pages, in the pages' dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.dtypes import CUDA_NAMES, KV_NAMES, SIZES
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "write_kv.cu"
THREADS = 256


def write_kv(query: OpQuery) -> Callable[..., None]:
    shape = query.shape
    kv_heads, k_dim, v_dim = (int(shape[name]) for name in ("num_kv_heads", "k_dim", "v_dim"))  # type: ignore[arg-type]
    kv_dtype = str(shape.get("kv_dtype") or query.dtype)
    elements = access(query.dtype, kv_dtype, k_dim, v_dim)
    kernel = Kernel(
        FILE, "write_kv", "PPPPPiiiillllllllll", _variant(query.dtype, kv_dtype, elements).defines, dependent=True
    )
    dtypes = getattr(torch, query.dtype), getattr(torch, kv_dtype)
    blocks = -(-kv_heads * ((k_dim + v_dim) // elements) // THREADS)

    def write_kv(k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor, head_axis: int = 2) -> None:
        fits = (k.dtype, k_pages.dtype) == dtypes and all(lies_well(one, elements) for one in (k, v, k_pages, v_pages))
        if not fits:
            ops.write_kv(k, v, k_pages, v_pages, slots, head_axis)
            return
        place, head = (1, 2) if head_axis == 2 else (2, 1)
        a, b = k_pages.stride(), v_pages.stride()
        kernel(
            (k.shape[0], blocks), THREADS,
            k, v, k_pages, v_pages, slots, kv_heads, k_dim, v_dim, k_pages.shape[place],
            k.stride(0), k.stride(1), v.stride(0), v.stride(1), a[0], a[place], a[head], b[0], b[place], b[head],
        )  # fmt: skip

    return write_kv


def access(dtype: str, kv_dtype: str, *dims: int) -> int:
    """Elements that are read and written at a time."""
    most = 16 // max(SIZES[dtype], SIZES[kv_dtype])
    return most if all(dim % most == 0 for dim in dims) else 1


def lies_well(x: Tensor, elements: int) -> bool:
    """Whether each run of ``elements`` begins where it can be read at once."""
    *strides, one = x.stride()
    return one == 1 and not x.data_ptr() % (elements * x.element_size()) and not any(s % elements for s in strides)


def _variant(dtype: str, kv_dtype: str, elements: int) -> Variant:
    defines = {"TYPE": CUDA_NAMES[dtype], "KV_TYPE": KV_NAMES[kv_dtype], "WIDTH": elements}
    return Variant(file=FILE, defines=defines, names=("write_kv",))


def variants() -> list[Variant]:
    return [
        _variant(dtype, kv_dtype, elements)
        for dtype in ("bfloat16", "float16", "float32")
        for kv_dtype in (dtype, "float8_e4m3fn")
        for elements in dict.fromkeys((access(dtype, kv_dtype, 128), 1))
    ]
