"""What something left behind: threads, processes, temporary files, open files, shared memory. Linux has it all."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import threading
import time
from pathlib import Path

import attrs

__all__ = ["Traces"]

SHARED = Path("/dev/shm")


@attrs.frozen
class Traces:
    """Of this process and the processes below it, at one moment."""

    threads: frozenset[tuple[int, str]]
    children: frozenset[int]
    files: frozenset[str]  # in the folder for temporary ones
    shared: frozenset[str]  # memory by name
    open: int  # descriptors

    @classmethod
    def now(cls) -> Traces:
        gc.collect()
        temporary = Path(tempfile.gettempdir())
        return cls(
            threads=frozenset((t.ident or 0, t.name) for t in threading.enumerate()),
            children=frozenset(_below(os.getpid())),
            files=frozenset(str(path) for path in temporary.iterdir()),
            shared=frozenset(path.name for path in SHARED.iterdir()) if SHARED.is_dir() else frozenset(),
            open=len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0,
        )

    def left(self, seconds: float) -> list[str]:
        """What is there now beyond this, in words; [] as soon as there is nothing, or after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            now = Traces.now()
            more = now.open - self.open
            found = [
                *(f"the thread {name}" for _, name in sorted(now.threads - self.threads)),
                *(f"the process {pid} ({_command(pid)})" for pid in sorted(now.children - self.children)),
                *(f"the file {path}" for path in sorted(now.files - self.files)),
                *(f"the shared memory {name}" for name in sorted(now.shared - self.shared) if not _elsewhere(name)),
                *([f"{more} open files more than before"] if more > 0 else ()),
            ]
            if not found or time.monotonic() >= deadline:
                return found
            time.sleep(0.05)


def _below(pid: int) -> set[int]:
    """Processes that it has started, and those below them, that have not ended."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
            if state != "Z" or int(parent) == pid:  # one that nobody has waited for is left behind, too
                parents[int(entry.name)] = int(parent)
    found, new = set[int](), {pid}
    while new := {child for child, parent in parents.items() if parent in new} - found:
        found |= new
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80].strip()
    return "ended"


def _elsewhere(name: str) -> bool:
    """Whether a process that is not ours has mapped or opened this memory: then it is that one's."""
    ours = {os.getpid(), *_below(os.getpid())}
    target = str(SHARED / name)
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) in ours:
            continue
        with contextlib.suppress(OSError):
            if target in (entry / "maps").read_text():
                return True
            if any(os.readlink(fd) == target for fd in (entry / "fd").iterdir()):
                return True
    return not (SHARED / name).exists()
