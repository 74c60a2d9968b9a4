"""How long this process has been running."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["seconds_since_start"]

_IMPORTED = time.monotonic()


def seconds_since_start() -> float:
    """Seconds since the operating system started the process; elsewhere than on Linux, since this import."""
    try:
        # Field 22 of stat, counted after the name in parentheses, which may hold spaces: ticks since boot.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError, IndexError):
        return time.monotonic() - _IMPORTED
