"""An engine of another host, as a front of the server's host has it: found in a home that the gate keeps."""

from __future__ import annotations

from vllm_core.engine import wire
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.found import POLL, FoundEngine
from vllm_core.engine.home import Home
from vllm_core.engine.link import Link
from vllm_core.engine.watchdog import INTERVAL, Watchdog

__all__ = ["FarEngine", "find_engine"]

TRIES = 40  # looks for an answer, POLL seconds each


class FarEngine(FoundEngine):
    """Its process and pulse are not here: what its node told the gate, or that it tells nothing, is all there is."""

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


def find_engine(address: str) -> FoundEngine:
    """Of this host or another one. Waits until it is ready; raises ``EngineDeadError`` if it has ended."""
    status = Home.at(address).read()
    return FarEngine(address) if status is not None and status.far else FoundEngine(address)
