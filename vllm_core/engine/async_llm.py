"""The engine for servers: it runs in a process of its own, requests are coroutines.

Longer than other files, so that all that a server may call stands in one place. docs/async_engine.md tells of it.
"""

from __future__ import annotations

import secrets
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
from vllm_core.engine.fleet.engines import Engines, ended_on_error, find, own
from vllm_core.engine.fleet.fleet import Fleet
from vllm_core.engine.fleet.routing import router_named
from vllm_core.engine.fleet.stats import FleetStats
from vllm_core.engine.intake import Intake
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.prompts import Prompt, read_chat, read_prompt
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.shared_facts import SharedFacts
from vllm_core.engine.warming import Warming
from vllm_core.plugins.explain import explain

__all__ = ["AsyncLLM", "Conversation"]


@attrs.frozen
class Conversation:
    """A conversation as a prompt, and what reads the answers to it; None: nothing has to be read out of them."""

    prompt: Prompt
    parsing: ChatParsing | None


class AsyncLLM:
    """``model`` and every other setting of ``EngineSettings`` by keyword, as for ``LLM``.

    Made anywhere (it blocks until the model is loaded), used from one event loop.

    restarts        engines started in place of ones that have ended, at most, within ``restart_window`` seconds
    restart_window  seconds
    carry_over      requests of an engine that was killed go on in the next one, token for token; else they get
                    ``EngineDeadError``. Those that were in a step which failed never go on.
    """

    def __init__(
        self,
        model: str,
        *,
        restarts: int = 0,
        restart_window: float = 600.0,
        carry_over: bool = False,
        **settings: Any,
    ) -> None:
        given = from_kwargs(EngineSettings, {"model": model, **settings})
        self._own(given, restarts, restart_window, carry_over)

    @classmethod
    def from_settings(
        cls, settings: EngineSettings, *, restarts: int = 0, restart_window: float = 600.0, carry_over: bool = False
    ) -> AsyncLLM:
        """From settings that were read elsewhere: files, the environment, flags."""
        llm = cls.__new__(cls)
        llm._own(settings, restarts, restart_window, carry_over)
        return llm

    def _own(self, settings: EngineSettings, restarts: int, window: float, carry_over: bool) -> None:
        with ended_on_error(own(settings, restarts, window)) as engines:  # they import while we resolve
            self._start(engines, settings, carry_over)

    @classmethod
    def connect(cls, address: str, settings: EngineSettings, *, carry_over: bool = False) -> AsyncLLM:
        """Another front of an engine that some other process of this machine and user started.

        address    its ``AsyncLLM.address``
        settings   its ``AsyncLLM.settings``: choices that lead to another lock are refused

        Only what makes tokens of text and text of tokens is made here: no model is chosen, and no torch imported,
        unless the tokenizer or a parser needs it. The engine, its restarts and its end are the other process's;
        ``shutdown`` ends this front and its requests.
        """
        llm = cls.__new__(cls)
        llm.settings = settings
        with ended_on_error(find(address)) as engines:
            facts = engines.facts()
            llm.lock, llm.timings = facts.lock_with(settings), {}
            llm._selector = facts.selector(settings)
            llm.text = facts.read_text(llm._selector, settings)
            engines.attach(llm.lock.digest)
            llm._take(engines, facts, carry_over, front=f"{secrets.token_hex(8)}:")
        return llm

    def _start(self, engines: Engines, settings: EngineSettings, carry_over: bool) -> None:
        from vllm_core.engine.resolve import resolve

        resolved = resolve(settings)
        self.settings = resolved.settings  # plain data, which another process can use alike
        self.lock, self.timings = resolved.lock, resolved.timings
        self._selector = resolved.selector
        told: list[SharedFacts] = []

        def read_text() -> None:
            """Takes about as long as the engine needs for its weights: done while it reads them."""
            from vllm_core.engine.build import open_text

            self.text = open_text(resolved)
            told.append(SharedFacts.of(resolved))
            engines.tell(told[0])

        engines.start(resolved.settings, resolved.lock.digest, read_text)
        self._take(engines, told[0], carry_over)

    def _take(self, engines: Engines, facts: SharedFacts, carry_over: bool, front: str = "") -> None:
        self._engines, self._engine = engines, engines.first
        self.ready, self._choices = self._engine.ready, facts.choices
        self.timings = {**self.timings, **self.ready.timings}
        intake = Intake(
            vocab_size=self.ready.vocab_size,
            longest=self.ready.longest,
            seed=self.settings.seed,
            max_logprobs=self.settings.max_logprobs,
            eos_token_ids=self.text.eos_token_ids,
            tokenizer=self.text.tokenizer,
            processors=facts.processors,
            policy=facts.policy,
            grammars=facts.grammars,
        )
        processor = OutputProcessor(self.text.tokenizer)
        fleet = Fleet(engines.by_number, router_named(self.settings.data_parallel_routing), self.settings.max_rows)
        self._desk, self._fleet = AsyncDesk(fleet, intake, processor, front=front, carry=carry_over), fleet
        if not front:
            self._desk.warming = Warming(facts.grammars, self.text, self.ready.vocab_size)
        self.generation_config = facts.generation_config  # what the model's authors recommend
        self._defaults = SamplingParams.from_defaults(facts.generation_config)

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

    def read_chat(self, messages: Sequence[dict[str, Any]], **options: Any) -> Conversation:
        """A conversation through the chat template, for ``generate``; ``options`` as for ``chat``.

        May be called in any thread, which a template of unknown origin makes wise.
        """
        parsing = None if self.text.parsers is None else self.text.parsers.for_chat(options)
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

    async def stats(self) -> FleetStats:
        """How much runs and waits, and how full the cache is, in all and in each engine.

        Raises ``EngineDeadError`` if nobody answers.
        """
        return self._fleet.stats(await self._desk.ask(wire.AskStats))

    def on_stats(self, callback: Callable[[Figures], None]) -> Callable[[], None]:
        """Call ``callback`` with what the engine did: every step and every request that ended, nothing twice.

        At most about ten times a second, in the event loop, and not while nothing runs. It begins with the next
        request, and with requests of other fronts too. What ``callback`` raises is logged and ends its calls.
        Returns a function that ends them.
        """
        return self._desk.watchers.add(callback)

    # ---- the rest

    def get_tokenizer(self) -> Any:
        if self.text.tokenizer is None:
            raise ValueError("there is no tokenizer: this engine was made with skip_tokenizer_init=True")
        return self.text.tokenizer

    def explain(self) -> dict[str, Any]:
        """What was chosen for the engine, by whom, and why, as JSON can hold it."""
        known = {choice["hook"] for choice in self._choices}
        later = [choice for choice in explain(self._selector.decisions)["choices"] if choice["hook"] not in known]
        return {"choices": [*self._choices, *later]}

    def get_default_sampling_params(self) -> SamplingParams:
        """What requests get that bring none: generation_config.json's, where it says something."""
        return self._defaults

    @property
    def address(self) -> str:
        """Where other processes of this machine and user find the engines: ``connect``."""
        return self._engines.address

    @property
    def pid(self) -> int:
        """The engine's process, the last one if there is none; the first engine's, if there are several."""
        return self._engine.pid

    @property
    def pids(self) -> dict[int, int]:
        """Of the engines of this host, by number: their processes."""
        far = self._engines.far
        return {replica.number: replica.engine.pid for replica in self._fleet.replicas if replica.number not in far}

    @property
    def states(self) -> dict[int, str]:
        """Of all engines, by number: "starting", "ready", "restarting" or "dead"."""
        return {replica.number: replica.engine.state.now for replica in self._fleet.replicas}

    @property
    def state(self) -> str:
        """ "starting", "ready", "restarting" or "dead"; of several engines, "ready" as long as one is."""
        return "dead" if self.dead is not None else self._fleet.state.now

    async def state_change(self) -> str:
        """Wait for the next state, and return it."""
        self._desk.watch()
        return await self._fleet.state.change()

    async def check_health(self) -> None:
        """Return if requests are answered; else raise ``EngineDeadError`` with the reason.

        ``EngineRestartingError`` and ``EngineStuckError`` are kinds of it, which pass. Takes no time: the engine is
        looked at ten times a second, from the first call of any coroutine of this class on.
        """
        self._desk.check()

    @property
    def dead(self) -> EngineDeadError | None:
        """Why the engine has ended for good, if it has."""
        return self._desk.dead

    @property
    def num_requests(self) -> int:
        """Requests that somebody waits for."""
        return len(self._desk.waiters)

    def _priority(self, priority: int) -> int:
        return priorities(priority, 1, self.settings.scheduling_policy)[0]

    def shutdown(self, *, now: bool = False) -> None:
        """End the engines' processes and free their memory, or leave those that ``connect`` found. Safe to call twice.

        ``now``: kill them, without waiting until they have ended their steps and what they hold.
        """
        self._desk.close()
        self._engines.stop(now)
