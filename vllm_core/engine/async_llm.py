"""The engine for servers: it runs in a process of its own, requests are coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.config.load import from_kwargs
from vllm_core.engine import wire
from vllm_core.engine.async_desk import AsyncDesk
from vllm_core.engine.batch_call import priorities
from vllm_core.engine.chat_parsing import ChatParsing
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.figures import Figures
from vllm_core.engine.intake import Intake
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.prompts import Prompt, read_chat, read_prompt
from vllm_core.engine.remote import EngineProcess
from vllm_core.engine.sampling_params import SamplingParams

__all__ = ["AsyncLLM", "Conversation"]


@attrs.frozen
class Conversation:
    """A conversation as a prompt, and what reads the answers to it; None: nothing has to be read out of them."""

    prompt: Prompt
    parsing: ChatParsing | None


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
            self.settings = settings = resolved.settings  # plain data, which another process can resolve alike
            self.text = open_text(resolved)
            self.ready = self._engine.build(settings, resolved.lock.digest)
        except BaseException:
            self._engine.stop()
            raise
        self.lock, self.decisions = resolved.lock, resolved.selector.decisions
        self.timings = {**resolved.timings, **self.ready.timings}
        intake = Intake(
            vocab_size=self.ready.vocab_size,
            longest=self.ready.longest,
            seed=settings.seed,
            max_logprobs=settings.max_logprobs,
            eos_token_ids=self.text.eos_token_ids,
            tokenizer=self.text.tokenizer,
            processors=resolved.build.processors,
            grammars=resolved.build.grammars.choices,
        )
        self._desk = AsyncDesk(self._engine, intake, OutputProcessor(self.text.tokenizer))
        self.generation_config = resolved.generation_config  # what the model's authors recommend
        self._defaults = SamplingParams.from_defaults(resolved.generation_config)

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

        prompt  as for ``LLM.generate``, or what ``read_prompt`` or ``read_chat`` has made of one

        Leaving the iteration, or cancelling its task, ends the request. Raises ``RequestError`` for
        what cannot be served and ``EngineDeadError`` if the engine ends.
        """
        params = self._defaults if sampling_params is None else sampling_params
        parsing = prompt.parsing if isinstance(prompt, Conversation) else None
        outputs = self._desk.run(
            partial(self._prompt, prompt),
            params if parsing is None else parsing.prepare(params),
            request_id,
            priority=self._priority(priority),
            stream=stream,
        )
        return outputs if parsing is None else self._parsed(outputs, parsing)

    def _prompt(self, prompt: Any, request_id: str) -> Prompt:
        if isinstance(prompt, Conversation):
            return prompt.prompt
        return prompt if isinstance(prompt, Prompt) else read_prompt(prompt, self.text.tokenizer, request_id)

    def read_prompt(self, prompt: Any, *, add_special_tokens: bool = True) -> Prompt:
        """The token ids of a prompt, for ``generate``. May be called in any thread: long texts take their time."""
        return read_prompt(prompt, self.text.tokenizer, "", add_special_tokens)

    def read_chat(
        self, messages: Sequence[dict[str, Any]], *, find_calls: bool = True, **options: Any
    ) -> Conversation:
        """A conversation through the chat template, for ``generate``; ``options`` as for ``chat``.

        May be called in any thread, which a template of unknown origin makes wise.

        find_calls   whether answers are searched for calls of the tools; without it the template alone gets them
        """
        read = options if find_calls else {**options, "tools": None}
        parsing = None if self.text.parsers is None else self.text.parsers.for_chat(read)
        return Conversation(read_chat(messages, self.text.tokenizer, self.text.renderer, "", options), parsing)

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
        """Answer a conversation; ``options`` are for the chat template, as in ``LLM.chat``.

        Each output also has what the parsers made of its text, and in ``delta`` what of it is new.
        """
        parsing = None if self.text.parsers is None else self.text.parsers.for_chat(options)
        params = self._defaults if sampling_params is None else sampling_params
        outputs = self._desk.run(
            lambda name: read_chat(messages, self.text.tokenizer, self.text.renderer, name, options),
            params if parsing is None else parsing.prepare(params),
            request_id,
            priority=self._priority(priority),
            stream=stream,
        )
        return outputs if parsing is None else self._parsed(outputs, parsing)

    async def _parsed(
        self, outputs: AsyncIterator[RequestOutput], parsing: ChatParsing
    ) -> AsyncIterator[RequestOutput]:
        async with aclosing(outputs):  # type: ignore[type-var]
            async for output in outputs:
                yield parsing.read(output)

    async def abort(self, request_id: str | Sequence[str]) -> None:
        """End requests; their iterations get a last output with finish_reason "abort". Unknown ids are ignored."""
        self._desk.abort([request_id] if isinstance(request_id, str) else list(request_id))

    async def reset_prefix_cache(self) -> None:
        """Forget the cached beginnings of prompts."""
        await self._desk.ask(wire.Reset)

    async def stats(self) -> wire.Stats:
        """How much runs and waits, and how full the cache is. Raises ``EngineDeadError`` if nobody answers."""
        return await self._desk.ask(wire.AskStats)

    def on_stats(self, callback: Callable[[Figures], None]) -> Callable[[], None]:
        """Call ``callback`` with what the engine did: every step and every request that ended, nothing twice.

        At most about ten times a second, in the event loop, and not while nothing runs. It begins with the next
        request, and with requests of other fronts too. What ``callback`` raises is logged and ends its calls.
        Returns a function that ends them.
        """
        return self._desk.on_stats(callback)

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
        return self._desk.dead

    @property
    def pid(self) -> int | None:
        """Of the engine's process, while it lives."""
        return None if self.dead is not None else self._engine.pid

    @property
    def num_requests(self) -> int:
        """Requests that somebody waits for."""
        return len(self._desk.waiters)

    def _priority(self, priority: int) -> int:
        return priorities(priority, 1, self.settings.scheduling_policy)[0]

    def shutdown(self) -> None:
        """End the engine's process and free its memory. Safe to call twice."""
        self._desk.die(EngineDeadError("it was shut down; make a new AsyncLLM to go on"))
        self._engine.stop()
