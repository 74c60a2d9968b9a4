"""The engine for servers: it runs in a process of its own, requests are coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import attrs
import zmq.asyncio

from vllm_core.config.engine import EngineSettings
from vllm_core.config.load import from_kwargs
from vllm_core.engine import wire
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.engine.intake import Intake
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.prompts import Prompt, read_chat, read_prompt
from vllm_core.engine.remote import EngineProcess
from vllm_core.engine.sampling_params import SamplingParams

__all__ = ["AsyncLLM"]


@attrs.define(slots=True, eq=False)
class _Waiter:
    """One caller. Outputs are cumulative, so only the newest is kept for a caller who is slow."""

    newest: RequestOutput | None = None
    news: asyncio.Event = attrs.field(factory=asyncio.Event)


class AsyncLLM:
    """``model`` and every other setting of ``EngineSettings`` by keyword, as for ``LLM``.

    Made anywhere (it blocks until the model is loaded), used from one event loop.
    """

    def __init__(self, model: str, **settings: Any) -> None:
        self._start(from_kwargs(EngineSettings, {"model": model, **settings}))

    @classmethod
    def from_settings(cls, settings: EngineSettings) -> AsyncLLM:
        """From settings that were read elsewhere: files, the environment, flags."""
        llm = cls.__new__(cls)
        llm._start(settings)
        return llm

    def _start(self, settings: EngineSettings) -> None:
        self._engine = EngineProcess()  # imports while we resolve
        try:
            from vllm_core.engine.build import open_text
            from vllm_core.engine.resolve import resolve

            resolved = resolve(settings)
            self.settings = settings
            self.text = open_text(resolved)
            self.ready = self._engine.build(settings, resolved.lock.digest)
        except BaseException:
            self._engine.stop()
            raise
        self.lock, self.decisions = resolved.lock, resolved.selector.decisions
        self.timings = {**resolved.timings, **self.ready.timings}
        self._intake = Intake(
            vocab_size=self.ready.vocab_size,
            longest=self.ready.longest,
            seed=settings.seed,
            max_logprobs=settings.max_logprobs,
            eos_token_ids=self.text.eos_token_ids,
            tokenizer=self.text.tokenizer,
            processors=resolved.build.processors,
        )
        self._processor = OutputProcessor(self.text.tokenizer)
        self._defaults = SamplingParams.from_defaults(resolved.generation_config)
        self._waiters: dict[str, _Waiter] = {}
        self._calls: dict[int, asyncio.Future[wire.Stats]] = {}
        self._ids = itertools.count()
        self._dead: EngineDeadError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader: asyncio.Task[None] | None = None

    # ---- requests

    def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        stream: bool = True,
    ) -> AsyncIterator[RequestOutput]:
        """Outputs as they grow, each with the whole text so far; with ``stream`` False the last one only.

        Leaving the iteration, or cancelling its task, ends the request. Raises ``RequestError`` for
        what cannot be served and ``EngineDeadError`` if the engine ends.
        """
        return self._run(
            lambda name: read_prompt(prompt, self.text.tokenizer, name), sampling_params, request_id, priority, stream
        )

    def chat(
        self,
        messages: Sequence[dict[str, Any]],
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        stream: bool = True,
        **options: Any,
    ) -> AsyncIterator[RequestOutput]:
        """Answer a conversation; ``options`` are for the chat template, as in ``LLM.chat``."""
        return self._run(
            lambda name: read_chat(messages, self.text.tokenizer, self.text.renderer, name, options),
            sampling_params,
            request_id,
            priority,
            stream,
        )

    async def abort(self, request_id: str | Sequence[str]) -> None:
        """End requests; their iterations get a last output with finish_reason "abort". Unknown ids are ignored."""
        ids = [request_id] if isinstance(request_id, str) else list(request_id)
        self._check_alive()
        self._engine.send(wire.Abort(ids))

    async def reset_prefix_cache(self) -> None:
        """Forget the cached beginnings of prompts."""
        await self._ask(wire.Reset)

    async def stats(self) -> wire.Stats:
        """How much runs and waits, and how full the cache is. Raises ``EngineDeadError`` if nobody answers."""
        return await self._ask(wire.AskStats)

    # ---- the rest

    def get_tokenizer(self) -> Any:
        if self.text.tokenizer is None:
            raise ValueError("there is no tokenizer: this engine was made with skip_tokenizer_init=True")
        return self.text.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What requests get that bring none: generation_config.json's, where it says something."""
        return self._defaults

    @property
    def dead(self) -> EngineDeadError | None:
        """Why the engine has ended, if it has."""
        return self._dead

    @property
    def num_requests(self) -> int:
        """Requests that somebody waits for."""
        return len(self._waiters)

    def shutdown(self) -> None:
        """End the engine's process and free its memory. Safe to call twice."""
        self._die(EngineDeadError("it was shut down; make a new AsyncLLM to go on"))
        self._engine.stop()

    # ---- inside

    async def _ask(self, question: type[wire.Reset] | type[wire.AskStats]) -> wire.Stats:
        self._attend()
        call, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._calls[call] = answer
        self._engine.send(question(call))
        return await answer

    async def _run(
        self,
        read: Callable[[str], Prompt],
        params: SamplingParams | None,
        request_id: str | None,
        priority: int,
        stream: bool,
    ) -> AsyncIterator[RequestOutput]:
        self._attend()
        name = str(next(self._ids)) if request_id is None else request_id
        if name in self._waiters:
            raise RequestError("a request with this id is running already", name)
        prompt = read(name)
        wanted = self._defaults if params is None else params
        new = self._intake.prepare(name, prompt.token_ids, wanted, stream=stream, priority=priority)
        self._processor.add(new, wanted, prompt.text, stream)
        waiter = self._waiters[name] = _Waiter()
        finished = False
        try:
            self._engine.send(wire.Add([new]))
            while not finished:
                await waiter.news.wait()
                waiter.news.clear()
                if waiter.newest is None:
                    raise self._dead or EngineDeadError("the engine has ended")
                output, waiter.newest = waiter.newest, None
                finished = output.finished
                yield output
        finally:
            del self._waiters[name]
            if not finished:
                self._processor.drop(name)
                if self._dead is None:
                    self._engine.send(wire.Abort([name]))

    def _attend(self) -> None:
        """Begin to read what the engine sends, in the loop of the first caller."""
        self._check_alive()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._reader = loop.create_task(self._read())
            self._engine.watch(partial(_tell, loop, self._lost))
        elif self._loop is not loop:
            raise RuntimeError("this AsyncLLM is used from another event loop; make one a loop")

    async def _read(self) -> None:
        socket = zmq.asyncio.Socket.shadow(self._engine.socket)
        while True:
            message = wire.decode_up(await socket.recv())
            if isinstance(message, wire.Updates):
                outputs, over = self._processor.take(message.updates)
                if over:
                    self._engine.send(wire.Abort(over))
                for output in outputs:
                    if (waiter := self._waiters.get(output.request_id)) is not None:
                        waiter.newest = output
                        waiter.news.set()
            elif isinstance(message, wire.Stats):
                answer = self._calls.pop(message.call)
                if not answer.done():  # else: whoever asked was cancelled
                    answer.set_result(message)
            elif isinstance(message, wire.Failed):
                self._die(EngineDeadError(f"the engine has ended: {message.kind}: {message.error}"))
                return

    def _lost(self, how: str) -> None:
        # What it said last tells more, and may still be on its way.
        asyncio.get_running_loop().call_later(0.2, self._die, EngineDeadError(f"the engine process {how}"))

    def _die(self, error: EngineDeadError) -> None:
        if self._dead is not None:
            return
        self._dead = error
        if self._reader is not None and self._loop is not None and not self._loop.is_closed():
            self._reader.cancel()
        for waiter in self._waiters.values():
            waiter.newest = None
            waiter.news.set()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(error)

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise self._dead


def _tell(loop: asyncio.AbstractEventLoop, method: Callable[[str], None], how: str) -> None:
    """From the thread that watches the process into the loop, unless that has ended as well."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(method, how)
