"""Memory that malloc keeps for reuse, given back to the system when an engine falls idle."""

from __future__ import annotations

import ctypes
import sys
import time

__all__ = ["SpareMemory"]

EVERY = 20.0  # seconds between two times, so that an engine of short pauses does nothing else


class SpareMemory:
    """``give_back`` is called with nothing to do. A large step leaves tens of MiB behind, some milliseconds of work."""

    def __init__(self, every: float = EVERY) -> None:
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim = getattr(libc, "malloc_trim", None)  # glibc's; others give back by themselves, or never
        self._every, self._last = every, time.monotonic()

    def give_back(self) -> None:
        now = time.monotonic()
        if self._trim is not None and now - self._last >= self._every:
            self._last = now
            self._trim(0)
