"""Messages between an engine and the processes of its ranks, on one host. No torch.

A message is bytes, and arrives whole. What is large lies in shared memory that has no name, so that nothing of it
can stay behind, and is written once, however many receive it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import tempfile
from collections.abc import Iterable, Iterator

__all__ = ["Channel", "ChannelClosed", "broadcast"]

INLINE = 32 << 10  # bytes; larger messages go through shared memory
SMALL, LARGE = b"s", b"l"


class ChannelClosed(ConnectionError):
    """The other side is gone."""


class Channel:
    """One end. ``receive`` is for one thread, ``send`` for one."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(True)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends; the second is for a process that is started with its ``fileno``."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(here), cls(there)

    @classmethod
    def inherited(cls, descriptor: int) -> Channel:
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: bytes) -> None:
        """Waits only if the other side has stopped reading. Raises `ChannelClosed`."""
        broadcast([self], message)

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next message, or None if none comes in ``timeout`` seconds. Raises `ChannelClosed`."""
        if timeout is not None and not select.select([self._end], [], [], timeout)[0]:
            return None
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, INLINE + 1, 1)
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        if not data:
            raise ChannelClosed("the other side has closed it")
        if data[:1] == SMALL:
            return data[1:]
        try:
            with mmap.mmap(descriptors[0], 0, access=mmap.ACCESS_READ) as shared:
                return shared[:]
        finally:
            os.close(descriptors[0])

    def close(self) -> None:
        self._end.close()

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._end, [data], descriptors)
        except OSError as error:
            raise ChannelClosed(str(error)) from None


def broadcast(channels: Iterable[Channel], message: bytes) -> None:
    """The same message to all: each gets it, even if others are gone. Then raises their `ChannelClosed`."""
    closed = None
    with contextlib.ExitStack() as stack:
        data, descriptors = SMALL + message, list[int]()
        if len(message) > INLINE:
            data, descriptors = LARGE, [stack.enter_context(_shared(message))]
        for channel in channels:
            try:
                channel._send(data, descriptors)
            except ChannelClosed as error:
                closed = error
    if closed is not None:
        raise closed


@contextlib.contextmanager
def _shared(message: bytes) -> Iterator[int]:
    """A descriptor of nameless memory that holds the message."""
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
        file.write(message)
        file.flush()
        yield file.fileno()
