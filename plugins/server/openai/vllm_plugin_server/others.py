"""Further processes that speak HTTP in front of the same engine (``--api-server-count``): start, watch, end them."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from typing import Any

import attrs

from vllm_core.serving import Watchdog
from vllm_plugin_server.beats import watchdog_of
from vllm_plugin_server.metrics import shared
from vllm_plugin_server.settings import ServerSettings

__all__ = ["First", "Others"]

log = logging.getLogger(__name__)
RESTARTS, WINDOW = 3, 600.0  # of these processes, and the seconds that they are counted in
START_SECONDS = 120.0
PATIENCE = 50  # looks at one that does not go on, before it is ended


class Others:
    """``python -m vllm_plugin_server.other``, so many times. Each is told on standard input, which stays open: its end
    means that this process is gone.

    wrong   that one of them does not go on, or ""
    """

    def __init__(self, count: int, engine: Any, settings: ServerSettings, listener: Any) -> None:
        self._engine, self._listener, self.wrong = engine, listener, ""
        self._eyes: dict[int, Watchdog] = {}  # by pid
        self._patience = PATIENCE
        self._told = b"" if count == 0 else _told(engine, settings, listener)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._restarts: list[float] = []
        self._ending = False
        try:
            for _ in range(count):
                self._processes.append(self._start())
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Others:
        return self

    def __exit__(self, *error: object) -> None:
        self._ending = True
        for process in self._processes:
            process.kill()
            process.wait()
            shared.gone(process.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm_plugin_server.other"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._listener.fileno(),),
            start_new_session=True,  # signals of a terminal come to this process, which passes them on
        )
        assert process.stdin is not None
        try:
            process.stdin.write(self._told + b"\n")
            process.stdin.flush()
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    async def ready(self) -> None:
        """Wait until all of them listen. ``RuntimeError`` if one does not get there."""
        for process in self._processes:
            assert process.stdout is not None
            try:
                async with asyncio.timeout(START_SECONDS):
                    line = await asyncio.to_thread(process.stdout.readline)
            except TimeoutError:
                process.kill()  # the thread that reads its output would wait for it at the end
                line = b""
            if line != b"ready\n":
                raise RuntimeError("one of the processes of --api-server-count did not start; the log says why")

    def look(self) -> str:
        """Start those again that have ended, and end those that do not go on. Why the server must end, or ""."""
        self._look_for_stuck()
        for i, process in enumerate(self._processes):
            if self._ending or (code := process.poll()) is None:
                continue
            shared.gone(process.pid)
            now = time.monotonic()
            self._restarts = [then for then in self._restarts if now - then < WINDOW]
            if len(self._restarts) == RESTARTS:
                return f"processes of --api-server-count ended {RESTARTS + 1} times in {WINDOW:g} s; last code {code}"
            self._restarts.append(now)
            log.error("process %d of --api-server-count ended with code %s; another one is started", process.pid, code)
            self._processes[i] = self._start()
        return ""

    def _look_for_stuck(self) -> None:
        """Called as often as a watchdog wants to look."""
        wrong = {}
        for process in self._processes if not self._ending else ():
            if process.pid not in self._eyes and (eye := watchdog_of(self._engine, process.pid)) is not None:
                self._eyes[process.pid] = eye
            if process.pid in self._eyes and (words := self._eyes[process.pid].look(False)):
                wrong[process] = words
        self.wrong = "; ".join(wrong.values())
        self._patience = self._patience - 1 if wrong else PATIENCE
        for process, words in wrong.items() if self._patience <= 0 else ():
            log.error("%s; it is killed", words)
            process.kill()

    def terminate(self) -> None:
        """Once: a second signal would end their requests."""
        if self._ending:
            return
        self._ending = True
        for process in self._processes:
            if process.poll() is None:
                process.terminate()

    @property
    def alive(self) -> bool:
        return any(process.poll() is None for process in self._processes)


class First:
    """The process that has started this one, as this one has it in the place of `Others`."""

    alive = False  # it ends this process, and waits for it

    def __init__(self, engine: Any, pid: int) -> None:
        self._engine, self._pid, self.wrong = engine, pid, ""
        self._eye: Watchdog | None = None

    async def ready(self) -> None:
        """It waits for this process."""

    def look(self) -> str:
        """Never a reason to end: it, or its end, sees to that."""
        self._eye = self._eye or watchdog_of(self._engine, self._pid)
        self.wrong = "" if self._eye is None else self._eye.look(False)
        return ""

    def terminate(self) -> None:
        """It ends by itself."""


def _told(engine: Any, settings: ServerSettings, listener: Any) -> bytes:
    """What such a process needs: keys are among it, so it is written to nobody else."""
    address = None if settings.uds is not None else listener.getsockname()[:2]
    told = {
        "engine": attrs.asdict(engine.settings),
        "server": attrs.asdict(settings),
        "address": engine.address,
        "bound": address,
        "listener": listener.fileno(),
    }
    return json.dumps(told).encode()
