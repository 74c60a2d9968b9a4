"""How memory grows while an engine works: a sample each second, and the straight line through them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from vllm_core.cli.bench.peers.measure import tree

__all__ = ["Line", "MemorySamples", "fit_line", "resident"]


@attrs.frozen
class Line:
    """The least-squares line through points: units of y for one of x, and its standard error."""

    slope: float
    error: float
    points: int


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """None of fewer than three points, or of points that are all at one place."""
    n = len(x)
    if n < 3:
        return None
    mean_x, mean_y = sum(x) / n, sum(y) / n
    spread = sum((a - mean_x) ** 2 for a in x)
    if not spread:
        return None
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    left = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return Line(slope, (left / (n - 2) / spread) ** 0.5, n)


def resident() -> int:
    """Bytes of memory that this process and all below it have now; 0 where the system does not tell."""
    pages = 0
    try:
        for pid in tree():
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except (OSError, ValueError, IndexError):
                continue  # it has ended
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc
        return 0


class MemorySamples:
    """Samples memory in a thread of its own, from the beginning of the block to its end.

    samples   [{"seconds", "resident_bytes", on CUDA torch's "device_allocated_bytes" and "device_reserved_bytes"
              of this process, and "device_used_by_all_bytes"}, ...]
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.samples: list[dict[str, float]] = []
        self._interval, self._over = interval, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-samples", daemon=True)
        self._begin = 0.0
        self._device: int | None = None

    def __enter__(self) -> Self:
        import torch

        self._device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        self._begin = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def growth(self, warm_up: float) -> dict[str, Any]:
        """Of every kind of memory: bytes a minute after the first ``warm_up`` seconds, and the window of the fit."""
        after = [sample for sample in self.samples if sample["seconds"] >= warm_up]
        found: dict[str, Any] = {}
        for kind in (key for key in (after[0] if after else {}) if key != "seconds"):
            values = [sample[kind] for sample in after]
            line = fit_line([sample["seconds"] / 60 for sample in after], values)
            found[kind] = {
                "bytes_per_minute": line and line.slope,
                "standard_error": line and line.error,
                "window_seconds": [after[0]["seconds"], after[-1]["seconds"]],
                "samples": len(after),
                "first": values[0], "last": values[-1], "least": min(values), "most": max(values),
            }  # fmt: skip
        return found

    def _watch(self) -> None:
        while True:
            self.samples.append(self._sample())
            if self._over.wait(self._interval):
                self.samples.append(self._sample())
                return

    def _sample(self) -> dict[str, float]:
        found: dict[str, float] = {"seconds": time.monotonic() - self._begin, "resident_bytes": resident()}
        if self._device is not None:
            import torch

            found["device_allocated_bytes"] = torch.cuda.memory_allocated(self._device)
            found["device_reserved_bytes"] = torch.cuda.memory_reserved(self._device)
            free, total = torch.cuda.mem_get_info(self._device)
            found["device_used_by_all_bytes"] = total - free  # the driver tells no process's share
        return found
