"""Processes below this one, off /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def below(root: int = 0) -> dict[int, str]:
    """{pid: command line} of all descendants of a process, this one, that have not ended."""
    root = root or os.getpid()
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if state != "Z":
            parents[int(folder.name)] = int(parent)
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: lines[pid] for pid in found - {root}}


def engines() -> set[int]:
    return {pid for pid, line in below().items() if "vllm_core.engine.process" in line}


def comes_true(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.1)
    return what()
