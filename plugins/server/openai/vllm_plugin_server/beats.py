"""The pulse of each process that speaks HTTP, in the engine's folder, where the one that started them looks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vllm_core.serving import Pulse, Watchdog

__all__ = ["QUIET", "pulse_of", "watchdog_of"]

QUIET = 1.4  # seconds between two turns of an event loop, at most


def _path(engine: Any, pid: int) -> Path:
    return Path(engine.address.removeprefix("ipc://")).parent / f"front-{pid}"


def pulse_of(engine: Any, pid: int) -> Pulse | None:
    """To be written by this process. None where there is no folder: an engine of this process, or one cleared away."""
    if not hasattr(engine, "address"):
        return None
    path = _path(engine, pid)
    try:
        Pulse.create(path)
        return Pulse(path)
    except OSError:
        return None


def watchdog_of(engine: Any, pid: int) -> Watchdog | None:
    """None as long as that process has no pulse."""
    path = _path(engine, pid)
    return Watchdog(path, pid, "a process of --api-server-count") if path.exists() else None
