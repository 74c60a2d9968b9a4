"""The offline engine: prompts in, texts out. Names and shapes are vLLM's."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from vllm_core.config.engine import EngineSettings
from vllm_core.config.load import from_kwargs
from vllm_core.engine.batch_call import (
    Bar,
    failed_output,
    priorities,
    progress_bar,
    refuse_lora,
    sampling_each,
    tokenization,
)
from vllm_core.engine.chat_parsing import ChatParsing
from vllm_core.engine.desk import Desk
from vllm_core.engine.errors import RequestError
from vllm_core.engine.fleet.plan import refuse_several
from vllm_core.engine.local import LocalEngine
from vllm_core.engine.missing import explain_missing
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.prompts import Prompt, as_list, read_chat, read_prompt, render_chat
from vllm_core.engine.sampling_params import SamplingParams, unmet_defaults

__all__ = ["LLM"]

log = logging.getLogger(__name__)

Read = Callable[[Any, str], Prompt]  # (prompt as given, request id)


class LLM:
    """A model that answers in this process. Calls from several threads take turns, a step each.

    ``model`` and every other setting of ``EngineSettings`` by keyword; unknown ones are refused.
    """

    def __init__(self, model: str, **settings: Any) -> None:
        self._start(from_kwargs(EngineSettings, {"model": model, **settings}))
        for warning in self.built.warnings:
            log.warning("%s", warning)

    @classmethod
    def from_settings(cls, settings: EngineSettings) -> LLM:
        """From settings that were read elsewhere: files, the environment, flags."""
        llm = cls.__new__(cls)
        llm._start(settings)
        return llm

    @classmethod
    def from_built(cls, built: Any) -> LLM:
        """From an engine that runs already, a ``build.BuiltEngine``."""
        llm = cls.__new__(cls)
        llm._take(built)
        return llm

    def _start(self, settings: EngineSettings) -> None:
        refuse_several(settings)
        from vllm_core.engine.build import build_engine  # imports torch

        self._take(build_engine(settings))

    def _take(self, built: Any) -> None:
        self._stop = weakref.finalize(self, _stop, built)
        self.built = built
        self.settings: EngineSettings = built.settings
        self.timings: dict[str, float] = built.timings  # seconds by stage of the start
        self._tokenizer, self._renderer, self._parsers = built.tokenizer, built.renderer, built.parsers
        self._defaults = SamplingParams.from_defaults(built.generation_config)
        for unmet in unmet_defaults(built.generation_config):
            log.warning("%s", unmet)
        self._engine = LocalEngine.of(built)
        self._desk = Desk(self._engine)

    # ---- generating

    def generate(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: Bar = True,
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Continue prompts, all at once; outputs in the prompts' order.

        prompts              text, {"prompt": text}, {"prompt_token_ids": [...]}, or a list of these
        sampling_params      one for all, one for each, or None for the model's defaults
        priority             one for all or one for each, lower ones first; for scheduling_policy="priority"
        tokenization_kwargs  {"add_special_tokens": bool}
        lora_request         None: adapters do not exist yet

        A prompt that cannot be served gets an output with finish_reason "error" and its ``error``;
        the others are answered. If none can be served, ``RequestError`` is raised.
        """
        refuse_lora(lora_request)
        how = tokenization(tokenization_kwargs)

        def read(prompt: Any, name: str) -> Prompt:
            return read_prompt(prompt, self._tokenizer, name, **how)

        return self._answer(as_list(prompts), read, sampling_params, use_tqdm, priority)

    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: Bar = True,
        lora_request: Any = None,
        *,
        priority: int | Sequence[int] | None = None,
        **options: Any,
    ) -> list[RequestOutput]:
        """Answer a conversation, or a list of them. Otherwise as ``generate``.

        messages  [{"role": "user", "content": "..."}, ...]
        options   for the chat template: chat_template, chat_template_content_format, add_generation_prompt,
                  continue_final_message, tools, chat_template_kwargs, and whatever the template itself reads;
                  tool_choice ("none", "auto", "required" or a function as in OpenAI's API) says whether one is called

        Where the model has parsers (settings tool_call_parser and reasoning_parser), outputs have ``reasoning``,
        ``content`` and, if there are tools, ``tool_calls`` beside the whole ``text``.
        """
        refuse_lora(lora_request)
        several = isinstance(messages, list | tuple) and bool(messages) and isinstance(messages[0], list | tuple)
        return self._answer(
            list(messages) if several else [messages],
            lambda m, name: self._render(m, name, options),
            sampling_params,
            use_tqdm,
            priority,
            self._parsing(options),
        )

    def stream(
        self, prompt: Any, sampling_params: SamplingParams | None = None, **options: Any
    ) -> Iterator[RequestOutput]:
        """Outputs as they grow, each with the whole text so far. ``prompt``: as in ``generate``, or messages.

        Leaving the iteration ends the request.
        """
        name = self._desk.next_id()
        if isinstance(prompt, list | tuple) and prompt and isinstance(prompt[0], dict) and "role" in prompt[0]:
            read, parsing = self._render(prompt, name, options), self._parsing(options)
        elif options:
            raise TypeError(f"{', '.join(options)}: options are for messages, and this prompt is none")
        else:
            read, parsing = read_prompt(prompt, self._tokenizer, name), None
        params = self._defaults if sampling_params is None else sampling_params
        params = params if parsing is None else parsing.prepare(params)
        return self._outputs(self._desk.stream(name, read, params), parsing)

    def _outputs(self, stream: Iterator[RequestOutput], parsing: ChatParsing | None) -> Iterator[RequestOutput]:
        """As ``stream``; the iteration keeps this engine alive, even if nobody else does."""
        with closing(stream):  # type: ignore[type-var]
            for output in stream:
                yield output if parsing is None else parsing.read(output)

    def render_chat(self, messages: Sequence[dict[str, Any]], **options: Any) -> str:
        """The prompt that ``chat`` makes of a conversation."""
        return render_chat(messages, self._renderer, options)

    def _answer(
        self,
        prompts: list[Any],
        read: Read,
        params: Any,
        use_tqdm: Bar,
        priority: Any,
        parsing: ChatParsing | None = None,
    ) -> list[RequestOutput]:
        each = sampling_each(params, len(prompts), self._defaults)
        if parsing is not None:
            each = [parsing.prepare(wanted) for wanted in each]
        order = priorities(priority, len(prompts), self.settings.scheduling_policy)
        names = [self._desk.next_id() for _ in prompts]
        done: dict[str, RequestOutput] = {}
        errors: list[RequestError] = []
        bar = progress_bar(use_tqdm, len(prompts))
        try:
            for name, prompt, wanted, place in zip(names, prompts, each, order, strict=True):
                try:
                    self._desk.submit(name, read(prompt, name), wanted, priority=place)
                except RequestError as error:
                    errors.append(error)
                    done[name] = failed_output(name, prompt, error)
            if errors and len(errors) == len(prompts):
                raise errors[0]
            for refused in errors:
                log.error("%s", refused)
            done |= self._desk.collect([name for name in names if name not in done], bar.update)
        finally:
            self._desk.forget(names)
            bar.close()
        outputs = [done[name] for name in names]
        # Some requests are found to be impossible later than others: by whoever compiles their grammar.
        if outputs and all(o.error and not any(s.token_ids for s in o.outputs) for o in outputs):
            raise RequestError(outputs[0].error, names[0])
        return outputs if parsing is None else [parsing.read(output) for output in outputs]

    def _parsing(self, options: dict[str, Any]) -> ChatParsing | None:
        return None if self._parsers is None else self._parsers.for_chat(options)

    def _render(self, messages: Any, name: str, options: dict[str, Any]) -> Prompt:
        return read_chat(messages, self._tokenizer, self._renderer, name, options)

    # ---- the rest

    def get_tokenizer(self) -> Any:
        if self._tokenizer is None:
            raise ValueError("there is no tokenizer: this engine was made with skip_tokenizer_init=True")
        return self._tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What requests get that bring none: generation_config.json's, where it says something."""
        return self._defaults

    def reset_prefix_cache(self) -> None:
        """Forget the cached beginnings of prompts."""
        self._engine.core.cache.reset_prefix_cache()

    def shutdown(self) -> None:
        """End the model's processes and free its memory. Safe to call twice."""
        self._engine.end(RuntimeError("it was shut down; make a new LLM to go on"))
        self._stop()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(explain_missing(name, [n for n in dir(type(self)) if not n.startswith("_")]))


def _stop(built: Any) -> None:
    built.executor.stop()
    built.sinks.close()
    if built.grammars is not None:
        built.grammars.close()
