"""What this process may use of its machine: cores and memory, as the scheduler and control groups allow. No torch.

Linux tells all of it in files; ``root`` is where they are looked for. Elsewhere there are no limits to be read.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = [
    "core_limit",
    "cores",
    "cpu_flags",
    "free_memory",
    "memory_limit",
    "total_memory",
    "usable_cores",
    "usable_memory",
]

ROOT = Path("/")
NONE_SET = 1 << 60  # version 1 writes a number of this size where nobody set a limit


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_limit(root: Path = ROOT) -> float | None:
    """Cores' worth of time that its control groups allow: 2.5, say; None: no limit."""
    limits = []
    for folder in _groups(root, "cpu"):
        period: str | None
        quota, period = (*(_read(folder / "cpu.max") or "").split(), None, None)[:2]
        if quota is None:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and quota.isdigit():  # else "max", or -1
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def usable_cores(root: Path = ROOT) -> int:
    """How many threads have a core at a time."""
    limit = core_limit(root)
    return cores() if limit is None else max(1, min(cores(), round(limit)))


def total_memory() -> int:
    """Bytes in the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that its control groups allow; None: no limit."""
    return min((limit for _, limit in _limits(root)), default=None)


def usable_memory(root: Path = ROOT) -> int:
    """Bytes this process could have if nobody else had any."""
    limit = memory_limit(root)
    return total_memory() if limit is None else min(limit, total_memory())


def free_memory(root: Path = ROOT) -> int:
    """Bytes that can still be had without pushing anybody out."""
    free = total_memory() // 2
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    for folder, limit in _limits(root):
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes") or "0"
        # Pages of files that nobody reads any more are counted as used, and given up when memory is asked for.
        idle = dict(line.split() for line in (_read(folder / "memory.stat") or "").splitlines())
        free = min(free, limit - int(used) + int(idle.get("total_inactive_file") or idle.get("inactive_file") or 0))
    return max(0, free)


def cpu_flags(root: Path = ROOT) -> frozenset[str]:
    """What the processor calls its abilities; empty where nobody says."""
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def _limits(root: Path) -> list[tuple[Path, int]]:
    found = []
    for folder in _groups(root, "memory"):
        text = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes") or ""
        if text.isdigit() and int(text) < NONE_SET:
            found.append((folder, int(text)))
    return found


def _groups(root: Path, controller: str) -> list[Path]:
    """Folders of the control groups of this process that can limit ``controller``, the innermost first.

    /proc/self/cgroup has lines ``0::PATH`` (version 2) and ``N:CONTROLLERS:PATH`` (version 1). In a
    container the paths may be the host's, and the container's own group lies at the top.
    """
    found: list[Path] = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        inner = top / path.lstrip("/")
        found += [folder for folder in (inner, *inner.parents) if folder == top or top in folder.parents]
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
