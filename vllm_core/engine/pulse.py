"""The engine's pulse: a few numbers in a file that its process maps and others read. Nobody waits for anybody.

The loop writes them at every turn, a step when it is launched and when its result is there. Without
requests the engine sleeps and writes nothing.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
import struct
import time
from pathlib import Path

import attrs

__all__ = ["Beat", "Mood", "Pulse", "PulseView", "read_beat"]

FORMAT = struct.Struct("<qqddq")
SIZE = 4096


class Mood(enum.IntEnum):
    STARTING = 0
    ASLEEP = 1  # waits for messages
    BUSY = 2


@attrs.frozen
class Beat:
    number: int  # counts up: the same one twice means that nothing was written between
    mood: Mood
    since: float  # seconds, monotonic, the same clock in all processes
    deadline: float  # if busy: when it should have beaten again
    step: int  # the oldest one that has not finished; -1: none


class Pulse:
    """The engine's end. ``path`` is there already, ``SIZE`` bytes."""

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)
        self._number = 0

    @staticmethod
    def create(path: Path) -> None:
        path.write_bytes(bytes(SIZE))

    def busy(self, seconds: float, step: int = -1) -> None:
        """Something begins that should take no longer."""
        now = time.monotonic()
        self._write(Mood.BUSY, now, now + seconds, step)

    def asleep(self) -> None:
        now = time.monotonic()
        self._write(Mood.ASLEEP, now, now, -1)

    def _write(self, mood: Mood, now: float, deadline: float, step: int) -> None:
        self._number += 1
        FORMAT.pack_into(self._map, 0, self._number, mood, now, deadline, step)


class PulseView:
    """The other end. It holds the file, so that it sees even when somebody has removed it from its folder."""

    def __init__(self, path: Path) -> None:
        self._map: mmap.mmap | None = None
        with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ)

    def read(self) -> Beat | None:
        """None if there was no such file."""
        if self._map is None:
            return None
        number, mood, since, deadline, step = FORMAT.unpack_from(self._map)
        return Beat(number, Mood(mood) if mood in (0, 1, 2) else Mood.STARTING, since, deadline, step)


def read_beat(path: Path) -> Beat | None:
    """The last one; None if there is no such file any more."""
    return PulseView(path).read()
