"""A stand-in for `kernel.Kernel` that needs no GPU: it checks what is launched against the source."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from vllm_kernels import activation, cache, norm, qk, rotary, rows
from vllm_kernels.arguments import Arguments
from vllm_kernels.compiler import SOURCES

_LETTERS = {"int": "i", "i64": "l", "float": "f", "double": "d", "u32": "i", "u64": "l"}


def parameters(file: str, name: str) -> str:
    """The letters of a signature, read off ``extern "C" __global__ ... name(...)``."""
    source = re.sub(r"//[^\n]*", "", (SOURCES / file).read_text()).replace("\\\n", "")
    source = source.replace("(PARAMETERS)", f"({''.join(re.findall(r'#define PARAMETERS (.*)', source))})")
    found = re.search(rf'extern "C" __global__[^;{{]*?\b{name}\(([^)]*)\)\s*\{{', source)
    assert found, f"{file} has no kernel {name}"
    letters = []
    for parameter in found[1].split(","):
        words = parameter.replace("*", " * ").split()
        letters.append("P" if "*" in words else _LETTERS[words[words[0] == "const"]])
    return "".join(letters)


class PretendKernel:
    """Packs the arguments and remembers the launch in ``launches``: (name, grid, block, values)."""

    launches: list[tuple[str, Any, Any, tuple[Any, ...]]] = []
    made: list[tuple[str, str, dict[str, Any]]] = []

    def __init__(self, file: str, name: str, signature: str, defines: Any = None, **options: Any) -> None:
        assert signature == parameters(file, name), f"{name} in {file} takes {parameters(file, name)}, not {signature}"
        assert options == {"dependent": True}
        self.name, self.signature = name, signature
        self.made.append((file, name, dict(defines)))

    def __call__(self, grid: Any, block: Any, *args: Any) -> None:
        assert len(args) == len(self.signature)
        for letter, value in zip(self.signature, args, strict=True):
            assert (value is None or isinstance(value, torch.Tensor)) == (letter == "P"), (self.name, letter, value)
        Arguments(self.signature).pack(args)
        self.launches.append((self.name, grid, block, args))


@pytest.fixture(scope="session")
def nvrtc():
    """CuPy's binding; only where CUDA sources can be compiled, which needs no GPU."""
    module = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="CuPy is not installed", exc_type=ImportError)
    try:
        module.getVersion()
    except Exception as error:
        pytest.skip(f"CuPy finds no NVRTC: {error}")
    return module


@pytest.fixture
def gpu():
    """Only where kernels run; then tensors are made there."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs a CUDA device of compute capability 8.0 or newer")
    with torch.device("cuda"):
        yield


@pytest.fixture
def pretend(monkeypatch):
    for module in (activation, cache, norm, qk, rotary, rows):
        monkeypatch.setattr(module, "Kernel", PretendKernel)
    rows._kernel.cache_clear()
    monkeypatch.setattr(PretendKernel, "launches", [])
    monkeypatch.setattr(PretendKernel, "made", [])
    yield PretendKernel
    rows._kernel.cache_clear()
