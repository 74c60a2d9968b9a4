"""What an engine is doing as its callers see it, and how to wait for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["EngineState"]


class EngineState:
    """``now``: "starting", "ready", "restarting" or "dead". Changed in one event loop, read anywhere."""

    def __init__(self) -> None:
        self.now = "starting"
        self.on_change: Callable[[], None] = _nothing  # called in that loop
        self._waiters: list[asyncio.Future[str]] = []

    def set(self, state: str) -> None:
        if state != self.now:
            self.now = state
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(state)
            self.on_change()

    async def change(self) -> str:
        """Wait for the next state."""
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)


def _nothing() -> None:
    """Nobody else wants to know."""
