"""A front's connection to one engine process. A restarted engine gets a new one: nothing old can reach it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq

from vllm_core.engine import wire
from vllm_core.engine.scarce import again

__all__ = ["Link"]

AT_ONCE = 64  # messages read before the event loop sees to others


class Link:
    """Used from one thread at a time: first by who connects, then by the event loop that reads."""

    def __init__(self, address: str) -> None:
        self.name = secrets.token_hex(8)
        self._socket: Any = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, self.name.encode())
        for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):  # nothing is kept at the end, nothing bounded before
            self._socket.setsockopt(option, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)  # milliseconds until the engine's socket is there
        self._socket.connect(address)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read: Callable[[wire.Up], None] | None = None
        self.close = weakref.finalize(self, _close, self._socket)

    def hello(self, digest: str) -> None:
        self.send(wire.Hello(digest=digest, pid=os.getpid()))

    def send(self, message: wire.Down) -> None:
        """Never waits: the engine takes what comes between its steps."""
        if self._socket.closed:
            return
        with contextlib.suppress(zmq.Again):  # nobody is there any more: whoever watches the process says so
            self._socket.send(wire.encode(message), zmq.NOBLOCK)
        # The descriptor tells of news once: sending may have taken note of them.
        if self._loop is not None and self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self._loop.call_soon(self._drain)

    def receive(self, seconds: float) -> wire.Up | None:
        """Wait for a message, before anybody reads."""
        return wire.decode_up(self._socket.recv()) if self._socket.poll(1000 * seconds) else None

    def read(self, loop: asyncio.AbstractEventLoop, read: Callable[[wire.Up], None]) -> None:
        """Call ``read`` with every message from now on, in the loop. It must not raise."""
        self._loop, self._read = loop, read
        loop.add_reader(self._socket.getsockopt(zmq.FD), self._drain)
        loop.call_soon(self._drain)

    def unread(self) -> None:
        """Nobody reads any more."""
        if self._loop is not None and not self._socket.closed:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._socket.getsockopt(zmq.FD))
            self._loop = None

    def part(self) -> None:
        """Close it once what was sent is on its way."""
        if not self._socket.closed:
            self._socket.setsockopt(zmq.LINGER, 500)  # milliseconds
        self.close()

    def _drain(self) -> None:
        for _ in range(AT_ONCE):
            if self._loop is None or self._read is None or self._socket.closed:
                return
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._read(again(partial(wire.decode_up, frame), "read what the engine says"))
        if self._loop is not None:
            self._loop.call_soon(self._drain)


def _close(socket: Any) -> None:
    socket.close()
