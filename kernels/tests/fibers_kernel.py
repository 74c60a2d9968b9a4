"""A stand-in for `kernel.Kernel`: the kernel's own source on the CPU, its threads as fibers (``fibers/fibers.h``)."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from vllm_kernels.compiler import SOURCES

HEADER = Path(__file__).parent / "fibers" / "fibers.h"
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fpermissive", "-w", "-ffp-contract=off"]
_TYPES = {"P": ctypes.c_void_p, "i": ctypes.c_int, "l": ctypes.c_longlong}
# Instructions of the GPU, by what they begin with, and what is as good here.
_INSTRUCTIONS = {
    "ex2.approx.ftz.f32": "y = exp2f(x);",
    "cvt.f32.f16": "y = f16_as_float(x.bits);",
    "cvt.rn.bf16.f32": "y.bits = float_as_bf16(x);",
    "cvt.rn.f16.f32": "y.bits = float_as_f16(x);",
}


class FibersKernel:
    def __init__(self, file: str, name: str, signature: str, defines: Any = None, *, shared: int = 0, **options: Any):
        assert not defines
        self._run = getattr(_library(file), f"run_{name}")
        self._run.argtypes = [*[ctypes.c_int] * 3, ctypes.c_size_t, *(_TYPES[letter] for letter in signature)]
        self._run.restype = ctypes.c_bool
        self._name, self._shared = name, shared

    def __call__(self, grid: Any, block: int, *args: Any, shared: int | None = None) -> None:
        x, y = (grid, 1) if isinstance(grid, int) else grid
        values = [value.data_ptr() if isinstance(value, torch.Tensor) else value for value in args]
        if x * y:
            ended = self._run(x, y, block, self._shared if shared is None else shared, *values)
            assert ended, f"{self._name}: threads of a block wait for each other for ever"


@cache
def _library(file: str) -> ctypes.CDLL:
    folder = Path(tempfile.mkdtemp(prefix="fibers-"))
    (folder / "kernel.cpp").write_text(f'#include "{HEADER}"\n{_translated(file)}')
    made = subprocess.run(
        ["g++", *FLAGS, str(folder / "kernel.cpp"), "-o", str(folder / "kernel.so")], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[:4000]
    return ctypes.CDLL(str(folder / "kernel.so"))


def _translated(file: str) -> str:
    source = _with_includes(file, set())
    source = re.sub(r"extern __shared__ (\w+) (\w+)\[\];", r"\1* \2 = reinterpret_cast<\1*>(dynamic_shared);", source)
    source = re.sub(r'asm(?: volatile)?\(\s*"([\w.:]+)[\s\S]*?\);', _instruction, source)
    kernels = re.findall(r'extern "C" __global__ void\s*(?:__launch_bounds__\([^)]*\))?\s*(\w+)\(([^)]*)\)', source)
    source = source.replace('extern "C" __global__ void', "static void")
    for name, parameters in kernels:
        types = [re.sub(r"\w+$", "", part.strip()) for part in parameters.split(",")]
        declared = ", ".join(f"{of} a{i}" for i, of in enumerate(types))
        given = ", ".join(f"a{i}" for i in range(len(types)))
        source += (
            f'\nextern "C" bool run_{name}(int x, int y, int threads, size_t shared, {declared}) '
            f"{{ return run_grid(x, y, threads, shared, [=] {{ {name}({given}); }}); }}"
        )
    return source


def _instruction(match: re.Match[str]) -> str:
    return _INSTRUCTIONS.get(match[1], "abort();")


def _with_includes(file: str, seen: set[str]) -> str:
    if file in seen:
        return ""
    seen.add(file)
    source = (SOURCES / file).read_text().replace("#pragma once", "")
    return re.sub(r'^#include "([^"]+)"', lambda m: _with_includes(m[1], seen), source, flags=re.MULTILINE)
