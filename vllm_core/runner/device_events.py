"""How the host learns that a device is done: by events, if it works beside the host at all.

The CPU does not, and nor does a device of another package whose torch module has no ``Event``: there, what was called
is done when the call returns. Everything else that torch knows, ``torch.cuda``, ``torch.xpu`` or a package's own, does.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

__all__ = ["new_event", "runs_beside"]


@cache
def runs_beside(device: torch.device) -> bool:
    """Whether work on it goes on when a call has returned, and copies from pinned memory with it."""
    return device.type != "cpu" and hasattr(torch.get_device_module(device), "Event")


def new_event(device: torch.device) -> Any:
    """An event of a device that runs beside the host: ``record()``, ``query()``, ``synchronize()``."""
    if device.type == "cuda":
        return torch.cuda.Event(blocking=True)  # a waiting thread sleeps instead of spinning
    return torch.Event(device, blocking=True)
