"""An engine process from its parent's side: start it, wait until it is ready, notice when it is gone, end it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.engine import wire
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.home import Home
from vllm_core.engine.last_stack import read_stack
from vllm_core.engine.link import Link

__all__ = ["EngineProcess"]

STOP_SECONDS = 5.0  # for the process to end by itself
COMMAND = [sys.executable, "-m", "vllm_core.engine.process"]


@attrs.define(eq=False)
class _Child:
    """What the thread that watches a process shares with whoever wants to know."""

    environment: Mapping[str, str] = attrs.field(factory=dict)  # beside this process's
    process: subprocess.Popen[bytes] | None = None
    failure: BaseException | None = None  # why there is no process
    started: threading.Event = attrs.field(factory=threading.Event)
    ended: threading.Event = attrs.field(factory=threading.Event)
    killed: str = ""  # why it was, if by us
    on_end: Callable[[str], None] | None = None
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def keep(self) -> None:
        """In a thread of its own, which lives as long as the process: the kernel ends that one with it."""
        try:
            self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, env={**os.environ, **self.environment})
        except BaseException as error:
            self.failure = error
            return
        finally:
            self.started.set()
        self.process.wait()
        with self.lock:
            self.ended.set()
            tell = self.on_end
        if tell is not None:
            tell(self.how())

    def how(self) -> str:
        assert self.process is not None
        code = self.process.returncode
        ending = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return self.killed or f"(pid {self.process.pid}) {ending}"


class EngineProcess:
    """``__init__`` starts the process, which imports what it will need; ``build`` tells it what to build."""

    def __init__(self, home: Home, environment: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._child = child = _Child(environment or {})
        threading.Thread(target=child.keep, daemon=True, name="vllm-core-engine").start()
        child.started.wait()
        if child.process is None:
            raise EngineDeadError(f"the engine process could not be started: {child.failure}") from child.failure
        self._process = child.process
        self.link = Link(home.address)
        self.stop = weakref.finalize(self, _stop, child, self.link)

    def build(self, settings: EngineSettings, digest: str, meanwhile: Callable[[], None] = lambda: None) -> wire.Ready:
        """Do something ``meanwhile``, then wait until the engine is ready.

        Raises ``EngineDeadError`` with its reason if it does not get there.
        """
        start = wire.Start(
            settings=attrs.asdict(settings),
            digest=digest,
            folder=str(self._home.folder),
            front=self.link.name,
            pid=os.getpid(),
        )
        try:
            frame = wire.encode(start)
        except TypeError as error:
            raise ValueError(f"a setting cannot be sent to the engine's process: {error}; use plain data") from None
        try:
            self._process.stdin.write(len(frame).to_bytes(8, "little") + frame)  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            self._child.ended.wait()
            raise EngineDeadError(f"the engine process {self._child.how()}") from None
        self.link.hello(digest)
        meanwhile()
        while (message := self.link.receive(0.1)) is None:
            if self._child.ended.is_set() and (message := self.link.receive(0)) is None:
                where = read_stack(self._home.folder)
                raise EngineDeadError(f"the engine process {self._child.how()} while it was built{where}")
            if message is not None:
                break
        if isinstance(message, wire.Failed):
            raise EngineDeadError(f"{message.kind}: {message.error}")
        assert isinstance(message, wire.Ready)
        return message

    def watch(self, on_end: Callable[[str], None]) -> None:
        """Call ``on_end`` with what happened when the process ends, or now if it has; in another thread, perhaps."""
        with self._child.lock:
            self._child.on_end = on_end
            ended = self._child.ended.is_set()
        if ended:
            on_end(self._child.how())

    def unwatch(self) -> None:
        with self._child.lock:
            self._child.on_end = None

    def kill(self, reason: str) -> None:
        """End it at once; ``on_end`` gets this reason."""
        self._child.killed = reason
        self._process.kill()

    @property
    def pid(self) -> int:
        return self._process.pid


def _stop(child: _Child, link: Link) -> None:
    with child.lock:
        child.on_end = None
    process = child.process
    assert process is not None
    link.send(wire.Stop())
    if not child.ended.wait(STOP_SECONDS):
        process.kill()
        child.ended.wait()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()  # type: ignore[union-attr]
    link.unread()
    link.close()
