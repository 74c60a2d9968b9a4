"""The core's own platforms, for which torch needs no plugin: CPU and CUDA."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from vllm_core.interfaces.device import Device

GiB = 1 << 30
STEP_SECONDS = 0.2  # how long a full step may last, so that streams do not stutter


class CpuPlatform:
    """The host's processor, with all cores this process may use."""

    def facts(self) -> Device:
        return Device(
            type="cpu",
            name=platform.processor() or platform.machine(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            features=frozenset(_cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16"}),
        )

    def torch_device(self, rank: int) -> str:
        return "cpu"

    def dtype(self, checkpoint_dtype: str) -> str:
        """bfloat16 where the processor multiplies it, else float32; float16 is slow and narrow on a CPU."""
        return "bfloat16" if checkpoint_dtype == "bfloat16" and self._multiplies_bf16() else "float32"

    def default_step_tokens(self, parameters: int) -> int:
        per_core = 150e9 if self._multiplies_bf16() else 50e9  # FLOP/s, a cautious guess
        tokens = STEP_SECONDS * per_core * _cores() / (2 * max(parameters, 1))
        return min(8192, max(64, 64 * round(tokens / 64)))

    def default_cache_bytes(self, weight_bytes: int) -> int:
        """A quarter of what is free, at most 4 GiB: pages that nobody writes cost no memory."""
        return min(4 * GiB, _free_memory() // 4)

    def _multiplies_bf16(self) -> bool:
        return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


class CudaPlatform:
    """NVIDIA devices. Facts come from the driver's own tool, so that no context is made here."""

    memory_share = 0.9  # of a device, for weights, cache and activations

    def facts(self) -> Device:
        query = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
        try:
            rows = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
        except (OSError, subprocess.SubprocessError) as error:
            raise RuntimeError(f"no CUDA device: nvidia-smi failed ({error})") from error
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            rows = [rows[int(i)] for i in visible.split(",") if i.strip().isdigit() and int(i) < len(rows)]
        if not rows:
            raise RuntimeError("no CUDA device is visible (CUDA_VISIBLE_DEVICES)")
        name, memory, capability = (cell.strip() for cell in rows[0].rsplit(",", 2))
        major, minor = capability.split(".")
        features = {"bf16"} if int(major) >= 8 else set()
        return Device(
            type="cuda",
            name=name,
            count=len(rows),
            memory=int(memory) * (1 << 20),
            capability=(int(major), int(minor)),
            features=frozenset(features),
        )

    def torch_device(self, rank: int) -> str:
        return f"cuda:{rank}"

    def dtype(self, checkpoint_dtype: str) -> str:
        """As the checkpoint, float32 narrowed; float16 where the device has no bfloat16."""
        if checkpoint_dtype == "float16":
            return "float16"
        return "bfloat16" if "bf16" in self.facts().features else "float16"

    def default_step_tokens(self, parameters: int) -> int:
        tokens = STEP_SECONDS * 300e12 / (2 * max(parameters, 1))
        return min(8192, max(512, 512 * round(tokens / 512)))

    def default_cache_bytes(self, weight_bytes: int) -> int:
        """What the share leaves beside the weights, less a tenth for activations."""
        return max(0, int(self.facts().memory * self.memory_share * 0.9) - weight_bytes)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_flags() -> set[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.split(":", 1)[1].split())
    except OSError:
        pass  # not Linux: no flags known, float32 it is
    return set()


def _free_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
