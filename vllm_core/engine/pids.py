"""Processes by their id: wait for one that is nobody's child here, end with one's parent, see what threads do."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
from pathlib import Path

import attrs

__all__ = [
    "ThreadState", "die_with_parent", "end_with_pipe", "exists", "has_ended", "is_over", "is_stopped", "obey_pipe",
    "threads_of", "wait_for_end",
]  # fmt: skip

PR_SET_PDEATHSIG = 1  # of prctl
LOOK = 0.25  # seconds between two looks at a process, where the kernel cannot tell of its end
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # a second, in /proc


@attrs.frozen
class ThreadState:
    runnable: bool  # on a processor, waiting for one, or for a disk
    seconds: float  # of processor time so far


def wait_for_end(pid: int, *others: int) -> None:
    """Return when the process has ended, or when one of ``others``, file descriptors, can be read."""
    try:
        descriptor = os.pidfd_open(pid)  # type: ignore[attr-defined]
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # another system, or a kernel without it
        while exists(pid) and not select.select(others, [], [], LOOK)[0]:
            pass
        return
    try:
        select.select([descriptor, *others], [], [])
    finally:
        os.close(descriptor)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends, even if this one can do nothing then."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def obey_pipe(pipe: int) -> None:
    """As ``die_with_parent``, for who does not know its parent's id yet: it has ended if nobody can write any more."""
    die_with_parent(os.getppid())
    if is_over(pipe, 0):
        os._exit(1)


def end_with_pipe(pipe: int) -> None:
    """End this process, whatever it does, once nobody can write to this pipe any more."""

    def wait() -> None:
        is_over(pipe, None)
        os._exit(0)  # in order: nobody wants anything of it

    threading.Thread(target=wait, daemon=True, name="vllm-core-pipe").start()


def is_over(pipe: int, milliseconds: int | None = 0) -> bool:
    """Whether nobody holds the other end of a pipe any more; None waits until it is so."""
    poll = select.poll()
    poll.register(pipe, 0)  # its end alone, not what can be read
    return bool(poll.poll(milliseconds))


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process (not a debugger)."""
    return (fields := _stat(Path(f"/proc/{pid}/stat"))) is not None and fields[0] == "T"


def has_ended(pid: int) -> bool:
    """Whether there is no such process, or only what its parent has not fetched of it. Needs no open file to say so."""
    return not exists(pid) or ((fields := _stat(Path(f"/proc/{pid}/stat"))) is not None and fields[0] in "ZX")


def threads_of(pid: int) -> dict[int, ThreadState] | None:
    """Of a process and of its children and theirs, by thread id; None where the system does not tell."""
    found, pids = {}, [pid]
    for one in pids:
        try:
            names = os.listdir(f"/proc/{one}/task")
        except OSError:
            continue
        for name in names:
            if (fields := _stat(Path(f"/proc/{one}/task/{name}/stat"))) is not None:
                found[int(name)] = ThreadState(fields[0] in "RD", (int(fields[11]) + int(fields[12])) / TICKS)
            with contextlib.suppress(OSError):
                pids += map(int, Path(f"/proc/{one}/task/{name}/children").read_text().split())
    return found or None


def _stat(path: Path) -> list[str] | None:
    """The fields behind the name, which may hold anything: state, parent, ..."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return None


def exists(pid: int) -> bool:
    """Whether there is such a process, ended ones that nobody has waited for included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
