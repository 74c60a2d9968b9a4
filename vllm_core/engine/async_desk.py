"""The counter between coroutines in this process and the engine in another: requests in, each one's outputs out.

Longer than other files, so that all that can end a wait stands in one place.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import attrs

from vllm_core.engine import wire
from vllm_core.engine.attached import Attached, call_in
from vllm_core.engine.carry import named, the_rest
from vllm_core.engine.errors import EngineDeadError, EngineRestartingError, EngineStuckError, RequestError
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


@attrs.define(slots=True, eq=False)
class _Waiter:
    """One caller. Outputs are cumulative, so only the newest is kept for a caller who is slow."""

    requests: list[NewRequest]  # as they were sent first
    newest: RequestOutput | None = None
    news: asyncio.Event = attrs.field(factory=asyncio.Event)
    error: str = ""  # why there is nothing more to wait for
    broken: Exception | None = None  # what its own output was broken by
    carried: bool = False  # to another engine, once


class AsyncDesk:
    """Belongs to the event loop of its first caller.

    front    before the names of requests in the engine, so that several fronts do not get into each other's way
    carry    requests go on in the engine that is started in place of one that was killed
    warming  what each engine is told once it is ready; None: another front tells it
    dead     why the engine has ended, once it has for good
    """

    def __init__(
        self, engine: Attached, intake: Intake, processor: OutputProcessor, *, front: str = "", carry: bool = False
    ) -> None:
        self._engine, self._intake, self._processor = engine, intake, processor
        self._front, self._carry = front, carry
        self.warming: Warming | None = None
        self.dead: EngineDeadError | None = None
        self.waiters: dict[str, _Waiter] = {}
        self._cause = ""  # of the last end of an engine
        self._calls: dict[int, asyncio.Future[wire.Stats]] = {}
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
        waiter = self.waiters[name] = _Waiter(news)
        finished = False
        try:
            self._send(name, news)
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
            if not finished:
                samples = self._processor.samples(name)
                self._processor.drop(name)
                if self._engine.state.now == "ready":
                    self._engine.link.send(wire.Abort(samples))

    def _send(self, name: str, news: list[NewRequest]) -> None:
        try:
            self._engine.link.send(wire.Add(news))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RequestError(f"it cannot be sent to the engine: {error}", name) from error

    def abort(self, request_ids: list[str]) -> None:
        self.attend()
        samples = [sample for name in request_ids for sample in self._processor.samples(name)]
        self._engine.link.send(wire.Abort(samples))

    async def ask(self, question: type[wire.Reset] | type[wire.AskStats]) -> wire.Stats:
        self.attend()
        call, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._calls[call] = answer
        try:
            self._engine.link.send(question(call))
            return await answer
        finally:
            self._calls.pop(call, None)

    def _want_figures(self, on: bool) -> None:
        if self._loop is not None and self._engine.state.now == "ready":
            self._engine.link.send(wire.Watch(on))

    def check(self) -> None:
        """Raise why no request can be taken, or why those that are here do not go on."""
        self.attend()
        if self._engine.stuck:
            raise EngineStuckError(self._engine.stuck)

    def attend(self) -> None:
        """As ``watch``. Raises if there is no engine now."""
        if self.dead is not None:
            raise EngineDeadError(*self.dead.args)
        self.watch()
        if self._engine.state.now == "restarting":
            wait = self._engine.retry_after()
            raise EngineRestartingError(f"{self._cause}; it is started again, try again in {wait:.0f} s", wait)

    def watch(self) -> None:
        """Begin to read what the engine sends, in the loop of the first caller."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._engine.attend(loop, self)
            self._greet(self._engine.link)
        elif self._loop is not loop:
            raise RuntimeError("this AsyncLLM is used from another event loop; make one a loop")

    def die(self, error: EngineDeadError) -> None:
        """Every caller, now and later, gets this error. The first one counts."""
        if self.dead is not None:
            return
        self.dead = error
        self._fail(str(error), carry=False)

    def close(self) -> None:
        """Tell every caller that it is over, from any thread."""
        done = threading.Event()

        def close() -> None:
            self.die(EngineDeadError("it was shut down; make a new AsyncLLM to go on"))
            self._engine.detach()
            done.set()

        if self._loop is not None and self._loop.is_running() and asyncio._get_running_loop() is not self._loop:
            call_in(self._loop, close)
            done.wait(CLOSE_SECONDS)
        else:
            close()

    # ---- what the engine tells

    def lost(self, cause: str, back: bool) -> None:
        self._cause = cause
        if not back:
            self.die(EngineDeadError(cause))
            return
        # Whatever a step broke over may be in any of the requests: none of them gets near the next engine.
        self._fail(cause, carry=self._carry and not cause.startswith("the engine has ended"))

    def _greet(self, link: Link) -> None:
        if self.watchers:
            link.send(wire.Watch())
        if self.warming is not None and self._loop is not None:
            self.warming.begin(self._loop, link)

    def back(self, link: Link) -> None:
        self._greet(link)
        for name, waiter in self.waiters.items():
            if not waiter.error and (requests := self._rest(name, waiter)):
                waiter.carried = True
                link.send(wire.Add(requests))

    def open_requests(self) -> list[str]:
        return self._processor.names()

    def read(self, message: wire.Up) -> None:
        try:
            if isinstance(message, wire.Updates):
                self._take_all(message.updates)
            elif isinstance(message, wire.Figures):
                self.watchers.tell(message)
            elif isinstance(message, wire.Stats):
                answer = self._calls.get(message.call)
                if answer is not None and not answer.done():  # else: whoever asked was cancelled
                    answer.set_result(message)
            elif isinstance(message, wire.Failed):
                self._engine.failed(message)
        except Exception:  # without a reader nobody would ever be answered
            log.exception("a message of the engine could not be taken in")

    def _take_all(self, updates: Sequence[Update]) -> None:
        """What fails costs the requests whose news had been begun to be read, and the next one at least."""
        while updates:
            self._processor.begun = 0
            try:
                self._take(updates)
                return
            except Exception as error:
                log.exception("news of requests could not be taken in")
                lost = max(1, self._processor.begun)
                self._break({update.request_id for update in updates[:lost]}, error)
                updates = updates[lost:]

    def _take(self, updates: Sequence[Update]) -> None:
        outputs, over = self._processor.take(updates)
        for output in outputs:
            if (waiter := self.waiters.get(output.request_id)) is not None:
                waiter.newest = output
                waiter.news.set()
        for sample, reason in over:
            self._engine.link.send(wire.Abort([sample], reason))

    def _break(self, samples: set[str], error: Exception) -> None:
        """News of these are lost, so their requests cannot go on."""
        for waiter in self.waiters.values():
            if samples.intersection(new.request_id for new in waiter.requests):
                waiter.broken = error
                waiter.news.set()

    def _fail(self, cause: str, carry: bool) -> None:
        """End what waits, or, with ``carry``, what cannot go on in another engine."""
        for name, waiter in self.waiters.items():
            if waiter.newest is not None and waiter.newest.finished:
                continue  # its caller is slow: all of it is here
            if carry and not waiter.carried and self._rest(name, waiter):
                continue
            self._processor.drop(name)
            waiter.newest, waiter.error = None, cause
            waiter.news.set()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(EngineDeadError(cause))

    def _rest(self, name: str, waiter: _Waiter) -> list[NewRequest]:
        return the_rest(waiter.requests, self._processor.samples(name), self._processor)
