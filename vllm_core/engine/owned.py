"""The engine of the process that started it: whatever ends it, another one is started, some times."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.engine import wire
from vllm_core.engine.attached import Attached, call_in
from vllm_core.engine.home import Home, Status
from vllm_core.engine.last_stack import ask_stack, read_stack
from vllm_core.engine.remote import EngineProcess

__all__ = ["OwnedEngine"]

log = logging.getLogger(__name__)

LAST_WORDS = 0.2  # seconds that what a process said last may still be on its way
FAREWELL = 1.0  # seconds after which nobody waits to be told that a killed process has ended
PAUSE = 1.0  # seconds before another start after one that failed


@attrs.define(eq=False)
class _Held:
    """What must be ended with the owner."""

    process: EngineProcess
    home: Home
    over: bool = False
    starter: threading.Thread | None = None  # of another process
    waits: bool = True  # at the end, for the process to end by itself


class OwnedEngine(Attached):
    """restarts      engines started in place of ones that have ended, at most, within ``window`` seconds
    environment   of its process, beside this one's
    """

    def __init__(self, restarts: int, window: float, environment: Mapping[str, str] | None = None) -> None:
        home = Home.make()
        super().__init__(home)
        self._restarts, self._window = restarts, window
        self._ends: deque[float] = deque()
        self._starts = 0
        self._lost_pid = 0
        self._environment = environment or {}
        try:
            self._held = _Held(EngineProcess(home, self._environment), home)  # imports while the caller resolves
        except BaseException:
            home.remove()
            raise
        self.stop = weakref.finalize(self, _end, self._held)
        self._write("starting")

    def end_now(self) -> None:
        """As ``stop``, without waiting for the process to end by itself."""
        self._held.over, self._held.waits = True, False
        self._held.process.kill("it was shut down")  # for who waits already
        self.stop()

    def end_start(self) -> None:
        """Let ``start``, in another thread, come to an end."""
        self._held.process.kill("it was not needed any more")

    def start(self, settings: EngineSettings, digest: str, meanwhile: Callable[[], None]) -> None:
        """Do something ``meanwhile``, then wait until the engine is ready.

        Raises ``EngineDeadError`` with its reason if it does not get there.
        """
        self._settings, self._digest = settings, digest
        begun = time.monotonic()
        self.ready = self._held.process.build(settings, digest, meanwhile)
        self._is_ready(time.monotonic() - begun)

    def _is_ready(self, seconds: float) -> None:
        self._seconds = seconds
        self._starts += 1
        self.link = self._held.process.link
        self._change("ready")
        self._write("ready")

    def _write(self, state: str, cause: str = "") -> None:
        pid = self.ready.pid if state == "ready" else 0
        seconds = self._seconds if self._starts else 0.0
        status = Status(
            state=state, owner=os.getpid(), engine=pid, starts=self._starts, cause=cause, start_seconds=seconds
        )
        self.home.write(status)

    def _watch_end(self) -> None:
        loop, pid, me = self._loop, self.pid, weakref.ref(self)
        assert loop is not None

        def on_end(how: str) -> None:
            if (owner := me()) is not None:
                call_in(loop, owner._ended, pid, how)

        self._held.process.watch(on_end)

    def _ended(self, pid: int, how: str) -> None:
        assert self._loop is not None
        self.ending = True
        cause = how if self.stuck else f"the engine process {how}{read_stack(self.home.folder)}"
        self._loop.call_later(0 if self.stuck else LAST_WORDS, self._lost, pid, cause)

    def failed(self, message: wire.Failed) -> None:
        self._lost(self.pid, f"the engine has ended: {message.kind}: {message.error}")

    def _is_stuck(self) -> bool:
        assert self._loop is not None
        self.stuck += ask_stack(self.home.folder, self.pid)
        log.error("%s%s; it is killed", self.title, self.stuck)
        self._held.process.kill(self.stuck)
        self._loop.call_later(FAREWELL, self._lost, self.pid, self.stuck)
        return True

    def _lost(self, pid: int, cause: str) -> None:
        """Once for each engine."""
        if pid == self._lost_pid or self._held.over:
            return
        self._lost_pid = pid
        self._disengage()
        self._next(cause)

    def _next(self, cause: str, pause: float = 0.0) -> None:
        assert self._customer is not None
        now = time.monotonic()
        while self._ends and self._ends[0] < now - self._window:
            self._ends.popleft()
        again = len(self._ends) < self._restarts
        self._ends.append(now)
        if not again:
            if self._restarts:
                cause += f" (it was started again {self._restarts} times within {self._window:.0f} s)"
            log.error("%s%s", self.title, cause)
            self._change("dead")
            self._write("dead", cause)
            self._customer.lost(cause, back=False)
            return
        log.error("%s%s; it is started again (%d of %d times)", self.title, cause, len(self._ends), self._restarts)
        self._change("restarting")
        self._write("restarting", cause)
        self._customer.lost(cause, back=True)
        self._held.starter = threading.Thread(
            target=self._start_another, args=(pause,), daemon=True, name="vllm-core-restart"
        )
        self._held.starter.start()

    def _start_another(self, pause: float) -> None:
        """In a thread."""
        held, loop = self._held, self._loop
        assert loop is not None
        begun = time.monotonic()
        try:
            held.process.stop()
            time.sleep(pause)
            if held.over:
                return
            self.home.mend()
            held.process = EngineProcess(self.home, self._environment)
            if held.over:  # meanwhile: nobody else knows of this one
                held.process.kill("it was shut down")
            ready = held.process.build(self._settings, self._digest)
        except Exception as error:
            if not held.over:
                call_in(loop, self._next, f"the engine could not be started again: {error}", PAUSE)
            return
        call_in(loop, self._is_back, ready, time.monotonic() - begun)

    def _is_back(self, ready: wire.Ready, seconds: float) -> None:
        if self._held.over:
            return
        assert self._customer is not None
        self.ready = ready
        self._is_ready(seconds)
        log.warning("%sthe engine is ready again, after %.1f s", self.title, seconds)
        self._engage()
        self._customer.back(self.link)

    def retry_after(self) -> float:
        return max(1.0, self._seconds - (time.monotonic() - self.since))


def _end(held: _Held) -> None:
    held.over = True
    if held.starter is not None and held.starter.is_alive() and held.starter is not threading.current_thread():
        held.process.kill("it was shut down")  # its link belongs to the thread that waits for it
        held.starter.join(10)
    if not held.waits:
        held.process.kill("it was shut down")
    held.process.stop()
    held.home.remove()
