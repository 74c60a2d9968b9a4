"""A server whose processes and files can be found whatever becomes of it: they carry a mark."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from vllm_plugin_server.testing.wire import Address, Unanswered, address_of

__all__ = ["MarkedServer"]

POLL = 0.01  # seconds
SHARED = Path("/dev/shm")
VARIABLE = "SERVER_UNDER_TEST"


class MarkedServer:
    """``async with MarkedServer(MODEL, *FLAGS) as server``: started; ``await server.ready()`` waits until it listens.

    folder  of its temporary files; None: a new one. It is removed at the end
    lines   what it wrote on standard error
    code    of its exit, once it has ended
    """

    def __init__(
        self, model: str, *flags: str, env: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self._env = dict(env or {})
        self._command = ("-m", "vllm_core", "serve", model, "--port", "0", "--no-access-log", *flags)
        self._mark = secrets.token_hex(8)
        self.folder = folder or Path(tempfile.mkdtemp(prefix="ends-"))
        self.lines: list[str] = []
        self.url = ""

    async def __aenter__(self) -> MarkedServer:
        self._shared = set(_shared())
        self._listens = asyncio.Event()
        self.begun = time.monotonic()
        marks = {VARIABLE: self._mark, "TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"}
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, *self._command, stderr=asyncio.subprocess.PIPE, env={**os.environ, **marks, **self._env}
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._child.wait()
        await self._reader
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _read(self) -> None:
        assert self._child.stderr is not None
        while line := (await self._child.stderr.readline()).decode(errors="replace"):
            self.lines.append(line)
            if found := re.search(r"serving .* at (http://\S+),", line):
                self.url = found[1]
                self._listens.set()
        self._listens.set()

    async def ready(self) -> None:
        async with asyncio.timeout(120):
            await self._listens.wait()
        if not self.url:
            raise Unanswered("the server did not start:\n" + "".join(self.lines)[-2000:])

    @property
    def address(self) -> Address:
        return address_of(self.url)

    @property
    def code(self) -> int | None:
        return self._child.returncode

    def signal(self, number: int) -> None:
        """To the process that was started, and to none of its children."""
        if self.code is not None:
            raise Unanswered(f"it had ended before, with exit code {self.code}:\n" + "".join(self.lines)[-2000:])
        self._child.send_signal(number)

    def processes(self, module: str = "") -> list[int]:
        """Those that live and carry the mark, wherever they are now; of one module, if it is given."""
        found, mark = [], f"{VARIABLE}={self._mark}".encode()
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                marked = entry.isdecimal() and mark in Path(f"/proc/{entry}/environ").read_bytes()
                if marked and module.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(int(entry))
        return found

    async def gone(self, seconds: float) -> float:
        """Seconds until the server has ended and none of its processes is left; ``TimeoutError`` if one is."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if self._child.returncode is not None and not self.processes():
                return time.monotonic() - begun
            await asyncio.sleep(POLL)
        left = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in self.processes()]
        raise TimeoutError(f"after {seconds:g} s there is still: {left or 'the server'}")

    def leftovers(self) -> list[str]:
        """Files, folders and sockets that it made and nobody has removed; shared memory that nobody has any more."""
        found = [str(path.relative_to(self.folder)) for path in sorted(self.folder.rglob("*"))]
        news = set(_shared()) - self._shared
        return found + [f"/dev/shm/{name}" for name in sorted(news - _held(news))]


def _shared() -> list[str]:
    return os.listdir(SHARED) if SHARED.is_dir() else []


def _held(names: set[str]) -> set[str]:
    """Those that some process of this machine has mapped: others run here, too."""
    found: set[str] = set()
    for entry in os.listdir("/proc") if names else ():
        with contextlib.suppress(OSError):
            if entry.isdecimal():
                maps = Path(f"/proc/{entry}/maps").read_text(errors="replace")
                found |= {name for name in names if f"{SHARED}/{name}" in maps}
    return found
