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
import time
from array import array
from collections.abc import Iterable, Iterator

__all__ = ["Channel", "ChannelClosed", "broadcast", "ready"]

INLINE = 32 << 10  # bytes; larger messages go through shared memory
SMALL, LARGE = b"s", b"l"


class ChannelClosed(ConnectionError):
    """The other side is gone, or takes nothing any more."""

    channel: Channel | None = None


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
        """Waits as long as the other side does not read. Raises `ChannelClosed`."""
        broadcast([self], message)

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next message, or None if none comes in ``timeout`` seconds. Raises `ChannelClosed`."""
        if timeout is not None and not ready([self._end.fileno()], timeout):
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

    def _send(self, data: bytes, descriptors: list[int], deadline: float | None) -> None:
        # ``socket.send_fds`` takes no notice of flags.
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        while True:
            try:
                self._end.sendmsg([data], passed, socket.MSG_DONTWAIT)
                return
            except BlockingIOError:
                left = None if deadline is None else deadline - time.monotonic()
                if (left is None or left > 0) and ready([self._end.fileno()], left, select.POLLOUT):
                    continue
                why = "it has taken no message for too long"
            except OSError as error:
                why = str(error)
            closed = ChannelClosed(why)
            closed.channel = self
            raise closed


def ready(descriptors: Iterable[int], timeout: float | None, event: int = select.POLLIN) -> list[int]:
    """Those that can be read, or have ended. Unlike ``select.select`` it takes those beyond 1,023."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, event)
    return [descriptor for descriptor, _ in poll.poll(None if timeout is None else 1000 * timeout)]


def broadcast(channels: Iterable[Channel], message: bytes, patience: float | None = None) -> None:
    """The same message to all: each gets it, even if others are gone. Then raises their `ChannelClosed`.

    patience   seconds for those that have stopped reading; None: for ever
    """
    deadline = None if patience is None else time.monotonic() + patience
    closed = None
    with contextlib.ExitStack() as stack:
        data, descriptors = SMALL + message, list[int]()
        if len(message) > INLINE:
            data, descriptors = LARGE, [stack.enter_context(_shared(message))]
        for channel in channels:
            try:
                channel._send(data, descriptors, deadline)
            except ChannelClosed as error:
                closed = error
    if closed is not None:
        raise closed


@contextlib.contextmanager
def _shared(message: bytes) -> Iterator[int]:
    """A descriptor of nameless memory that holds the message."""
    # Not in /dev/shm, which is small in containers, and full where something else has left its files.
    nameless = os.fdopen(os.memfd_create("vllm-core"), "w+b") if hasattr(os, "memfd_create") else None
    with nameless or tempfile.TemporaryFile() as file:
        file.write(message)
        file.flush()
        yield file.fileno()
