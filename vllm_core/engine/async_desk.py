"""The counter between coroutines in this process and engines in others: requests in, each one's outputs out.

Longer than other files, so that all that may happen to a waiting request stands in one place.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import attrs
from msgspec import structs

from vllm_core.engine import wire
from vllm_core.engine.attached import call_in
from vllm_core.engine.carry import named, the_rest
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.fleet.fleet import Fleet
from vllm_core.engine.fleet.load import Burden, burden_of
from vllm_core.engine.fleet.replica import Replica
from vllm_core.engine.intake import Intake
from vllm_core.engine.link import Link
from vllm_core.engine.messages import NewRequest, Update
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.prompts import Prompt
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.warming import Warming
from vllm_core.engine.watchers import Watchers

__all__ = ["AsyncDesk"]

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0  # that another thread waits for the event loop
FRESH = 0.5  # seconds: a request that an engine got no longer before its end, and no token of, was not begun


@attrs.define(slots=True, eq=False)
class _Waiter:
    """One caller. Outputs are cumulative, so only the newest is kept for a caller who is slow."""

    requests: list[NewRequest]  # as they were sent first
    replica: Replica  # that has them
    burden: Burden  # on it
    sent: float  # seconds, monotonic
    newest: RequestOutput | None = None
    news: asyncio.Event = attrs.field(factory=asyncio.Event)
    error: str = ""  # why there is nothing more to wait for
    broken: Exception | None = None  # what its own output was broken by
    begun: bool = False  # there are tokens
    carried: bool = False  # to another engine, once
    ended: bool = False  # by its caller, before its last output is here


class AsyncDesk:
    """Belongs to the event loop of its first caller.

    front    before the names of requests in the engines, so that several fronts do not get into each other's way
    carry    requests of an engine that was killed go on in another one, or in the one that is started in its place
    warming  what each engine is told once it is ready; None: another front tells it
    dead     why the engines have ended, once all have for good
    """

    def __init__(
        self, fleet: Fleet, intake: Intake, processor: OutputProcessor, *, front: str = "", carry: bool = False
    ) -> None:
        self._fleet, self._intake, self._processor = fleet, intake, processor
        self._front, self._carry = front, carry
        self.warming: Warming | None = None
        self.dead: EngineDeadError | None = None
        self.waiters: dict[str, _Waiter] = {}
        self._calls: dict[int, tuple[Replica, asyncio.Future[wire.Stats]]] = {}
        self._ids = itertools.count()
        self.watchers = Watchers(self._want_figures)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(
        self,
        read: Callable[[str], Prompt],
        params: SamplingParams,
        request_id: str | None,
        *,
        priority: int,
        stream: bool,
    ) -> AsyncIterator[RequestOutput]:
        """Outputs of a request. Leaving the iteration ends it. ``read``: request id -> its prompt."""
        self.attend()
        name = str(next(self._ids)) if request_id is None else request_id
        if name in self.waiters:
            raise RequestError("a request with this id is running already", name)
        prompt = read(name)
        news = self._intake.prepare(
            name, prompt.token_ids, params, stream=stream, priority=priority, cache_salt=prompt.cache_salt
        )
        if self._front:
            news = [named(new, self._front) for new in news]
        self._processor.add(name, news, params, prompt.text, stream)
        replica = self._fleet.choose(news[0])
        assert replica is not None  # else `attend` would have raised
        waiter = self.waiters[name] = _Waiter(news, replica, burden_of(news), time.monotonic())
        replica.load.add(waiter.burden)
        self._processor.goes_to(name, replica.number)
        finished = False
        try:
            self._send(name, waiter)
            while not finished:
                await waiter.news.wait()
                waiter.news.clear()
                if waiter.broken is not None:
                    raise waiter.broken
                if waiter.error:
                    raise EngineDeadError(waiter.error)
                if waiter.newest is None:
                    continue
                output, waiter.newest = waiter.newest, None
                finished = output.finished
                yield output
        finally:
            del self.waiters[name]
            waiter.replica.load.remove(waiter.burden)
            if not finished:
                samples = self._processor.samples(name)
                self._processor.drop(name)
                if waiter.replica.ready:
                    waiter.replica.send(wire.Abort(samples))

    def _send(self, name: str, waiter: _Waiter) -> None:
        try:
            waiter.replica.send(wire.Add(waiter.requests))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RequestError(f"it cannot be sent to the engine: {error}", name) from error

    def abort(self, request_ids: list[str]) -> None:
        self.attend()
        samples: dict[Replica, list[str]] = {}
        for name in request_ids:
            if (waiter := self.waiters.get(name)) is not None:
                waiter.ended = True
                samples.setdefault(waiter.replica, []).extend(self._processor.samples(name))
        for replica, its in samples.items():
            replica.send(wire.Abort(its))

    async def ask(self, question: type[wire.Reset] | type[wire.AskStats]) -> dict[int, wire.Stats]:
        """The answers of those engines that are there, by number. Raises ``EngineDeadError`` if none gives any."""
        self.attend()
        asked = {replica.number: self._ask(replica, question) for replica in self._fleet.serving}
        answers = await asyncio.gather(*asked.values(), return_exceptions=True)
        found = dict(zip(asked, answers, strict=True))
        if errors := [answer for answer in answers if isinstance(answer, BaseException)]:
            wrong = next((error for error in errors if not isinstance(error, EngineDeadError)), None)
            if wrong is not None or len(errors) == len(asked):
                raise wrong or errors[0]
        return {number: answer for number, answer in found.items() if not isinstance(answer, BaseException)}

    async def _ask(self, replica: Replica, question: type[wire.Reset] | type[wire.AskStats]) -> wire.Stats:
        call, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._calls[call] = replica, answer
        try:
            replica.send(question(call))
            return await answer
        finally:
            self._calls.pop(call, None)

    def _want_figures(self, on: bool) -> None:
        for replica in self._fleet.replicas if self._loop is not None else ():
            if replica.ready:
                replica.send(wire.Watch(on))

    def check(self) -> None:
        """Raise why no request can be taken, or why those that are here do not go on."""
        self.attend()
        self._fleet.check_going_on()

    def attend(self) -> None:
        """As ``watch``. Raises if there is no engine now."""
        if self.dead is not None:
            raise EngineDeadError(*self.dead.args)
        self.watch()
        self._fleet.check_serving()

    def watch(self) -> None:
        """Begin to read what engines send, in the loop of the first caller."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._fleet.attend(loop, self)
            for replica in self._fleet.replicas:
                if replica.ready:
                    self._greet(replica)
        elif self._loop is not loop:
            raise RuntimeError("this AsyncLLM is used from another event loop; make one a loop")

    def _greet(self, replica: Replica) -> None:
        """What an engine should know of this front, before its first request."""
        if self.watchers:
            replica.send(wire.Watch())
        if len(self._fleet.replicas) > 1:
            replica.send(wire.Compare())
        if self.warming is not None and self._loop is not None:
            self.warming.begin(self._loop, replica.engine.link)

    def die(self, error: EngineDeadError) -> None:
        """Every caller, now and later, gets this error. The first one counts."""
        if self.dead is not None:
            return
        self.dead = error
        for name, waiter in self.waiters.items():
            self._fail(name, waiter, str(error))
        self._fail_calls(str(error))

    def close(self) -> None:
        """Tell every caller that it is over, from any thread."""
        done = threading.Event()

        def close() -> None:
            self.die(EngineDeadError("it was shut down; make a new AsyncLLM to go on"))
            self._fleet.detach()
            done.set()

        if self._loop is not None and self._loop.is_running() and asyncio._get_running_loop() is not self._loop:
            call_in(self._loop, close)
            done.wait(CLOSE_SECONDS)
        else:
            close()

    # ---- what engines tell

    def lost(self, replica: Replica, cause: str, back: bool) -> None:
        """Its requests go on elsewhere, wait for the engine that is started in its place, or end."""
        self._fleet.lost(replica)
        # Whatever a step broke over may be in any of the requests: none of them gets near another engine.
        safe = not cause.startswith("the engine has ended")
        if not back and all(other.dead is not None for other in self._fleet.replicas):
            self.die(EngineDeadError(replica.cause))
            return
        now = time.monotonic()
        for name, waiter in self.waiters.items():
            if waiter.replica is not replica or waiter.error or waiter.broken is not None:
                continue
            if waiter.newest is not None and waiter.newest.finished:  # its caller is slow: all of it is here
                continue
            rest = [] if waiter.carried or waiter.ended or not safe else self._rest(name, waiter)
            fresh = not waiter.begun and now - waiter.sent < FRESH
            other = self._fleet.choose(rest[0], but=replica) if rest and (self._carry or fresh) else None
            if other is not None:
                self._move(name, waiter, rest, other)
            elif not (rest and self._carry and back):
                self._fail(name, waiter, replica.cause)
        self._fail_calls(replica.cause, replica)

    def _move(self, name: str, waiter: _Waiter, rest: list[NewRequest], other: Replica) -> None:
        waiter.replica.load.remove(waiter.burden)
        waiter.replica, waiter.burden = other, burden_of(rest)
        other.load.add(waiter.burden)
        self._processor.goes_to(name, other.number)
        waiter.carried, waiter.sent = True, time.monotonic()
        other.send(wire.Add(rest))

    def back(self, replica: Replica, link: Link) -> None:
        self._greet(replica)
        for name, waiter in self.waiters.items():
            if waiter.replica is replica and not waiter.error and (rest := self._rest(name, waiter)):
                waiter.carried = True
                link.send(wire.Add(rest))

    def open_requests(self, replica: Replica) -> list[str]:
        waiters = self.waiters
        return [name for name in self._processor.names() if name in waiters and waiters[name].replica is replica]

    def read(self, replica: Replica, message: wire.Up) -> None:
        try:
            if isinstance(message, wire.Updates):
                self._take_all(replica, message.updates)
            elif isinstance(message, wire.Figures):
                self.watchers.tell(structs.replace(message, engine=replica.number))
            elif isinstance(message, wire.Stats):
                _, answer = self._calls.get(message.call, (None, None))
                if answer is not None and not answer.done():  # else: whoever asked was cancelled
                    answer.set_result(message)
            elif isinstance(message, wire.Failed):
                replica.engine.failed(message)
        except Exception:  # without a reader nobody would ever be answered
            log.exception("a message of the engine could not be taken in")

    def _take_all(self, replica: Replica, updates: Sequence[Update]) -> None:
        """What fails costs the requests whose news had been begun to be read, and the next one at least."""
        while updates:
            self._processor.begun = 0
            try:
                self._take(replica, updates)
                return
            except Exception as error:
                log.exception("news of requests could not be taken in")
                lost = max(1, self._processor.begun)
                self._break({update.request_id for update in updates[:lost]}, error)
                updates = updates[lost:]

    def _take(self, replica: Replica, updates: Sequence[Update]) -> None:
        outputs, over = self._processor.take(updates)
        for output in outputs:
            if (waiter := self.waiters.get(output.request_id)) is not None:
                if not waiter.begun:
                    waiter.begun = True
                    replica.load.begun(waiter.burden)
                waiter.newest = output
                waiter.news.set()
        for sample, reason in over:
            replica.send(wire.Abort([sample], reason))

    def _break(self, samples: set[str], error: Exception) -> None:
        """News of these are lost, so their requests cannot go on."""
        for waiter in self.waiters.values():
            if samples.intersection(new.request_id for new in waiter.requests):
                waiter.broken = error
                waiter.news.set()

    def _fail(self, name: str, waiter: _Waiter, cause: str) -> None:
        """End a request that waits. One that is finished has all that it waits for."""
        if waiter.newest is not None and waiter.newest.finished:
            return
        self._processor.drop(name)
        waiter.newest, waiter.error = None, cause
        waiter.news.set()

    def _fail_calls(self, cause: str, replica: Replica | None = None) -> None:
        """Those of one engine, or of all."""
        for asked, call in self._calls.values():
            if not call.done() and (replica is None or asked is replica):
                call.set_exception(EngineDeadError(cause))

    def _rest(self, name: str, waiter: _Waiter) -> list[NewRequest]:
        return the_rest(waiter.requests, self._processor.samples(name), self._processor)
