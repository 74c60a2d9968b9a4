"""The core's own platforms, for which torch needs no plugin: CPU and CUDA."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from typing import Any

import torch

from vllm_core.interfaces.device import Device
from vllm_core.runner import host

GiB = 1 << 30
KNOWN_FLAGS = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16"}
STEP_SECONDS = 0.2  # how long a full step may last, so that streams do not stutter


class CpuPlatform:
    """The host's processor, with all cores this process may use. Contract: interfaces/platform.py."""

    name = "cpu"

    def facts(self) -> Device:
        return Device(
            type="cpu",
            name=platform.processor() or platform.machine(),
            memory=host.usable_memory(),
            features=host.cpu_flags() & KNOWN_FLAGS,
        )

    def dtypes(self) -> tuple[str, ...]:
        """bfloat16 only where the processor multiplies it; float16 is slow and narrow on a CPU."""
        return ("bfloat16", "float32") if self._multiplies_bf16() else ("float32",)

    def token_budget(self, parameters: int) -> int:
        per_core = 150e9 if self._multiplies_bf16() else 50e9  # FLOP/s, a cautious guess
        tokens = STEP_SECONDS * per_core * host.usable_cores() / (2 * max(parameters, 1))
        return min(8192, max(64, 64 * round(tokens / 64)))

    def max_rows(self) -> int:
        return 64

    def cache_memory(self, taken: int) -> int:
        """A quarter of what is free, at most 4 GiB: pages that nobody writes cost no memory."""
        return min(4 * GiB, self.free_memory(0) // 4)

    def world_limit(self) -> int:
        return host.cores()

    def torch_device(self, rank: int) -> torch.device:
        return torch.device("cpu")

    def free_memory(self, rank: int) -> int:
        return host.free_memory()

    def stream(self) -> Any | None:
        return None

    def event(self) -> Any | None:
        return None

    def pinned(self) -> bool:
        return False

    def synchronize(self) -> None:
        """Work is done when a call returns."""

    def _multiplies_bf16(self) -> bool:
        return bool(host.cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


class CudaPlatform:
    """NVIDIA devices. Facts come from the driver's own tool, so that the parent makes no context."""

    name = "cuda"
    memory_share = 0.9  # of a device, for all that a process takes of it

    def facts(self) -> Device:
        rows = _visible_gpus()
        if len(set(rows)) > 1:
            raise RuntimeError(f"the visible CUDA devices differ: {sorted(set(rows))}; set CUDA_VISIBLE_DEVICES")
        name, memory, capability = rows[0]
        major, minor = (int(part) for part in capability.split("."))
        return Device(
            type="cuda",
            name=name,
            count=len(rows),
            memory=int(memory) * (1 << 20),
            capability=(major, minor),
            features=frozenset(["bf16"] if major >= 8 else []),
        )

    def dtypes(self) -> tuple[str, ...]:
        return ("bfloat16", "float16", "float32") if "bf16" in self.facts().features else ("float16", "float32")

    def token_budget(self, parameters: int) -> int:
        tokens = STEP_SECONDS * self._flops() / (2 * max(parameters, 1))
        return min(8192, max(512, 512 * round(tokens / 512)))

    def max_rows(self) -> int:
        return 256

    def cache_memory(self, taken: int) -> int:
        """What the share leaves beside it."""
        return max(0, int(self.facts().memory * self.memory_share) - taken)

    def process_memory(self) -> int:
        """The driver's context (621 MiB on an H200) and the code of libraries and kernels (0.77 GiB with it)."""
        return 800 << 20

    def _flops(self) -> float:
        """FLOP/s of large products in 16 bits, a cautious guess by generation."""
        major = (self.facts().capability or (0, 0))[0]
        return 650e12 if major >= 9 else 250e12 if major == 8 else 50e12

    def world_limit(self) -> int:
        return self.facts().count

    def torch_device(self, rank: int) -> torch.device:
        torch.cuda.set_device(rank)
        return torch.device("cuda", rank)

    def free_memory(self, rank: int) -> int:
        return torch.cuda.mem_get_info(rank)[0]

    def stream(self) -> Any | None:
        return torch.cuda.Stream()

    def event(self) -> Any | None:
        return torch.cuda.Event()

    def pinned(self) -> bool:
        return True

    def synchronize(self) -> None:
        torch.cuda.synchronize()


def _visible_gpus() -> list[tuple[str, str, str]]:
    """(name, memory in MiB, compute capability) of each; ``RuntimeError`` if there is none."""
    return _listed_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))


@cache
def _listed_gpus(visible: str | None) -> list[tuple[str, str, str]]:
    """Asked once a process: the driver's tool takes a good part of a second."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"no CUDA device: nvidia-smi failed ({error}); --device cpu runs without one") from error
    if visible is not None:
        lines = [lines[int(i)] for i in visible.split(",") if i.strip().isdigit() and int(i) < len(lines)]
    if not lines:
        raise RuntimeError("no CUDA device is visible (CUDA_VISIBLE_DEVICES)")
    cells = [[cell.strip() for cell in line.rsplit(",", 2)] for line in lines]
    return [(name, memory, capability) for name, memory, capability in cells]
