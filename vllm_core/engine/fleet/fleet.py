"""The engines behind a front: each request goes to one of them, and one that ends leaves the others to it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping

import attrs

from vllm_core.engine import wire
from vllm_core.engine.attached import Attached
from vllm_core.engine.errors import EngineDeadError, EngineRestartingError, EngineStuckError
from vllm_core.engine.fleet.replica import Replica, Requester
from vllm_core.engine.fleet.routing import Router
from vllm_core.engine.fleet.stats import EngineStats, FleetStats
from vllm_core.engine.messages import NewRequest
from vllm_core.engine.state import EngineState

__all__ = ["Fleet"]


class Fleet:
    """engines  by number
    rows     requests that each runs at the same time
    state    of all: "ready" as long as one is
    """

    def __init__(self, engines: Mapping[int, Attached], router: Router, rows: int) -> None:
        several = len(engines) > 1
        self.replicas = [
            Replica(number, engine, rows, f"engine {number}: " if several else "") for number, engine in engines.items()
        ]
        self._by_number = {replica.number: replica for replica in self.replicas}
        self._router = router
        self.state = EngineState()
        me = weakref.WeakMethod(self._changed)  # a fleet that nobody has any more ends with its engines, at once
        for replica in self.replicas:
            replica.engine.title = replica.title
            replica.engine.state.on_change = lambda: _call(me)
        self._changed()

    def _changed(self) -> None:
        states = {replica.engine.state.now for replica in self.replicas}
        self.state.set(next(s for s in ("ready", "restarting", "starting", "dead") if s in states))

    def attend(self, loop: asyncio.AbstractEventLoop, requester: Requester) -> None:
        for replica in self.replicas:
            replica.requester = requester
            replica.engine.attend(loop, replica)

    def detach(self) -> None:
        for replica in self.replicas:
            replica.engine.detach()

    @property
    def serving(self) -> list[Replica]:
        """Those that answer; if none does for certain, those that are not known to be gone."""
        return [r for r in self.replicas if r.serves] or [r for r in self.replicas if r.ready]

    def choose(self, request: NewRequest, but: Replica | None = None) -> Replica | None:
        """The engine for a request and its other samples; None if there is none, ``but`` for this one."""
        serving = [replica for replica in self.serving if replica is not but]
        if len(serving) < 2:
            return serving[0] if serving else None
        return self._by_number[self._router.choose(request, {r.number: r.load for r in serving})]

    def lost(self, replica: Replica) -> None:
        """What comes in its place has computed nothing yet."""
        self._router.forget(replica.number)

    def stats(self, answers: Mapping[int, wire.Stats]) -> FleetStats:
        """What engines answered, by number, and the states of those that did not."""
        return FleetStats([_stats(replica, answers.get(replica.number)) for replica in self.replicas])

    def check_serving(self) -> None:
        """Raise if none of them takes requests now."""
        if any(replica.ready for replica in self.replicas):
            return
        back = [replica for replica in self.replicas if replica.dead is None]
        if not back:
            raise EngineDeadError(self.replicas[-1].cause)
        soonest = min(back, key=lambda replica: replica.engine.retry_after())
        wait = soonest.engine.retry_after()
        raise EngineRestartingError(f"{soonest.cause}; it is started again, try again in {wait:.0f} s", wait)

    def check_going_on(self) -> None:
        """Raise if those that are there are all stuck."""
        there = [replica for replica in self.replicas if replica.ready]
        if there and all(replica.engine.stuck for replica in there):
            raise EngineStuckError(there[0].title + there[0].engine.stuck)


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    if (there := method()) is not None:
        there()


def _stats(replica: Replica, answer: wire.Stats | None) -> EngineStats:
    about = EngineStats(
        engine=replica.number, state=replica.engine.state.now, pid=replica.engine.pid, cause=replica.cause
    )
    if answer is None:
        return about
    return attrs.evolve(
        about,
        running=answer.running,
        waiting=answer.waiting,
        cache_usage=answer.cache_usage,
        prefix_queries=answer.prefix_queries,
        prefix_hits=answer.prefix_hits,
    )
