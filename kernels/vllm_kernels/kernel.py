"""A kernel of a compiled module, ready to launch on torch's current stream, in a captured graph too."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from vllm_kernels.compiler import machine_code

_TYPES = {"P": ctypes.c_void_p, "i": ctypes.c_int32, "l": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double}
_SMEM_LIMIT = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_COOPERATIVE, _PROGRAMMATIC = 2, 6  # CUlaunchAttributeID


class LaunchError(RuntimeError):
    """The driver refused to load or to launch a kernel."""


class Kernel:
    """``kernel(grid, block, args...)``: launches without waiting and without allocating.

    file, name     ``cuda/<file>`` and the ``extern "C"`` function in it
    signature      a letter an argument: P pointer (a tensor or None), i int32, l int64, f float32, d float64
    defines        of this variant: ``{"T": "bf16", "N": 1024}``
    shared         bytes of dynamic shared memory, unless a launch says another number (not more than ``shared``)
    dependent      may start while the kernel before it in the stream still runs, which it waits for by
                   ``wait_for_previous()``; so every kernel whose results it reads must be older than that one or be it.
                   Has an effect from sm_90 on.
    cooperative    all blocks run at the same time or the launch fails
    Not for use by several threads at a time.
    """

    def __init__(
        self,
        file: str,
        name: str,
        signature: str,
        defines: Mapping[str, str | int] | None = None,
        *,
        shared: int = 0,
        dependent: bool = False,
        cooperative: bool = False,
        device: torch.device | int | None = None,
    ) -> None:
        index = torch.device("cuda", torch.cuda.current_device() if device is None else device).index
        with torch.cuda.device(index):
            torch.cuda.current_stream()  # makes the context
            self._function = _function(file, name, arch(index), tuple(sorted((defines or {}).items())), index)
        self.name, self.signature = name, signature
        if shared > 48 * 1024:
            _check(_driver().cuFuncSetAttribute(self._function, _SMEM_LIMIT, shared), f"{name}: {shared} bytes shared")
        self._values = [_TYPES[kind]() for kind in signature]
        self._params = (ctypes.c_void_p * len(signature))(*(ctypes.addressof(v) for v in self._values))
        attributes = []
        if dependent and capability(index) >= (9, 0):
            attributes.append((_PROGRAMMATIC, 1))
        if cooperative:
            attributes.append((_COOPERATIVE, 1))
        self._attributes = (_Attribute * max(1, len(attributes)))()
        for slot, (kind, value) in zip(self._attributes, attributes, strict=False):
            slot.id, slot.value = kind, value
        self._config = _Config(shared=shared, attributes=self._attributes, count=len(attributes))
        self._launch = _driver().cuLaunchKernelEx
        self._config_ref = ctypes.byref(self._config)

    def __call__(
        self, grid: int | tuple[int, ...], block: int | tuple[int, ...], *args: Any, shared: int | None = None
    ) -> None:
        config = self._config
        config.grid[0], config.grid[1], config.grid[2] = (grid, 1, 1) if isinstance(grid, int) else _three(grid)
        config.block[0], config.block[1], config.block[2] = (block, 1, 1) if isinstance(block, int) else _three(block)
        if shared is not None:
            config.shared = shared
        config.stream = torch.cuda.current_stream().cuda_stream
        for slot, value in zip(self._values, args, strict=True):
            slot.value = value.data_ptr() if isinstance(value, torch.Tensor) else value
        error = self._launch(self._config_ref, self._function, self._params, None)
        if error:
            _check(error, f"{self.name}: grid {grid}, block {block}, {config.shared} bytes shared")


class _Attribute(ctypes.Structure):
    # CUlaunchAttribute: an id, padding to 8 bytes, a union of 64 bytes whose first int is what we set.
    _fields_ = [("id", ctypes.c_int), ("_pad", ctypes.c_int), ("value", ctypes.c_int), ("_rest", ctypes.c_byte * 60)]


class _Config(ctypes.Structure):
    # CUlaunchConfig
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    ]


def _three(size: tuple[int, ...]) -> tuple[int, ...]:
    return (*size, 1, 1)[:3]


@cache
def capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@cache
def arch(device: int) -> str:
    """As NVRTC names it: "80", "90a" (with what only this generation has)."""
    major, minor = capability(device)
    return f"{major}{minor}" + ("a" if major >= 9 else "")


@cache
def _function(file: str, name: str, arch: str, defines: tuple[tuple[str, Any], ...], device: int) -> ctypes.c_void_p:
    module = _module(file, arch, defines, device)
    function = ctypes.c_void_p()
    _check(_driver().cuModuleGetFunction(ctypes.byref(function), module, name.encode()), f"{name} in {file}")
    return function


@cache
def _module(file: str, arch: str, defines: tuple[tuple[str, Any], ...], device: int) -> ctypes.c_void_p:
    code = machine_code(file, arch, dict(defines))
    module = ctypes.c_void_p()
    _check(_driver().cuModuleLoadData(ctypes.byref(module), code), f"loading {file}")
    return module


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _check(error: int, what: str) -> None:
    if error:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(error, ctypes.byref(text))
        raise LaunchError(f"{what}: {(text.value or b'unknown error').decode()} (CUDA driver error {error})")
