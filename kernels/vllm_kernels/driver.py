"""The part of the CUDA driver that launches need: records as in cuda.h (CUDA 12 and 13), modules, errors."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
COOPERATIVE, PROGRAMMATIC = 2, 6  # CUlaunchAttributeID


class LaunchError(RuntimeError):
    """The driver refused to load or to launch a kernel."""


class Attribute(ctypes.Structure):
    """CUlaunchAttribute: an id, padding to 8 bytes, a union of 64 bytes whose first int is what we set."""

    _fields_ = [("id", ctypes.c_int), ("_pad", ctypes.c_int), ("value", ctypes.c_int), ("_rest", ctypes.c_byte * 60)]


class Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("count", ctypes.c_uint),
    ]


NO_CONTEXT = 201  # CUDA_ERROR_INVALID_CONTEXT


@cache
def library() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def use_context(index: int) -> None:
    """Make torch's context of this device the calling thread's, which in a new thread has none."""
    check(library().cuCtxSetCurrent(_context(index)), f"entering the context of device {index}")


@cache
def _context(index: int) -> ctypes.c_void_p:
    """The device's primary context, which torch uses; held as long as the process lives."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    check(library().cuInit(0), "starting the driver")
    check(library().cuDeviceGet(ctypes.byref(device), index), f"finding device {index}")
    check(library().cuDevicePrimaryCtxRetain(ctypes.byref(context), device), f"the context of device {index}")
    return context


def check(error: int, what: str) -> None:
    if error:
        text = ctypes.c_char_p()
        library().cuGetErrorString(error, ctypes.byref(text))
        raise LaunchError(f"{what}: {(text.value or b'unknown error').decode()} (CUDA driver error {error})")


def load_module(code: bytes, what: str) -> ctypes.c_void_p:
    """A module of the current context; it lives as long as the process."""
    module = ctypes.c_void_p()
    check(library().cuModuleLoadData(ctypes.byref(module), code), f"loading {what}")
    return module


def find_function(module: ctypes.c_void_p, name: str, file: str) -> ctypes.c_void_p:
    function = ctypes.c_void_p()
    check(library().cuModuleGetFunction(ctypes.byref(function), module, name.encode()), f"{name} in {file}")
    return function


def allow_shared(function: ctypes.c_void_p, count: int, name: str) -> None:
    """Let launches have up to ``count`` bytes of dynamic shared memory."""
    check(library().cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED, count), f"{name}: {count} bytes shared")
