"""The loop of the engine's process: take messages, step while there is work, sleep while there is none."""

from __future__ import annotations

import logging

from vllm_core.engine import wire
from vllm_core.engine.core import EngineCore
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.figures import Gathered
from vllm_core.engine.fronts import Front, Fronts
from vllm_core.engine.messages import NewRequest, Update
from vllm_core.engine.pulse import Pulse
from vllm_core.engine.request import FinishReason
from vllm_core.engine.spare_memory import SpareMemory
from vllm_core.engine.timed_steps import TimedSteps

__all__ = ["Server"]

log = logging.getLogger(__name__)


class Server:
    """``ready`` answers fronts that have the lock of this ``digest``. ``run`` returns when the first front says so."""

    def __init__(
        self, core: EngineCore, fronts: Fronts, pulse: Pulse, steps: TimedSteps, ready: wire.Ready, digest: str
    ) -> None:
        self._core, self._fronts, self._pulse, self._steps = core, fronts, pulse, steps
        self._ready, self._digest = ready, digest
        self._figures = Gathered()
        self._spare = SpareMemory()
        self._stopped = False

    def run(self) -> None:
        core, fronts, figures = self._core, self._fronts, self._figures
        while True:
            idle = not core.has_work
            if idle:
                self._pulse.asleep()
                self._spare.give_back()
            received = fronts.receive(wait=idle)
            self._steps.beat()
            while received is not None:
                self._take(*received)
                if self._stopped:
                    return
                received = fronts.receive(wait=False)
            if core.has_work:
                fronts.tell(core.step())
            fronts.tell_load()
            if (news := figures.take(idle=not core.has_work)) is not None:
                fronts.tell_watchers(news)

    def _take(self, name: bytes, message: wire.Down) -> None:
        fronts, front = self._fronts, self._fronts.get(name)
        if isinstance(message, wire.Gone):
            for gone in fronts.of_process(message.pid) if name.startswith(b"own") else ():
                self._end(gone)
        elif isinstance(message, wire.Broken):
            if name.startswith(b"own"):
                raise EngineDeadError(message.reason)
        elif isinstance(message, wire.Hello):
            self._greet(name, message)
        elif front is None:
            log.error("a message of a front that nobody knows is left out: %s", type(message).__name__)
        elif isinstance(message, wire.Add):
            refused = [update for new in message.requests if (update := self._add(front, new)) is not None]
            if refused:
                fronts.send(name, wire.Updates(refused))
        elif isinstance(message, wire.Abort):
            for request_id in message.request_ids:
                if fronts.has(front, request_id):
                    self._core.abort(request_id, FinishReason(message.reason))
        elif isinstance(message, wire.Reset | wire.AskStats):
            if isinstance(message, wire.Reset):
                self._core.cache.reset_prefix_cache()
            fronts.send(name, self._stats(message.call))
        elif isinstance(message, wire.Watch):
            front.watches = message.on
            self._listen()
        elif isinstance(message, wire.Warm):
            if self._core.grammars is not None:
                self._core.grammars.warm(message.vocabulary, message.reasons)
        elif isinstance(message, wire.Compare):
            front.compares = True
        elif isinstance(message, wire.Leave):
            self._end(front)
        elif isinstance(message, wire.Stop):
            self._stopped = name == fronts.first

    def _greet(self, name: bytes, hello: wire.Hello) -> None:
        if hello.digest == self._digest:
            self._fronts.greet(name, hello)
            self._fronts.send(name, self._ready)
            return
        error = (
            f"this process made other choices than the engine's: lock {hello.digest[:12]} here, {self._digest[:12]}"
            " there. Give both the same model, settings and packages"
        )
        self._fronts.send(name, wire.Failed(kind="LockMismatch", error=error))

    def _add(self, front: Front, new: NewRequest) -> Update | None:
        """Queue a request; why not, if it cannot be."""
        try:
            self._core.add(new)
            self._fronts.take(front, new)
        except RequestError as error:
            return Update(request_id=new.request_id, token_ids=[], finish_reason="error", error=error.reason)
        except MemoryError:
            self._core.abort(new.request_id)
            reason = "not enough memory to take the request"
            return Update(request_id=new.request_id, token_ids=[], finish_reason="error", error=reason)
        return None

    def _end(self, front: Front) -> None:
        """Nobody waits for its requests any more."""
        for request_id in self._fronts.leave(front):
            self._core.abort(request_id)
        self._listen()

    def _listen(self) -> None:
        """Make figures as long as a front wants them."""
        listeners = self._core.meter.listeners
        if self._fronts.watched and self._figures not in listeners:
            listeners.append(self._figures)
        elif not self._fronts.watched and self._figures in listeners:
            listeners.remove(self._figures)

    def _stats(self, call: int) -> wire.Stats:
        core = self._core
        prefixes = core.cache.stats()
        return wire.Stats(
            call=call,
            running=len(core.roster.running),
            waiting=len(core.roster.requests) - len(core.roster.running),
            cache_usage=core.cache.usage,
            prefix_queries=prefixes.queries,
            prefix_hits=prefixes.hits,
        )
