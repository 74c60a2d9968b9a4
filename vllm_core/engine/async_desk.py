"""The counter between coroutines in this process and the engine in another: requests in, each one's outputs out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial

import attrs
import zmq.asyncio

from vllm_core.engine import wire
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.intake import Intake
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.prompts import Prompt
from vllm_core.engine.remote import EngineProcess
from vllm_core.engine.sampling_params import SamplingParams

__all__ = ["AsyncDesk"]

log = logging.getLogger(__name__)

LAST_WORDS = 0.2  # seconds that what a process said last may still be on its way


@attrs.define(slots=True, eq=False)
class _Waiter:
    """One caller. Outputs are cumulative, so only the newest is kept for a caller who is slow."""

    newest: RequestOutput | None = None
    news: asyncio.Event = attrs.field(factory=asyncio.Event)


class AsyncDesk:
    """Belongs to the event loop of its first caller.

    dead   why the engine has ended, once it has
    """

    def __init__(self, engine: EngineProcess, intake: Intake, processor: OutputProcessor) -> None:
        self._engine, self._intake, self._processor = engine, intake, processor
        self.dead: EngineDeadError | None = None
        self.waiters: dict[str, _Waiter] = {}
        self._calls: dict[int, asyncio.Future[wire.Stats]] = {}
        self._ids = itertools.count()
        self._watchers: list[Callable[[wire.Figures], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader: asyncio.Task[None] | None = None

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
        self._attend()
        name = str(next(self._ids)) if request_id is None else request_id
        if name in self.waiters:
            raise RequestError("a request with this id is running already", name)
        prompt = read(name)
        news = self._intake.prepare(
            name, prompt.token_ids, params, stream=stream, priority=priority, cache_salt=prompt.cache_salt
        )
        self._processor.add(name, news, params, prompt.text, stream)
        waiter = self.waiters[name] = _Waiter()
        finished = False
        try:
            self._engine.send(wire.Add(news))
            while not finished:
                await waiter.news.wait()
                waiter.news.clear()
                if waiter.newest is None:
                    raise self.dead or EngineDeadError("the engine has ended")
                output, waiter.newest = waiter.newest, None
                finished = output.finished
                yield output
        finally:
            del self.waiters[name]
            if not finished:
                samples = self._processor.samples(name)
                self._processor.drop(name)
                if self.dead is None:
                    self._engine.send(wire.Abort(samples))

    def abort(self, request_ids: list[str]) -> None:
        self._attend()
        self._engine.send(wire.Abort([sample for name in request_ids for sample in self._processor.samples(name)]))

    async def ask(self, question: type[wire.Reset] | type[wire.AskStats]) -> wire.Stats:
        self._attend()
        call, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._calls[call] = answer
        self._engine.send(question(call))
        return await answer

    def on_stats(self, watcher: Callable[[wire.Figures], None]) -> Callable[[], None]:
        self._watchers.append(watcher)
        if self._loop is not None and self.dead is None and len(self._watchers) == 1:
            self._engine.send(wire.Watch())
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def die(self, error: EngineDeadError) -> None:
        """Every caller, now and later, gets this error. The first one counts."""
        if self.dead is not None:
            return
        self.dead = error
        if self._reader is not None and self._loop is not None and not self._loop.is_closed():
            self._reader.cancel()
        for waiter in self.waiters.values():
            waiter.newest = None
            waiter.news.set()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(error)

    def _attend(self) -> None:
        """Begin to read what the engine sends, in the loop of the first caller."""
        if self.dead is not None:
            raise self.dead
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._reader = loop.create_task(self._read())
            self._engine.watch(partial(_tell, loop, self._lost))
            if self._watchers:
                self._engine.send(wire.Watch())
        elif self._loop is not loop:
            raise RuntimeError("this AsyncLLM is used from another event loop; make one a loop")

    async def _read(self) -> None:
        socket = zmq.asyncio.Socket.shadow(self._engine.socket)
        try:
            while self.dead is None:
                self._take(wire.decode_up(await socket.recv()))
        except Exception as error:  # without a reader nobody would ever be answered
            self.die(EngineDeadError(f"what the engine sent cannot be read: {type(error).__name__}: {error}"))

    def _take(self, message: wire.Up) -> None:
        if isinstance(message, wire.Updates):
            outputs, over = self._processor.take(message.updates)
            for sample, reason in over:
                self._engine.send(wire.Abort([sample], reason))
            for output in outputs:
                if (waiter := self.waiters.get(output.request_id)) is not None:
                    waiter.newest = output
                    waiter.news.set()
        elif isinstance(message, wire.Figures):
            self._tell(message)
        elif isinstance(message, wire.Stats):
            answer = self._calls.pop(message.call)
            if not answer.done():  # else: whoever asked was cancelled
                answer.set_result(message)
        elif isinstance(message, wire.Failed):
            self.die(EngineDeadError(f"the engine has ended: {message.kind}: {message.error}"))

    def _tell(self, figures: wire.Figures) -> None:
        for watcher in self._watchers[:]:
            try:
                watcher(figures)
            except Exception:
                log.exception("%r failed; it gets no more figures", watcher)
                self._watchers.remove(watcher)

    def _lost(self, how: str) -> None:
        dead = EngineDeadError(f"the engine process {how}")
        asyncio.get_running_loop().call_later(LAST_WORDS, self.die, dead)


def _tell(loop: asyncio.AbstractEventLoop, method: Callable[[str], None], how: str) -> None:
    """From the thread that watches the process into the loop, unless that has ended as well."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(method, how)
