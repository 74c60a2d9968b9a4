"""An engine of another host, as a front of the server's host has it: found in a home that the gate keeps."""

from __future__ import annotations

import weakref

from vllm_core.engine import wire
from vllm_core.engine.attached import Attached
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.found import POLL, FoundEngine, leave
from vllm_core.engine.home import Home
from vllm_core.engine.link import Link
from vllm_core.engine.watchdog import INTERVAL, Watchdog

__all__ = ["FarEngine"]

TRIES = 40  # looks for an answer, POLL seconds each


class FarEngine(FoundEngine):
    """Its process and pulse are not here: what its node told the gate, or that it tells nothing, is all there is.

    away   do not wait for a node that is not there: the engine is "restarting" until it comes
    """

    def __init__(self, address: str, away: bool = False) -> None:
        home = Home.at(address)
        status = home.read()
        self._away = ""
        if not away or status is None or status.state in ("ready", "dead"):
            super().__init__(address)
            return
        Attached.__init__(self, home)
        self._starts = self._lost_starts = status.starts
        self._away = status.cause or "its node has not come yet"

    def attach(self, digest: str) -> None:
        if not self._away:
            super().attach(digest)
            return
        self._digest, self.link = digest, Link(self.home.address)
        self.ready = wire.Ready(vocab_size=0, longest=0, timings={})
        self.stop = weakref.finalize(self, leave, self.link)
        self._change("restarting")

    def _engage(self) -> None:
        if not self._away:
            super()._engage()
            return
        assert self._loop is not None
        self._away, cause = "", self._away
        self._task = self._loop.create_task(self._find_again(cause))

    def _watch_end(self) -> None:
        """`_look` does."""

    def _meet(self) -> tuple[Link, wire.Ready]:
        """Again and again: what is said may be lost on the way."""
        while True:
            link = Link(self.home.address)
            link.hello(self._digest)
            for _ in range(TRIES):
                if (message := link.receive(POLL)) is not None:
                    break
            if isinstance(message, wire.Ready):
                return link, message
            link.close()
            if isinstance(message, wire.Failed):
                raise EngineDeadError(f"{message.kind}: {message.error}")
            status = self.home.read()
            self._check_owner(status)
            self._starts = status.starts if status is not None else 0

    def _look(self, watchdog: Watchdog) -> None:
        assert self._loop is not None
        status = self.home.read()
        if status is None or status.state != "ready" or status.starts != self._starts:
            self.ending = True
            self._lost(self._starts, (status.cause if status is not None else "") or "the engine has been lost")
            return
        self._tick = self._loop.call_later(INTERVAL, self._look, watchdog)
