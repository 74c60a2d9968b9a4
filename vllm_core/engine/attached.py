"""An engine in another process, as the fronts of it have it: a link, a state, and an eye on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

from vllm_core.engine import wire
from vllm_core.engine.home import Home
from vllm_core.engine.link import Link
from vllm_core.engine.state import EngineState
from vllm_core.engine.watchdog import INTERVAL, Watchdog

__all__ = ["Attached", "Customer", "call_in"]


class Customer(Protocol):
    """Who has requests."""

    def lost(self, cause: str, back: bool) -> None:
        """The engine has ended; ``back``: another one is on its way."""

    def back(self, link: Link) -> None:
        """The other one is ready."""

    def read(self, message: wire.Up) -> None:
        """From the present one."""

    def open_requests(self) -> list[str]: ...


class Attached:
    """``link`` and ``ready`` are of the present engine; ``attend`` begins to look after it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.state = EngineState()
        self.stuck = ""  # why it does not go on
        self.ending = False  # its process is gone, and what it said last may be on its way
        self.title = ""  # before what is said of it, among several
        self.link: Link
        self.ready: wire.Ready
        self.since = time.monotonic()  # of the last change of state
        self._loop: asyncio.AbstractEventLoop | None = None
        self._customer: Customer | None = None
        self._tick: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        """Of the present engine, or of the last one."""
        return self.ready.pid

    def attend(self, loop: asyncio.AbstractEventLoop, customer: Customer) -> None:
        self._loop, self._customer = loop, customer
        self._engage()

    def _engage(self) -> None:
        """An engine is ready."""
        assert self._loop is not None
        assert self._customer is not None
        self.link.read(self._loop, self._customer.read)
        self._watch_end()
        self.stuck, self.ending = "", False
        self._tick = self._loop.call_later(INTERVAL, self._look, Watchdog(self.home.pulse, self.pid))

    def _watch_end(self) -> None:
        raise NotImplementedError

    def _look(self, watchdog: Watchdog) -> None:
        assert self._loop is not None
        assert self._customer is not None
        requests = self._customer.open_requests()
        self.stuck = watchdog.look(bool(requests))
        if self.stuck and requests:
            some = ", ".join(requests[:5]) + (", ..." if len(requests) > 5 else "")
            self.stuck += f"; {len(requests)} requests wait: {some}"
        if self.stuck and self._is_stuck():
            return
        self._tick = self._loop.call_later(INTERVAL, self._look, watchdog)

    def _is_stuck(self) -> bool:
        """The eye has found so, perhaps not for the first time. Whether that is final."""
        return False

    def _disengage(self) -> None:
        """The present engine is no more."""
        self.link.unread()
        self.link.close()
        if self._tick is not None:
            self._tick.cancel()

    def _change(self, state: str) -> None:
        self.since = time.monotonic()
        self.state.set(state)

    def failed(self, message: wire.Failed) -> None:
        """The engine has said why it ends."""
        raise NotImplementedError

    def retry_after(self) -> float:
        """Seconds until the next engine should be ready."""
        raise NotImplementedError

    def detach(self) -> None:
        """Let go of the loop, before the end."""
        if self._tick is not None:
            self._tick.cancel()
        self.link.unread()
        self.state.set("dead")


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """From another thread into the loop, unless that has ended as well."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
