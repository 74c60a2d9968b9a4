"""While a plugin is asked in this process: if it ends the process, somebody has said who it was."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
from collections.abc import Iterator

__all__ = ["witnessed"]


@contextlib.contextmanager
def witnessed(what: str) -> Iterator[None]:
    """``what``: "plugin x (vllm-plugin-x 0.2.0) was asked for sampler", said on standard error should this be the end.

    ``os._exit`` is replaced meanwhile, and a crash leaves Python's stack there, which has the plugin's file on it.
    """
    leave, mine = os._exit, os.getpid()

    def leave_with_a_word(status: int) -> None:
        if os.getpid() == mine:  # not a fork
            os.write(2, f"{what}, and the process was ended with exit code {status} meanwhile\n".encode())
        leave(status)

    armed = False
    if not faulthandler.is_enabled():
        with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):  # standard error is no file here
            faulthandler.enable(sys.stderr)
            armed = True
    os._exit = leave_with_a_word  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = leave
        if armed:
            faulthandler.disable()
