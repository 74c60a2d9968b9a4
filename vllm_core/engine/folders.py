"""Temporary folders that do not outlive their owner, however it ends.

Each holds a file that its owner keeps locked, which the system gives free with the process. A folder whose lock
nobody holds belongs to a process that was killed: whoever makes the next one removes it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: nothing is locked there, and nothing swept
    fcntl = None  # type: ignore[assignment]

__all__ = ["OwnedFolder", "sweep"]

PREFIX = "vllm-core-"
LOCK = "lock"
EMPTY_SECONDS = 3600.0  # from then on nobody is about to put something into an empty folder


class OwnedFolder:
    """``path`` is readable by this user only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1
        self._take()

    @classmethod
    def make(cls, kind: str = "") -> OwnedFolder:
        """A new one. The first in a process removes those that killed ones have left."""
        _sweep_once()
        return cls(Path(tempfile.mkdtemp(prefix=PREFIX + kind)))

    def mend(self) -> None:
        """Make it again if a tool that clears temporary folders has removed it."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        if not (self.path / LOCK).exists():
            self._free()
            self._take()

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._free()

    def _take(self) -> None:
        """Locked before it has its name: a file of that name which nobody holds is always of one that has ended."""
        new = self.path / f"{LOCK}.new"
        with contextlib.suppress(OSError):  # a file system without locks, say: then nobody sweeps it either
            self._lock = os.open(new, os.O_RDWR | os.O_CREAT, 0o600)
            if _locked(self._lock):
                new.rename(self.path / LOCK)

    def _free(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def sweep() -> int:
    """Remove the folders of this user whose owners have ended without it. How many. Never raises."""
    swept = 0
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    swept += _sweep(Path(entry.path), entry.stat(follow_symlinks=False))
    return swept


@functools.cache
def _sweep_once() -> int:
    return sweep()


def _sweep(path: Path, found: os.stat_result) -> bool:
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return False
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - found.st_mtime < EMPTY_SECONDS:
            return False
        path.rmdir()  # fails if it is not empty
        return True
    try:
        if not _locked(lock) or not os.path.samestat(os.fstat(lock), os.stat(path / LOCK)):
            return False
        for child in path.iterdir():  # the lock last: what is left if this is broken off can be swept again
            if child.name != LOCK:
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
        (path / LOCK).unlink()
        path.rmdir()
        return True
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    """Whether it is ours now. It is of the open file: processes that this one starts do not hold it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
