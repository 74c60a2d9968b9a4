"""A ``vllm-core serve`` of a measurement's own, in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from vllm_plugin_server.testing.watch import family
from vllm_plugin_server.testing.wire import Address, Unanswered, address_of, request_bytes, send

__all__ = ["OwnServer", "cpu_seconds"]

POLL = 0.005  # seconds
ENGINE = b"vllm_core.engine.process"  # in the command line of the engine's process


class OwnServer:
    """``async with OwnServer(MODEL, *FLAGS) as server``: listening inside, ended after it.

    pid             of the front-end process
    start_seconds   from the start of the process to the first 200 of /health
    """

    def __init__(self, model: str, *flags: str, env: Mapping[str, str] | None = None) -> None:
        self._env = {**os.environ, **(env or {})}
        self._command = ("-m", "vllm_core", "serve", model, "--port", "0", "--no-access-log", *flags)
        self.url, self.start_seconds = "", 0.0
        self._drain: asyncio.Task[None] | None = None

    async def __aenter__(self) -> OwnServer:
        begin = time.perf_counter()
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, *self._command, stderr=asyncio.subprocess.PIPE, env=self._env
        )
        self.pid = self._child.pid
        self.url = await self._said()
        while await self.health() != 200:
            await asyncio.sleep(POLL)
        self.start_seconds = time.perf_counter() - begin
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.returncode is None:
            self._child.terminate()
        await self._child.wait()
        if self._drain is not None:
            await self._drain

    async def _said(self) -> str:
        """The address, from what the server writes on standard error; the rest of it is read and dropped."""
        lines = self._child.stderr
        assert lines is not None
        heard = []
        while line := (await lines.readline()).decode():
            heard.append(line)
            if found := re.search(r"serving .* at (http://\S+),", line):

                async def drain() -> None:
                    while await lines.read(1 << 16):
                        pass

                self._drain = asyncio.create_task(drain())
                return found[1]
        raise Unanswered("the server did not start:\n" + "".join(heard)[-2000:])

    @property
    def address(self) -> Address:
        return address_of(self.url)

    async def health(self, seconds: float = 1.0) -> int:
        """The status of /health; 0 if there is no answer in time."""
        try:
            return (await send(self.address, request_bytes(self.address, "GET", "/health"), seconds=seconds)).status
        except Unanswered:
            return 0

    async def states(self) -> list[str]:
        """Of each engine, as /load has them."""
        reply = await send(self.address, request_bytes(self.address, "GET", "/load"))
        return [one["state"] for one in json.loads(reply.body).get("engines", [])]

    def engines(self) -> list[int]:
        """The pids of the engines' processes."""
        found = []
        for pid in family(self.pid)[1:]:
            with contextlib.suppress(OSError):
                if ENGINE in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def engine(self) -> int:
        """The pid of the engine's process."""
        if not (found := self.engines()):
            raise Unanswered("the server has no engine process")
        return found[0]

    def kill_engine(self) -> None:
        os.kill(self.engine(), signal.SIGKILL)


def cpu_seconds(pid: int) -> float:
    """That a process and its children have had, threads that have ended left out."""
    ran = 0
    for one in family(pid):
        for task in Path(f"/proc/{one}/task").iterdir():
            ran += int((task / "schedstat").read_text().split()[0])
    return ran / 1e9
