"""All decoder layers as one launch, without a GPU: the kernel's own source with emulated threads (``emulated/``)."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm_kernels import stack
from vllm_kernels.compiler import SOURCES

from kernels.tests.stack_case import HOPPER, assert_as_near_as_composed

pytestmark = pytest.mark.skipif(
    HOPPER or not shutil.which("g++"), reason="needs g++, and is for machines without a Hopper GPU"
)
BLOCKS = 4  # of the emulated device
EMULATED = Path(__file__).parent / "emulated"


class EmulatedKernel:
    """Stands for ``Kernel``: the same source, compiled for the CPU."""

    folder: Path

    def __init__(self, file: str, name: str, signature: str, defines: dict[str, Any], **options: Any) -> None:
        at = self.folder / "-".join(map(str, defines.values()))
        if not at.exists():
            at.mkdir()
            for source in SOURCES.glob("stack*"):
                text = source.read_text().replace("extern __shared__ __align__(128) char memory[];", "")
                (at / source.name).write_text(text)
            for replaced in EMULATED.iterdir():
                shutil.copy(replaced, at)
            flags = ["-O1", "-std=c++17", "-fPIC", "-shared", "-w", *(f"-D{k}={v}" for k, v in defines.items())]
            subprocess.run(["g++", *flags, "run.cpp", "-o", "run.so"], cwd=at, check=True)
        self.run, self.launches = ctypes.CDLL(str(at / "run.so")).run_stack, 0

    def __call__(self, grid: int, block: int, *args: Any) -> None:
        pointers = [ctypes.c_void_p(a.data_ptr() if a is not None else None) for a in args[:12]]
        strides = (ctypes.c_int64 * 6)(*args[15:21])
        self.launches += 1
        failed = self.run(grid, self.launches, *pointers, *args[12:15], strides, *map(ctypes.c_float, args[21:]))
        assert not failed, ("", "the emulated threads wait for each other", "copies were left")[failed]


@pytest.fixture
def emulation(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "emulated-kernels"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(EmulatedKernel, "folder", folder, raising=False)
    monkeypatch.setattr(stack, "Kernel", EmulatedKernel)
    properties = SimpleNamespace(multi_processor_count=BLOCKS)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


@pytest.mark.parametrize(
    ("contexts", "options"),
    [
        ([40], {"layers": 2, "hidden": 288, "qk_norm": True}),
        ([0, 200, 15], {"bias": True, "layout": "HND"}),
        ([130, 16, 1, 0, 31], {"head_dim": 64, "heads": 6, "kv_heads": 2, "hidden": 288}),
    ],
)
def test_emulated_threads_give_what_composed_layers_give(emulation, contexts, options):
    assert_as_near_as_composed(contexts, steps=1, **{"layers": 1, **options})
