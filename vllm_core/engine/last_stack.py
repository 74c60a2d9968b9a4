"""What an engine's process was doing when it was killed, crashed or exited: it writes that, and its owner reads it.

In the engine's folder: ``stack`` as `faulthandler` writes it, without a word of Python's, so that it comes even from a
call that never returns; ``owners`` with the plugins that the files in it may belong to.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from vllm_core.plugins.whose import whose

__all__ = ["ask_stack", "keep_stack", "read_stack", "write_owners"]

ASK = signal.SIGUSR1
WAIT = 0.3  # seconds for a stack to be written
_CALL = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$', re.MULTILINE)
_kept: list[Any] = []  # files that faulthandler writes to must stay open


def keep_stack(folder: Path) -> None:
    """In the engine's process: from now on signals, crashes and ``os._exit`` leave a stack."""
    file = folder.joinpath("stack").open("w")
    _kept[:] = [file]
    faulthandler.enable(file)
    faulthandler.register(ASK, file)
    os._exit = _told(os._exit, file)  # type: ignore[assignment]


def write_owners(folder: Path, owners: Mapping[str, str]) -> None:
    """As soon as they are known."""
    folder.joinpath("owners").write_bytes(msgspec.json.encode(dict(owners)))


def ask_stack(folder: Path, pid: int) -> str:
    """As `read_stack`, of a process that does not go on by itself."""
    try:
        os.kill(pid, ASK)
    except ProcessLookupError:
        return read_stack(folder)
    deadline = time.monotonic() + WAIT
    while not (found := read_stack(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def read_stack(folder: Path) -> str:
    """``"; it was in vllm-plugin-x 0.2.0: attend (backend.py, line 12)"``, or "" if it was in no plugin."""
    try:
        calls = list(_CALL.finditer(folder.joinpath("stack").read_text(errors="replace")))
        owners = msgspec.json.decode(folder.joinpath("owners").read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return ""
    for call in calls:
        if owner := whose([call["file"]], owners):
            return f"; it was in {owner}: {call['name']} ({os.path.basename(call['file'])}, line {call['line']})"
    return ""


def _told(leave: Callable[[int], NoReturn], file: Any) -> Callable[[int], NoReturn]:
    mine = os.getpid()

    def leave_with_stack(status: int) -> NoReturn:
        if os.getpid() == mine:  # not a fork of this process
            faulthandler.dump_traceback(file)
        leave(status)

    return leave_with_stack
