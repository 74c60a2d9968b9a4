"""Whether torch could compile a kernel on this machine, found out without torch."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

from vllm_core.interfaces.device import Device


def missing_compiler(device: Device) -> str:
    """What stands in the way; "" if nothing does."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "compiling flex_attention for CUDA needs triton, which is not installed"
        # Triton builds a small launcher in C for each kernel.
        return _lacks("CC", ("gcc", "clang", "cc"), "a C compiler")
    if "avx2" not in device.features:
        return "torch compiles flex_attention only for processors with AVX2"
    return _lacks("CXX", ("g++",), "a C++ compiler")


def _lacks(variable: str, usual: tuple[str, ...], what: str) -> str:
    named = os.environ.get(variable)
    if any(shutil.which(name) for name in ((named,) if named else usual)):
        return ""
    where = f"{named}, which {variable} names, is not there" if named else f"there is no {' or '.join(usual)}"
    return f"compiling flex_attention needs {what}, and {where}"
