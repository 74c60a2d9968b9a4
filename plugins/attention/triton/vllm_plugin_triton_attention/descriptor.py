"""Descriptors of tensors for the copy engine (TMA), made on the host once a tensor."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vllm_plugin_triton_attention import driver

_BYTES = 128  # CUtensorMap, at an address that is a multiple of 64
_ON_HOST = {8: 10, 9: 8, 10: 9}  # element types that the driver numbers otherwise than the device
_PROMOTE_128 = 2  # CU_TENSOR_MAP_L2_PROMOTION_L2_128B


class Maker:
    """``maker(tensor, shape, strides)``: a descriptor's address; the memory lives as long as the maker.

    meta   what Triton noted when it compiled: the tile, its swizzle, the type of elements
    """

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.meta = meta
        self._kept: dict[tuple[int, ...], tuple[int, Any]] = {}

    def __call__(self, tensor: Tensor, shape: Sequence[int], strides: Sequence[int]) -> int:
        """shape, strides   in elements, the last stride 1."""
        key = (tensor.data_ptr(), *shape, *strides)
        if key not in self._kept:
            self._kept[key] = self._make(tensor.data_ptr(), shape, strides)
        return self._kept[key][0]

    def _make(self, address: int, shape: Sequence[int], strides: Sequence[int]) -> tuple[int, Any]:
        memory = ctypes.create_string_buffer(_BYTES + 64)
        at = -(-ctypes.addressof(memory) // 64) * 64
        rank, size, kind = len(shape), self.meta["elem_size"], self.meta["elem_type"]
        # The driver counts dimensions from the innermost.
        sizes = (ctypes.c_uint64 * rank)(*reversed(shape))
        steps = (ctypes.c_uint64 * rank)(*(stride * size for stride in reversed(strides[:-1])))
        box = (ctypes.c_uint32 * rank)(*reversed(self.meta["block_size"]))
        ones = (ctypes.c_uint32 * rank)(*[1] * rank)
        error = driver.library().cuTensorMapEncodeTiled(
            ctypes.c_void_p(at), _ON_HOST.get(kind, kind), rank, ctypes.c_void_p(address), sizes, steps, box, ones,
            0, self.meta["swizzle"], _PROMOTE_128, 0,
        )  # fmt: skip
        driver.check(error, f"describing {list(shape)} at strides {list(strides)} in tiles {self.meta['block_size']}")
        return at, memory
