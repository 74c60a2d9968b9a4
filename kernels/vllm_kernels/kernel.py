"""A kernel of a compiled module, ready to launch on torch's current stream, in a captured graph too."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cache, partial
from threading import Lock
from typing import Any

import torch

from vllm_kernels.arguments import Arguments
from vllm_kernels.compile_pool import CompilePool
from vllm_kernels.driver import (
    COOPERATIVE,
    NO_CONTEXT,
    PROGRAMMATIC,
    Attribute,
    Config,
    allow_shared,
    check,
    find_function,
    library,
    load_module,
    use_context,
)

PLAIN_SHARED = 48 * 1024  # bytes a block may have without asking
_HEAD = struct.Struct("@7IP")  # the first fields of Config: grid, block, shared, stream


class Kernel:
    """``kernel(grid, block, args...)``: launches without waiting and without allocating.

    Making one starts its compilation in the background; `finish`, or the first launch of any kernel, waits for all.

    file, name     ``cuda/<file>`` and the ``extern "C"`` function in it
    signature      a letter an argument: P pointer (a tensor or None), i int32, l int64, f float32, d float64
    defines        of this variant: ``{"TYPE": "bf16", "WIDTH": 8}``, no names that templates use (T, N); listed by
                   the module's ``variants()``, too
    shared         bytes of dynamic shared memory, unless a launch says another number (not more than ``shared``)
    dependent      may start while the kernel before it in the stream still runs, which it waits for by
                   ``wait_for_previous()``; so every kernel whose results it reads must be older than that one or be it.
                   Has an effect from sm_90 on.
    cooperative    all blocks run at the same time or the launch fails
    device         must be the current one when it is called; default: the current one
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
        self.name, self.signature, self._shared = name, signature, shared
        self._device = _index(device)
        self._function: ctypes.c_void_p | None = None  # not asked for yet
        self._found: Future[ctypes.c_void_p] = Future()
        module = _module(file, arch(self._device), tuple(sorted((defines or {}).items())), self._device)
        module.add_done_callback(partial(_find, self._found, name, file, shared, self._device))
        _unfinished.append(self._found)
        kinds = [PROGRAMMATIC] * (dependent and capability(self._device) >= (9, 0)) + [COOPERATIVE] * cooperative
        self._attributes = (Attribute * max(1, len(kinds)))()
        for slot, kind in zip(self._attributes, kinds, strict=False):
            slot.id, slot.value = kind, 1
        self._config = Config(attributes=self._attributes, count=len(kinds))
        self._config_ref = ctypes.byref(self._config)
        self._arguments = Arguments(signature)
        self._launch, self._stream = library().cuLaunchKernelEx, _current_stream()

    def __call__(
        self, grid: int | tuple[int, ...], block: int | tuple[int, ...], *args: Any, shared: int | None = None
    ) -> None:
        """A grid without blocks launches nothing."""
        gx, gy, gz = (grid, 1, 1) if type(grid) is int else _three(grid)
        bx, by, bz = (block, 1, 1) if type(block) is int else _three(block)
        if not gx * gy * gz:
            return
        if self._function is None:
            self.finish()
        if shared is None:
            shared = self._shared
        _HEAD.pack_into(self._config, 0, gx, gy, gz, bx, by, bz, shared, self._stream(self._device))
        self._arguments.pack(args)
        error = self._launch(self._config_ref, self._function, self._arguments.pointers, None)
        if error == NO_CONTEXT:  # the first that this thread does on the device
            use_context(self._device)
            error = self._launch(self._config_ref, self._function, self._arguments.pointers, None)
        if error:
            check(error, f"{self.name}: grid {grid}, block {block}, {shared} bytes shared")

    def finish(self) -> Kernel:
        """Wait until it can be launched, as the first launch does: for all kernels made so far, so that no later step
        waits for any. Raises what kept one of them from being made."""
        while _unfinished:
            _unfinished.pop().result()
        self._function = self._found.result()
        return self


def _three(size: Any) -> tuple[int, ...]:
    return (*size, 1, 1)[:3]


def _index(device: torch.device | int | None) -> int:
    index = device.index if isinstance(device, torch.device) else device
    return torch.cuda.current_device() if index is None else index


def _current_stream() -> Any:
    """``stream(device) -> int``: torch's own short cut where it is there, at a tenth of the time."""
    fast = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return fast or (lambda device: torch.cuda.current_stream(device).cuda_stream)


@cache
def capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@cache
def arch(device: int) -> str:
    """As NVRTC names it: "80", "90a" (with what only this generation has)."""
    major, minor = capability(device)
    return f"{major}{minor}" + ("a" if major >= 9 else "")


_modules: dict[tuple[Any, ...], Future[ctypes.c_void_p]] = {}
_unfinished: list[Future[ctypes.c_void_p]] = []  # functions of kernels since the last first launch
_most_shared: dict[int, int] = {}  # function -> bytes allowed
_lock = Lock()


@cache
def _pool() -> CompilePool:
    return CompilePool()


def _module(file: str, arch: str, defines: tuple[tuple[str, Any], ...], device: int) -> Future[ctypes.c_void_p]:
    """Compiled and loaded in the background, once."""
    key = file, arch, defines, device
    with _lock:
        if key not in _modules:
            _modules[key] = _pool().submit(file, arch, dict(defines), partial(_load, file, device))
        return _modules[key]


def _load(file: str, device: int, code: bytes) -> ctypes.c_void_p:
    use_context(device)
    return load_module(code, file)


def _find(
    found: Future[ctypes.c_void_p], name: str, file: str, shared: int, device: int, module: Future[ctypes.c_void_p]
) -> None:
    """The module is there, or an error: so is its function."""
    try:
        use_context(device)
        function = find_function(module.result(), name, file)
        with _lock:
            # Never lowered: another `Kernel` may launch the same function with more.
            if shared > _most_shared.get(function.value or 0, PLAIN_SHARED):
                allow_shared(function, shared, name)
                _most_shared[function.value or 0] = shared
        found.set_result(function)
    except BaseException as error:
        found.set_exception(error)
