"""An engine that another process started, and restarts: this one attaches to it by its address."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref

from vllm_core.engine import wire
from vllm_core.engine.attached import Attached, call_in
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.home import Home, Status
from vllm_core.engine.link import Link
from vllm_core.engine.pids import exists, wait_for_end
from vllm_core.engine.shared_facts import SharedFacts

__all__ = ["FoundEngine", "leave"]

POLL = 0.05  # seconds between two looks at the status, while there is no engine
REACTION = 10.0  # seconds within which the owner must have said what becomes of an engine that has ended


class FoundEngine(Attached):
    """``attach`` before anything else."""

    def __init__(self, address: str) -> None:
        """Wait until the engine is ready. Raises ``EngineDeadError`` if it has ended."""
        super().__init__(Home.at(address))
        self._lost_starts = 0
        while (status := self.home.read()) is None or status.state in ("starting", "restarting"):
            self._check_owner(status)
            time.sleep(POLL)
        self._starts = status.starts

    def facts(self) -> SharedFacts:
        try:
            return SharedFacts.from_bytes(self.home.facts.read_bytes())
        except OSError:
            raise EngineDeadError(f"there is no engine at {self.home.address} any more") from None

    def attach(self, digest: str) -> None:
        """Become a front of it. Raises ``EngineDeadError`` if it has ended, or has another lock."""
        self._digest = digest
        self.link, self.ready = self._meet()
        self.stop = weakref.finalize(self, leave, self.link)
        self._change("ready")

    def _check_owner(self, status: Status | None) -> None:
        if status is None or status.state == "dead" or not exists(status.owner):
            cause = status.cause if status is not None else ""
            raise EngineDeadError(cause or f"there is no engine at {self.home.address} any more")

    def _meet(self) -> tuple[Link, wire.Ready]:
        link = Link(self.home.address)
        link.hello(self._digest)
        while (message := link.receive(POLL)) is None:
            status = self.home.read()
            self._check_owner(status)
        if isinstance(message, wire.Failed):
            link.close()
            raise EngineDeadError(f"{message.kind}: {message.error}")
        assert isinstance(message, wire.Ready)
        return link, message

    def _watch_end(self) -> None:
        threading.Thread(
            target=_wait, args=(weakref.ref(self), self._loop, self.pid, self._starts), daemon=True
        ).start()

    def failed(self, message: wire.Failed) -> None:
        self._lost(self._starts, f"the engine has ended: {message.kind}: {message.error}")

    def _ended(self, pid: int, starts: int) -> None:
        assert self._loop is not None
        self.ending = True
        self._loop.create_task(self._find_out(pid, starts))

    async def _find_out(self, pid: int, starts: int) -> None:
        """The owner knows more of its end."""
        for _ in range(6):
            status = self.home.read()
            if status is None or status.cause or status.starts > starts:
                break
            await asyncio.sleep(POLL)
        cause = status.cause if status is not None else ""
        self._lost(starts, cause or f"the engine process (pid {pid}) has ended")

    def _lost(self, starts: int, cause: str) -> None:
        if starts <= self._lost_starts or self.state.now == "dead":
            return
        assert self._loop is not None
        assert self._customer is not None
        self._lost_starts = starts
        self._disengage()
        self._change("restarting")
        self._customer.lost(cause, back=True)
        self._task = self._loop.create_task(self._find_again(cause))

    async def _find_again(self, cause: str) -> None:
        assert self._customer is not None
        deadline = time.monotonic() + REACTION
        while self.state.now != "dead":
            await asyncio.sleep(POLL)
            status = self.home.read()
            idle = status is not None and status.starts == self._lost_starts and status.state == "ready"
            if status is None or status.state == "dead" or (idle and time.monotonic() > deadline):
                return self._give_up(status.cause if status is not None and status.cause else cause)
            if not exists(status.owner):
                return self._give_up(f"{cause}, and so has the process that started it (pid {status.owner})")
            if status.state != "ready" or idle:
                continue
            link = Link(self.home.address)
            link.hello(self._digest)
            for _ in range(40):
                if (message := link.receive(0)) is not None:
                    break
                await asyncio.sleep(POLL)
            if not isinstance(message, wire.Ready):
                link.close()
                if message is not None:
                    return self._give_up(f"{message.kind}: {message.error}")  # type: ignore[union-attr]
                continue
            self.link, self.ready, self._starts = link, message, status.starts
            self.stop.detach()
            self.stop = weakref.finalize(self, leave, link)
            self._change("ready")
            self._engage()
            self._customer.back(link)
            return None
        return None

    def _give_up(self, cause: str) -> None:
        assert self._customer is not None
        self._change("dead")
        self._customer.lost(cause, back=False)

    def retry_after(self) -> float:
        status = self.home.read()
        seconds = 0.0 if status is None else status.start_seconds
        return max(1.0, seconds - (time.monotonic() - self.since))


def _wait(engine: weakref.ref[FoundEngine], loop: asyncio.AbstractEventLoop, pid: int, starts: int) -> None:
    """In a thread."""
    wait_for_end(pid)
    if (found := engine()) is not None:
        call_in(loop, found._ended, pid, starts)


def leave(link: Link) -> None:
    """Let the engine know that this front has gone."""
    link.send(wire.Leave())
    link.unread()
    link.part()
