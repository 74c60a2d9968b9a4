"""How late the event loop is: measured in the server itself, while it has requests."""

from __future__ import annotations

import asyncio
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

    def begin(self) -> None:
        if self._timer is None:
            self._next()

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + EVERY, self._look, loop, loop.time() + EVERY)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._timer = None
        self._tell(max(loop.time() - due, 0.0))
        if self._busy:
            self._next()
