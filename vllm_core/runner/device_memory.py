"""What a process really has of its device, beside what was planned."""

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = ["check_free", "device_memory"]

GiB = 1 << 30


def device_memory() -> dict[str, int]:
    """Bytes of the current device, now and at their peaks; nothing where none is in use.

    ``taken`` is by all processes; ``outside`` is what this process and others have beside torch's memory.
    """
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    return {
        "total": total,
        "taken": total - free,
        "outside": total - free - reserved,
        "allocated": torch.cuda.memory_allocated(),
        "reserved": reserved,
        "peak_allocated": torch.cuda.max_memory_allocated(),
        "peak_reserved": torch.cuda.max_memory_reserved(),
    }


def check_free(device: torch.device, planned: Mapping[str, int]) -> None:
    """The weights are there: refuse to make a cache that the plan has room for and the device has not.

    planned   bytes by purpose
    """
    if device.type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    needed = sum(planned.values()) - planned.get("weights", 0) - planned.get("process", 0)
    if needed <= free:
        return
    own = torch.cuda.memory_allocated(device) + planned.get("process", 0)
    others = max(0, total - free - own)
    bill = " | ".join(f"{name} {size / GiB:.2f}" for name, size in planned.items() if size)
    raise MemoryError(
        f"{device} has {free / GiB:.2f} GiB free beside the weights, and {needed / GiB:.2f} are needed.\n"
        f"  planned {bill} GiB of {total / GiB:.2f}\n"
        f"  why     about {others / GiB:.2f} GiB are others', or were not foreseen (nvidia-smi shows whose they are)\n"
        f"  instead a lower --gpu-memory-utilization or --kv-cache-memory asks for less"
    )
