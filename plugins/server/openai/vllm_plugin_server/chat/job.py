"""One conversation to answer: from messages and tools to outputs whose reasoning, content and calls are told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import attrs
from starlette.requests import Request

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import CompletionOutput, Conversation, ParsedDelta, RequestOutput, SamplingParams
from vllm_plugin_server.chat.prompt import read_conversation
from vllm_plugin_server.chat.wire import ToolChoice
from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.generation import cache_salt, check_length, generate_all

__all__ = ["ChatJob", "choice_of", "tool_deltas"]


@attrs.define(eq=False)
class ChatJob:
    """``prepare`` one, then iterate over ``outputs`` once."""

    context: ServerContext
    request: Request
    conversation: Conversation
    params: SamplingParams
    priority: int
    include_reasoning: bool
    parallel: bool
    named: bool  # one tool must be called
    _read: dict[int, int] = attrs.field(factory=dict)  # characters of each choice that were given out

    @classmethod
    async def prepare(
        cls, context: ServerContext, request: Request, body: Any, params: SamplingParams, *, priority: int = 0
    ) -> ChatJob:
        """``body`` has the fields of ``ChatRequest`` that concern the prompt and the tools.

        Raises ``ApiError`` for what cannot be rendered, is too long, or asks for a tool that is not there.
        """
        choice = choice_of(body)
        if choice not in (None, "none", "auto") and params.structured_outputs is not None:
            raise bad_request("a tool that must be called and another format exclude each other", "tool_choice")
        unread: list[str] = []
        conversation = await read_conversation(context, body, tool_choice=choice, unread=unread)
        request.state.exchange.ignored += unread
        conversation = Conversation(
            attrs.evolve(conversation.prompt, cache_salt=cache_salt(request, body.cache_salt)), conversation.parsing
        )
        check_length(context, len(conversation.prompt.token_ids), params, "messages")
        return cls(
            context, request, conversation, params, priority,
            include_reasoning=body.include_reasoning is not False,
            parallel=body.parallel_tool_calls is not False,
            named=isinstance(choice, dict),
        )  # fmt: skip

    @property
    def prompt_token_ids(self) -> list[int]:
        return self.conversation.prompt.token_ids

    async def outputs(self, *, stream: bool) -> AsyncIterator[RequestOutput]:
        """Each completion has ``delta``, ``content``, ``reasoning`` and ``tool_calls``, parsers or not."""
        running = generate_all(
            self.context, self.request, [self.conversation], self.params, stream=stream, priority=self.priority
        )
        async with aclosing(running) as outputs:
            async for _, output in outputs:
                for completion in output.outputs:
                    self._finish(completion)
                yield output

    def finish_reason(self, completion: CompletionOutput) -> str | None:
        """As OpenAI says it: an answer that stopped with calls has them for its reason."""
        called = completion.tool_calls and not self.named
        return "tool_calls" if completion.finish_reason == "stop" and called else completion.finish_reason

    def _finish(self, completion: CompletionOutput) -> None:
        delta = completion.delta
        if delta is None:  # nobody parses
            at = self._read.get(completion.index, 0)
            delta = ParsedDelta(content=completion.text[at:])
            self._read[completion.index] = len(completion.text)
            completion.content = completion.text
        if not self.parallel:
            delta = attrs.evolve(delta, calls=tuple(call for call in delta.calls if call.index == 0))
            completion.tool_calls = completion.tool_calls[:1]
        if not self.include_reasoning:
            delta, completion.reasoning = attrs.evolve(delta, reasoning=""), None
        completion.delta = delta


def choice_of(body: Any) -> str | dict[str, Any] | None:
    """``tool_choice`` of a body as ``AsyncLLM.read_chat`` takes it. ``ApiError`` for what is none."""
    choice, tools = body.tool_choice, body.tools or []
    if isinstance(choice, ToolChoice):
        if choice.type != "function" or choice.function is None:
            raise bad_request(f"tool_choice must be {_CHOICES}", "tool_choice")
        names = [tool.function.name for tool in tools if tool.function is not None]
        if choice.function.name not in names:
            raise bad_request(f"tool_choice: there is no tool {choice.function.name[:80]!r} in tools", "tool_choice")
        return {"type": "function", "function": {"name": choice.function.name}}
    if choice not in (None, "none", "auto", "required"):
        raise bad_request(f"tool_choice must be {_CHOICES}, not {choice[:40]!r}", "tool_choice")
    if choice == "required" and not tools:
        raise bad_request("tool_choice is required, and there are no tools", "tool_choice")
    return choice


_CHOICES = '"none", "auto", "required" or {"type": "function", "function": {"name": …}}'


def tool_deltas(delta: Sequence[Any]) -> list[dict[str, Any]]:
    """Parts of calls as OpenAI streams them: id, type and name with the first one."""
    found = []
    for part in delta:
        if part.name:
            function = {"name": part.name, "arguments": part.arguments}
            found.append({"index": part.index, "id": part.id, "type": "function", "function": function})
        else:
            found.append({"index": part.index, "function": {"arguments": part.arguments}})
    return found
