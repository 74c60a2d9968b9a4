"""Which parsers read a model's answers: those the user named, or those made for its chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.chat import OPTIONS, default_template
from vllm_core.engine.chat_parsing import ChatParsing
from vllm_core.engine.parsing import Made
from vllm_core.engine.tool_choice import ForcedCalls, read_tool_choice
from vllm_core.interfaces.queries import ParserQuery
from vllm_core.interfaces.tokenizer import Tokenizer
from vllm_core.plugins import Decision, Selector

__all__ = ["Parsers", "no_parser"]

FLAGS = {"tool_parser": "--tool-call-parser", "reasoning_parser": "--reasoning-parser"}

Target = Callable[[Tokenizer, Any], Any]


def no_parser(tokenizer: Tokenizer, given: Any) -> None:
    """The core's own offer: texts are left as they are."""


class Parsers:
    """The parsers of one engine. A named one is chosen at once, another when a chat first needs it."""

    def __init__(
        self, selector: Selector, settings: EngineSettings, tokenizer: Tokenizer, architectures: Sequence[str]
    ) -> None:
        self._selector, self._tokenizer, self._architectures = selector, tokenizer, tuple(architectures)
        self._named = {"tool_parser": settings.tool_call_parser, "reasoning_parser": settings.reasoning_parser}
        self._chosen: dict[str, tuple[Decision, Target] | None] = {}
        for hook, name in self._named.items():
            if name is not None:
                self._choose(hook)

    def choose(self) -> None:
        """Choose both now. Raises the error that names what is missing, or the line that settles it."""
        for hook in self._named:
            self._choose(hook)

    def for_chat(self, request_options: Mapping[str, Any]) -> ChatParsing | None:
        """What reads the answers to a chat with these options of ``LLM.chat``; None if nothing is to be done."""
        tools = [_plain(tool) for tool in request_options.get("tools") or ()]
        given = {k: v for k, v in request_options.items() if k not in OPTIONS}
        more = request_options.get("chat_template_kwargs")
        given |= more if isinstance(more, Mapping) else {}
        choice = read_tool_choice(request_options.get("tool_choice"), tools)
        tool = forced = None
        if choice.forced:
            tool, forced = Made(partial(ForcedCalls, choice.name), "the reader of forced calls"), choice.format()
        elif choice.mode == "auto":
            tool = self._made("tool_parser", tools)
        reasoning = self._made("reasoning_parser", given)
        return None if tool is reasoning is None else ChatParsing(tool, reasoning, given, forced)

    def reasoning(self, given: Mapping[str, Any]) -> Made | None:
        """The reasoning parser for a chat with these arguments of its template; None without one."""
        return self._made("reasoning_parser", given)

    def _made(self, hook: str, given: Any) -> Made | None:
        chosen = self._choose(hook)
        if chosen is None:
            return None
        decision, target = chosen
        label = f'{hook.replace("_", " ")} "{decision.offer.name}" ({decision.provided.owner})'
        return Made(partial(target, self._tokenizer, given, **decision.offer.options), label)

    def _choose(self, hook: str) -> tuple[Decision, Target] | None:
        if hook not in self._chosen:
            named, template = self._named[hook], getattr(self._tokenizer, "chat_template", None)
            if hook == "tool_parser" and isinstance(template, Mapping) and "tool_use" in template:
                template = template["tool_use"]
            query = ParserQuery(
                name=named or "", architectures=self._architectures, chat_template=default_template(template)
            )
            decision = self._selector.choose(hook, query, named, asked_by=FLAGS[hook])
            target = decision.load()
            self._chosen[hook] = None if target is no_parser else (decision, target)
        return self._chosen[hook]


def _plain(tool: Any) -> Mapping[str, Any]:
    """A function stands for its signature and docstring, as chat templates take it."""
    if isinstance(tool, Mapping) or not callable(tool):
        return tool
    from transformers.utils import get_json_schema

    try:
        return get_json_schema(tool)
    except Exception:  # the chat template is given it, too, and says what is wrong with it
        return {}
