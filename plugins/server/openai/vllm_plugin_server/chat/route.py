"""``/v1/chat/completions``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import CompletionOutput, RequestOutput
from vllm_plugin_server.body import read_body
from vllm_plugin_server.boundary import new_id
from vllm_plugin_server.chat.job import ChatJob, tool_deltas
from vllm_plugin_server.chat.logprobs import chat_logprobs, prompt_logprobs
from vllm_plugin_server.chat.wire import ChatRequest
from vllm_plugin_server.describe import describe
from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.generation import model_of
from vllm_plugin_server.response_format import take_format
from vllm_plugin_server.sampling import sampling_fields, sampling_params
from vllm_plugin_server.stream import DONE, EventStream, after, event, json_answer
from vllm_plugin_server.usage import usage_of, usage_wanted

__all__ = ["chat_params", "make"]


def make(context: ServerContext) -> Any:
    @describe(body=ChatRequest, streams=True, queued=True)
    async def chat(request: Request) -> Response:
        body = await read_body(request, ChatRequest, context)
        model = model_of(context, body.model)
        job = await ChatJob.prepare(context, request, body, chat_params(context, body), priority=body.priority or 0)
        answer = _Answer(context, body, job, model)
        if not body.stream:
            last = None
            async with aclosing(job.outputs(stream=False)) as outputs:
                async for last in outputs:  # noqa: B007
                    pass
            assert last is not None
            return json_answer(answer.whole(last))
        chunks = answer.chunks()
        first = await anext(chunks)  # what the engine refuses is an error with its own status
        return EventStream(after(first, chunks))

    return chat


def chat_params(context: ServerContext, body: ChatRequest) -> Any:
    """How the tokens of a chat's answers are chosen."""
    fields = sampling_fields(body)
    if body.functions or body.function_call:
        raise bad_request("functions and function_call are not supported; tools and tool_choice are", "functions")
    if body.modalities and body.modalities != ["text"]:
        raise bad_request("modalities: answers are text only", "modalities")
    fields["max_tokens"] = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if fields["max_tokens"] == 0:
        raise bad_request("max_tokens must be at least 1", "max_tokens")
    if body.top_logprobs is not None and not body.logprobs:
        if body.top_logprobs:
            raise bad_request("top_logprobs needs logprobs to be true", "top_logprobs")
    elif body.logprobs:
        fields["logprobs"] = body.top_logprobs or 0
    if body.prompt_logprobs is not None and body.stream:
        raise bad_request("prompt_logprobs are not streamed", "prompt_logprobs")
    take_format(fields, body.response_format)
    return sampling_params(context, fields, max_tokens=None)


class _Answer:
    """What is sent for one request."""

    def __init__(self, context: ServerContext, body: ChatRequest, job: ChatJob, model: str) -> None:
        self._context, self._body, self._job, self._model = context, body, job, model
        self._id, self._created = new_id("chatcmpl"), int(time.time())
        self._role = context.settings.response_role
        last = body.messages[-1]
        if not body.add_generation_prompt and body.continue_final_message:
            self._role = last.role
        echoed = body.echo and last.role == self._role and isinstance(last.content, str)
        self._prefix = last.content if echoed else ""
        self._top = body.top_logprobs or 0
        self._details = context.settings.enable_prompt_tokens_details

    def whole(self, output: RequestOutput) -> dict[str, Any]:
        found = self._head("chat.completion")
        found["choices"] = [self._choice(completion) for completion in output.outputs]
        found["usage"] = usage_of([output], self._details)
        if output.prompt_logprobs is not None:
            found["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
        if self._body.return_token_ids:
            found["prompt_token_ids"] = output.prompt_token_ids
        return found

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id, "object": kind, "created": self._created, "model": self._model,
            "system_fingerprint": None,
        }  # fmt: skip

    def _choice(self, completion: CompletionOutput) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self._role, "content": self._prefix + (completion.content or "")}
        message["refusal"] = None
        if completion.tool_calls or completion.reasoning:
            message["content"] = message["content"] or None
        if completion.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in completion.tool_calls
            ]
        if completion.reasoning is not None:
            message["reasoning"] = message["reasoning_content"] = completion.reasoning
        found = {
            "index": completion.index,
            "message": message,
            "logprobs": self._logprobs(completion, 0),
            "finish_reason": self._job.finish_reason(completion),
            "stop_reason": completion.stop_reason,
        }
        if self._body.return_token_ids:
            found["token_ids"] = completion.token_ids
        return found

    def _logprobs(self, completion: CompletionOutput, since: int) -> dict[str, Any] | None:
        if completion.logprobs is None:
            return None
        as_ids = self._body.return_tokens_as_token_ids or self._context.settings.return_tokens_as_token_ids
        return chat_logprobs(completion.logprobs[since:], self._top, as_ids)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The events of a stream. The first comes with the engine's first output."""
        options = self._body.stream_options
        counted = usage_wanted(self._context, options)
        running = counted and options is not None and bool(options.continuous_usage_stats)
        head = self._head("chat.completion.chunk")
        if counted:
            head["usage"] = None
        sent: dict[int, int] = {}  # tokens of each choice
        over: set[int] = set()
        output = None
        async with aclosing(self._job.outputs(stream=True)) as outputs:
            async for output in outputs:
                pieces = []
                for completion in output.outputs:
                    if completion.index in over:
                        continue
                    if completion.index not in sent:
                        sent[completion.index] = 0
                        first = self._chunk(completion.index, {"role": self._role, "content": self._prefix})
                        if self._body.return_token_ids and completion.index == 0:
                            first["prompt_token_ids"] = output.prompt_token_ids
                        pieces.append(first)
                    pieces += self._news(completion, sent[completion.index])
                    sent[completion.index] = len(completion.token_ids)
                    if completion.finished:
                        over.add(completion.index)
                if pieces:
                    use = {"usage": usage_of([output], self._details)} if running else {}
                    yield b"".join([event({**head, **piece, **use}) for piece in pieces])
        if counted and output is not None:
            yield event({**head, "choices": [], "usage": usage_of([output], self._details)})
        yield DONE

    def _news(self, completion: CompletionOutput, since: int) -> list[dict[str, Any]]:
        """Chunks for what an output has more than the one before it."""
        news, finished = completion.delta, completion.finished
        assert news is not None
        delta: dict[str, Any] = {}
        if news.reasoning:
            delta["reasoning"] = delta["reasoning_content"] = news.reasoning
        if news.content:
            delta["content"] = news.content
        if news.calls:
            delta["tool_calls"] = tool_deltas(news.calls)
        tokens = completion.token_ids[since:]
        if not (delta or finished or (tokens and (completion.logprobs is not None or self._body.return_token_ids))):
            return []
        found = self._chunk(completion.index, delta)
        choice = found["choices"][0]
        choice["logprobs"] = self._logprobs(completion, since)
        if finished:
            choice["finish_reason"] = self._job.finish_reason(completion)
            choice["stop_reason"] = completion.stop_reason
        if self._body.return_token_ids:
            choice["token_ids"] = tokens
        return [found]

    def _chunk(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]}
