"""Python, vllm-core, and what of the machine this process may use."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator

from vllm_core import __version__
from vllm_core.cli.doctor.finding import Finding
from vllm_core.runner import host

__all__ = ["machine", "size"]

GiB = 1 << 30
PYTHON = (3, 11)  # the oldest that works
LITTLE = GiB  # free memory below which hardly a model runs


def machine() -> Iterator[Finding]:
    version = platform.python_version()
    old = sys.version_info < PYTHON
    yield Finding(
        "machine",
        "Python",
        "fail" if old else "ok",
        f"{version}, {sys.executable}",
        remedy=f"Python {PYTHON[0]}.{PYTHON[1]} or newer" if old else "",
        facts={"version": version, "executable": sys.executable},
    )
    yield Finding("machine", "vllm-core", "ok", __version__, facts={"version": __version__})
    yield Finding(
        "machine", "system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}",
        facts={"system": platform.system(), "machine": platform.machine()},
    )  # fmt: skip
    yield _cores()
    yield _memory()


def _cores() -> Finding:
    there, may, limit = os.cpu_count() or 1, host.cores(), host.core_limit()
    says = f"{may} of {there} may be used"
    if limit is not None and limit < may:
        says += f", for {limit:g} cores' worth of time (control group)"
    return Finding(
        "machine",
        "cores",
        "ok",
        says,
        facts={"present": there, "allowed": may, "limit": limit, "usable": host.usable_cores()},
    )


def _memory() -> Finding:
    total, limit, free = host.total_memory(), host.memory_limit(), host.free_memory()
    says = f"{size(total)}, {size(free)} free"
    if limit is not None and limit < total:
        says = f"{size(limit)} of {size(total)} may be used (control group), {size(free)} free"
    little = free < LITTLE
    return Finding(
        "machine",
        "memory",
        "warn" if little else "ok",
        says,
        remedy="end other programs: most models need more than this" if little else "",
        facts={"total_bytes": total, "limit_bytes": limit, "free_bytes": free},
    )


def size(count: int) -> str:
    """Bytes in words."""
    return f"{count / GiB:,.1f} GiB" if count >= GiB else f"{count / (1 << 20):,.1f} MiB"
