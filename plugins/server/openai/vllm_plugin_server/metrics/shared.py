"""Several server processes in front of one engine: each counts its own requests, in files that all can read.

This is prometheus_client's multiprocess mode. It is chosen by an environment variable before prometheus_client is
imported, so the parent calls `share` before it starts the others.
"""

from __future__ import annotations

import os
from pathlib import Path

from vllm_core.serving import OwnedFolder

__all__ = ["folder", "gone", "join", "live_pids", "share", "unshare"]

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PIDS = "pids"  # below the folder: a file named after each process that counts


def share() -> OwnedFolder:
    """A new folder, readable by its owner only, that processes started from now on count in."""
    made = OwnedFolder.make("metrics-")
    (made.path / PIDS).mkdir()
    os.environ[VARIABLE] = str(made.path)
    return made


def unshare(made: OwnedFolder) -> None:
    """Nobody counts there any more."""
    if os.environ.get(VARIABLE) == str(made.path):
        del os.environ[VARIABLE]
    made.remove()


def folder() -> Path | None:
    """Where this process counts, if it shares its figures."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def join() -> None:
    """Let the others know that this process is one of them."""
    if (path := folder()) is not None:
        (path / PIDS).mkdir(exist_ok=True)
        (path / PIDS / str(os.getpid())).touch()


def gone(pid: int) -> None:
    """A process has ended: what it held counts no longer, what it has counted does."""
    from prometheus_client.multiprocess import mark_process_dead

    if (path := folder()) is not None:
        mark_process_dead(pid, str(path))
        (path / PIDS / str(pid)).unlink(missing_ok=True)


def live_pids() -> list[int]:
    """Those of all server processes; alone, one's own."""
    path = folder()
    if path is None or not (path / PIDS).is_dir():
        return [os.getpid()]
    pids = sorted(int(entry.name) for entry in (path / PIDS).iterdir())
    return [pid for pid in pids if pid == os.getpid() or Path(f"/proc/{pid}").exists()] or [os.getpid()]
