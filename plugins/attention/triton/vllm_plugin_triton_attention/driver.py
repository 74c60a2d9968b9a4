"""The few functions of the CUDA driver that a launch needs, through ctypes: no C compiler, no pointer queries.

Triton's own launcher is compiled by a C compiler for every kernel and asks the driver about every pointer.
"""

from __future__ import annotations

import ctypes
from functools import cache

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_REGISTERS, _LOCAL = 4, 3  # CU_FUNC_ATTRIBUTE_NUM_REGS, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES
PROGRAMMATIC = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
NO_CONTEXT = 201  # CUDA_ERROR_INVALID_CONTEXT
PLAIN_SHARED = 48 * 1024  # bytes that a block may have without asking


class Attribute(ctypes.Structure):
    """CUlaunchAttribute with a number as its value."""

    _fields_ = [("id", ctypes.c_uint), ("pad", ctypes.c_uint), ("value", ctypes.c_int), ("rest", ctypes.c_char * 60)]


class Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        *[(name, ctypes.c_uint) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")],
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("count", ctypes.c_uint),
    ]


@cache
def library() -> ctypes.CDLL:
    # PyDLL keeps the interpreter's lock: a launch takes a microsecond, and its arguments lie in a shared buffer.
    return ctypes.PyDLL("libcuda.so.1")


def check(error: int, what: str) -> None:
    if error:
        name = ctypes.c_char_p()
        library().cuGetErrorString(error, ctypes.byref(name))
        raise RuntimeError(f"{what}: {(name.value or b'unknown error').decode()} (CUDA driver error {error})")


def context() -> ctypes.c_void_p:
    """The current thread's."""
    found = ctypes.c_void_p()
    check(library().cuCtxGetCurrent(ctypes.byref(found)), "asking for the current context")
    return found


def enter(context: ctypes.c_void_p) -> None:
    check(library().cuCtxSetCurrent(context), "making a context current")


def load(cubin: bytes, name: str, shared: int) -> ctypes.c_void_p:
    """The function ``name`` of a module, in the current context, with ``shared`` bytes of shared memory allowed."""
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    check(library().cuModuleLoadData(ctypes.byref(module), cubin), f"loading {name}")
    check(library().cuModuleGetFunction(ctypes.byref(function), module, name.encode()), f"finding {name}")
    allow_shared(function, name, shared)
    return function


def allow_shared(function: ctypes.c_void_p, name: str, shared: int) -> None:
    """Let blocks of ``function`` have ``shared`` bytes."""
    if shared > PLAIN_SHARED:
        done = library().cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED, shared)
        check(done, f"{name}: {shared:,} bytes of shared memory a block")


def usage(function: ctypes.c_void_p) -> tuple[int, int]:
    """Registers a thread, and bytes of local memory: spilled registers and arrays."""
    found = []
    for attribute in (_REGISTERS, _LOCAL):
        value = ctypes.c_int()
        check(library().cuFuncGetAttribute(ctypes.byref(value), attribute, function), "asking for a function's size")
        found.append(value.value)
    return found[0], found[1]
