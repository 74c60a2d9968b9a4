"""What SIGTERM and SIGINT do before the event loop runs and after it; while it runs, `drain` has them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["FORCED", "SIGNALS", "Signals", "Terminated"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FORCED = 128  # exit codes above are those of a second signal


class Terminated(BaseException):
    """SIGTERM while the server starts: all that was begun is undone. No ``except Exception`` on the way holds it."""


class Signals:
    """A context manager.

    force   None while the server starts: SIGTERM raises `Terminated`, Ctrl-C as ever. Afterwards what a signal calls,
            so that nothing is waited for any more
    code    exit code of a signal that was a second one
    """

    def __init__(self) -> None:
        self.force: Callable[[], Any] | None = None
        self.code = 0
        self._before: dict[int, Any] = {}
        self._ends = False  # the start, because of a signal

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {sig: signal.signal(sig, self._handle) for sig in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sig, handler in self._before.items():
            signal.signal(sig, handler)

    def _handle(self, sig: int, frame: FrameType | None) -> None:
        if self.force is not None:
            self.code = FORCED + sig
            self.force()
        elif not self._ends:  # what undoes the start is not interrupted, and takes no time
            self._ends = True
            raise KeyboardInterrupt if sig == signal.SIGINT else Terminated
