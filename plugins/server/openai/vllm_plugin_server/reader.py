"""Large bodies are read in a process of its own, which can be ended: Python's JSON would hold up everybody here.

What that process has found good needs no more care here, and is read again by msgspec in some milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.limits import LIMITS, most

__all__ = ["LARGE", "Asked", "Good", "Reader", "Wrong", "receive", "send"]

T = TypeVar("T")
LARGE = 64 * 1024  # bytes: what is smaller is read in a few milliseconds here
START_SECONDS = 60.0  # for the process to begin
READ_SECONDS = 10.0  # for a body, the time in which others are read included
GRACE = 1.0  # seconds: nobody waits longer than these two
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HEAD = struct.Struct("<II")  # bytes of a message, and of the body behind it


class Asked(msgspec.Struct):
    """Of the process; a body follows. ``kind``: "module:Name" of the record."""

    kind: str
    lenient: bool


class Good(msgspec.Struct, tag=True):
    """``names``: those of the body that the record has. A body follows if it is to be read instead, else none."""

    names: list[str]


class Wrong(msgspec.Struct, tag=True):
    """An ``ApiError``."""

    status: int
    message: str
    param: str | None
    code: str | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Good | Wrong).decode


class Reader:
    """``await read(raw, kind, lenient)``, one body after the other. The process starts with the first, or before.

    seconds   of computing that it has for a body; when these are over it ends itself, and the body is refused
    memory    bytes that it may have for that

    It also ends when this process does.
    """

    def __init__(self, seconds: float = LIMITS["read_cpu_seconds"].most, memory: int = most("read_bytes")) -> None:
        self._seconds, self._memory = seconds, memory
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="request-body")
        self._door: socket.socket | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    async def start(self) -> None:
        """Begin the process, and do not wait for it."""
        self._pool.submit(self._running)

    async def read(self, raw: bytes, kind: type[T], lenient: bool) -> tuple[T, list[str]]:
        """The record, and which of its names are in the body. Raises ``ApiError``."""
        until = time.monotonic() + READ_SECONDS
        future = self._pool.submit(self._read, raw, kind, lenient, until)
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + READ_SECONDS + GRACE):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise _busy() from None  # it stood behind others all the time

    def _read(self, raw: bytes, kind: type[T], lenient: bool, until: float) -> tuple[T, list[str]]:
        if time.monotonic() > until:
            raise _busy()
        door = self._running()
        try:
            door.settimeout(max(until - time.monotonic(), GRACE))
            send(door, _encode(Asked(f"{kind.__module__}:{kind.__qualname__}", lenient)), raw)
            message, rewritten = receive(door)
        except (OSError, EOFError):  # it has ended itself, or does not answer
            self._stop()
            raise ApiError(
                400, f"reading the body took longer than {self._seconds:g} s of computing time",
                code="request_too_complex",
            ) from None  # fmt: skip
        found = _decode(message)
        if isinstance(found, Wrong):
            raise ApiError(found.status, found.message, param=found.param, code=found.code)
        return msgspec.json.decode(rewritten or raw.removeprefix(BYTE_ORDER_MARK), type=kind), found.names

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._stop()

    def _stop(self) -> None:
        """End the process, whatever it does."""
        end, self._end, self._door = self._end, None, None
        if end is not None:
            end()

    def _running(self) -> socket.socket:
        if self._door is not None:
            return self._door
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "vllm_plugin_server.reader_process", str(self._seconds), str(self._memory)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # signals of a terminal are for the server, which ends it
            )
        self._door, self._end = ours, weakref.finalize(self, _kill, ours, process)
        ours.settimeout(START_SECONDS)
        try:
            receive(ours)
        except (OSError, EOFError):
            self._stop()
            raise _busy() from None
        return ours


def _busy() -> ApiError:
    return ApiError(503, "too many large requests wait to be read; try again in 1 s", code="busy",
                    headers={"retry-after": "1"})  # fmt: skip


def _kill(door: socket.socket, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        door.shutdown(socket.SHUT_RDWR)  # a thread may wait for it
    door.close()
    process.kill()
    process.wait()


def send(door: socket.socket, message: bytes, body: bytes = b"") -> None:
    door.sendall(_HEAD.pack(len(message), len(body)) + message)
    door.sendall(body)


def receive(door: socket.socket) -> tuple[bytes, bytes]:
    """A message and the body behind it. ``EOFError`` if the other side has gone."""
    sizes = _HEAD.unpack(_exactly(door, _HEAD.size))
    return _exactly(door, sizes[0]), _exactly(door, sizes[1])


def _exactly(door: socket.socket, size: int) -> bytes:
    found = bytearray(size)
    room = memoryview(found)
    while room:
        count = door.recv_into(room)
        if not count:
            raise EOFError
        room = room[count:]
    return bytes(found)
