"""How late the event loop is: measured in the server itself, while it has requests.

What the machine lets it wait for a processor is no work of its own, and does not count (where Linux tells).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sized

__all__ = ["Lag"]

EVERY = 0.01  # seconds between two looks


class Lag:
    """``begin`` with each request; it looks on as long as there are any, so that an idle server sleeps.

    busy   what is open
    tell   is given seconds: how much later than it should a look came
    """

    def __init__(self, busy: Sized, tell: Callable[[float], None]) -> None:
        self._busy, self._tell = busy, tell
        self._timer: asyncio.TimerHandle | None = None
        self._schedule: int | None = None  # a file

    def begin(self) -> None:
        if self._timer is None:
            self._next()

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + EVERY
        self._timer = loop.call_at(due, self._look, loop, due, self._waited())

    def _look(self, loop: asyncio.AbstractEventLoop, due: float, waited: float) -> None:
        self._timer = None
        late = loop.time() - due
        self._tell(max(late - (self._waited() - waited), 0.0))
        if self._busy:
            self._next()

    def _waited(self) -> float:
        """Seconds that this thread has been ready to run, and others ran."""
        if self._schedule is None:
            with contextlib.suppress(OSError):
                self._schedule = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        if self._schedule is None:
            return 0.0
        return int(os.pread(self._schedule, 128, 0).split()[1]) / 1e9
