"""``/v1/messages`` and ``/v1/messages/count_tokens``."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import CompletionOutput, RequestOutput
from vllm_plugin_server.body import read_body
from vllm_plugin_server.chat.job import ChatJob
from vllm_plugin_server.chat.prompt import read_conversation
from vllm_plugin_server.describe import describe
from vllm_plugin_server.generation import model_of
from vllm_plugin_server.messages.chat import prepare, read_chat
from vllm_plugin_server.messages.errors import ERROR, anthropic_error, anthropic_event
from vllm_plugin_server.messages.output import Blocks
from vllm_plugin_server.messages.wire import MessagesCount, MessagesRequest
from vllm_plugin_server.stream import EventStream, after, event, json_answer

__all__ = ["count_tokens", "messages"]

PING = event({"type": "ping"}, "ping")


def messages(context: ServerContext) -> Any:
    @describe(body=MessagesRequest, streams=True, queued=True)
    async def messages(request: Request) -> Response:
        body = await read_body(request, MessagesRequest, context)
        model = model_of(context, body.model)
        answer = _Answer(body, await prepare(context, request, body), model)
        if not body.stream:
            return json_answer(await answer.whole())
        events = answer.events()
        first = await anext(events)  # what the engine refuses is an error with its own status
        return EventStream(after(first, events), on_error=anthropic_event)

    messages.error_body, messages.error_schema = anthropic_error, ERROR
    return messages


def count_tokens(context: ServerContext) -> Any:
    @describe(body=MessagesCount)
    async def count_tokens(request: Request) -> Response:
        body = await read_body(request, MessagesCount, context)
        model_of(context, body.model)
        found = await read_conversation(context, await read_chat(context, request, body))
        return json_answer({"input_tokens": len(found.prompt.token_ids)})

    count_tokens.error_body, count_tokens.error_schema = anthropic_error, ERROR
    return count_tokens


class _Answer:
    """What is sent for one request."""

    def __init__(self, body: MessagesRequest, job: ChatJob, model: str) -> None:
        self._body, self._job = body, job
        thinking, choice = body.thinking, body.tool_choice
        self._blocks = Blocks(
            show_thinking=thinking is None or thinking.display != "omitted",
            one_call=choice is not None and bool(choice.disable_parallel_tool_use),
        )
        self._message: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": None, "stop_sequence": None,
        }  # fmt: skip

    async def whole(self) -> dict[str, Any]:
        output = None
        async with aclosing(self._job.outputs(stream=False)) as outputs:
            async for output in outputs:  # noqa: B007 - the last one
                pass
        assert output is not None
        completion = output.outputs[0]
        self._blocks.add(completion.delta)  # the whole of it, as there was no output before
        self._blocks.close()
        usage = _usage(output)
        return {**self._message, "content": self._blocks.content, **self._end(completion), "usage": usage}

    async def events(self) -> AsyncIterator[bytes]:
        """The first comes with the engine's first output."""
        output = None
        async with aclosing(self._job.outputs(stream=True)) as outputs:
            async for output in outputs:
                pieces = []
                if "usage" not in self._message:
                    self._message["usage"] = _usage(output)
                    pieces += [_event({"type": "message_start", "message": self._message}), PING]
                pieces += [_event(one) for one in self._blocks.add(output.outputs[0].delta)]
                if pieces:
                    yield b"".join(pieces)
        assert output is not None
        end = {"type": "message_delta", "delta": self._end(output.outputs[0]), "usage": _usage(output)}
        pieces = [_event(one) for one in self._blocks.close()]
        yield b"".join([*pieces, _event(end), _event({"type": "message_stop"})])

    def _end(self, completion: CompletionOutput) -> dict[str, Any]:
        reason, sequence = "end_turn", None
        if completion.finish_reason == "length":
            within = len(completion.token_ids) < self._body.max_tokens
            reason = "model_context_window_exceeded" if within else "max_tokens"
        elif isinstance(completion.stop_reason, str):
            reason, sequence = "stop_sequence", completion.stop_reason
        elif completion.tool_calls:
            reason = "tool_use"
        return {"stop_reason": reason, "stop_sequence": sequence}


def _event(content: dict[str, Any]) -> bytes:
    return event(content, content["type"])


def _usage(output: RequestOutput) -> dict[str, Any]:
    """Anthropic counts tokens from the cache apart."""
    cached = output.num_cached_tokens
    return {
        "input_tokens": len(output.prompt_token_ids) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": len(output.outputs[0].token_ids),
    }
