"""Log records are written by a thread of their own: whoever logs never waits for whoever reads.

Standard error is often a pipe. When nobody reads it, it is full after 64 KiB, and then a write waits for ever.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

__all__ = ["QueuedHandler", "log_beside"]

ROOM = 4 << 20  # bytes that may wait
WHOLE = 4096  # bytes: a pipe keeps so many together, whoever else writes to it
LAST_WORDS = 0.5  # seconds that ``flush`` waits


class QueuedHandler(logging.Handler):
    """Lines in the order of their records. When there is no room, records are dropped until half of it is free; then
    a line tells how many.

    stream    one without a file descriptor, of which nobody is the reader, is written to at once
    dropped   records so far
    on_drop   called with the number of them, by whoever logs: it must not wait
    """

    def __init__(self, stream: TextIO, room: int = ROOM) -> None:
        super().__init__()
        self.stream, self._room = stream, room
        self._descriptor: int | None = None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._descriptor = stream.fileno()
        self.dropped = 0
        self.on_drop: Callable[[int], None] | None = None
        self._lines: deque[bytes] = deque()
        self._news = threading.Condition()
        self._waiting = 0  # bytes of lines, the ones being written included
        self._lost = 0  # records dropped since the last line that told so
        self._closing = self._unread = False
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:
            line = self._own("a record of %s cannot be written: %s: %s", record.name, type(error).__name__, error)
        if self._descriptor is None:
            self.stream.write(line + "\n")
            self.stream.flush()
            return
        data = _bytes(line)
        with self._news:
            full = self._waiting + len(data) > self._room and self._waiting
            if full or not self._told():
                self._lost += 1
                self._count(1)
                return
            self._put(data)

    def flush(self) -> None:
        """Wait until all is written, or not read for a while."""
        with self._news:
            if self._waiting and not self._unread:
                self._unread = not self._news.wait_for(lambda: not self._waiting, LAST_WORDS)

    def close(self) -> None:
        with self._news:
            self._closing = True
            self._news.notify_all()
        super().close()

    # ---- with the lock

    def _told(self) -> bool:
        """Whether records may go on, those that were dropped having been told of."""
        if self._lost and self._waiting <= self._room // 2:
            lost, self._lost = self._lost, 0
            self._put(_bytes(self._own("%d log records were dropped, because nobody read what was written", lost)))
        return not self._lost

    def _put(self, data: bytes) -> None:
        self._lines.append(data)
        self._waiting += len(data)
        if self._thread is None or not self._thread.is_alive():  # as after a fork
            self._thread = threading.Thread(target=self._write_all, daemon=True, name="vllm-core-log")
            with contextlib.suppress(RuntimeError):  # the interpreter ends
                self._thread.start()
        self._news.notify_all()

    def _count(self, records: int) -> None:
        self.dropped += records
        if self.on_drop is not None:
            self.on_drop(records)

    # ---- in the thread

    def _write_all(self) -> None:
        while True:
            with self._news:
                while not self._lines:
                    if self._closing:
                        return
                    self._news.wait()
                lines = [self._lines.popleft()]
                size = len(lines[0])
                while self._lines and size + len(self._lines[0]) <= WHOLE:
                    lines.append(self._lines.popleft())
                    size += len(lines[-1])
            written = self._write(b"".join(lines))
            with self._news:
                self._waiting -= size
                if written:
                    self._unread = False
                else:  # nobody can be told there
                    self._count(len(lines))
                self._told()
                self._news.notify_all()

    def _write(self, data: bytes) -> bool:
        """Past Python's buffers, whose locks a thread that waits would hold at the end of the process."""
        assert self._descriptor is not None
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody who has it, too, wants that
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True

    def _own(self, message: str, *values: object) -> str:
        """A line of this handler's: it belongs to no request."""
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, values, None)
        return contextvars.Context().run(self.format, record)


def _bytes(line: str) -> bytes:
    return (line + "\n").encode(errors="backslashreplace")


def log_beside() -> None:
    """For a process without a log of its own: what Python would write by itself, and warnings, by such a thread."""
    handler = QueuedHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
