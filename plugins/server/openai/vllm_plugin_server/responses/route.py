"""``POST /v1/responses``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import SamplingParams
from vllm_plugin_server.body import read_body
from vllm_plugin_server.chat.job import ChatJob
from vllm_plugin_server.chat.prompt import read_conversation
from vllm_plugin_server.describe import describe
from vllm_plugin_server.errors import ApiError, bad_request, name_fields
from vllm_plugin_server.generation import model_of
from vllm_plugin_server.response_format import take_format
from vllm_plugin_server.responses.chat import LOGPROBS, AsChat, as_chat
from vllm_plugin_server.responses.desk import Desk, Live, sse
from vllm_plugin_server.responses.run import Run, new_id
from vllm_plugin_server.responses.store import Turn, history
from vllm_plugin_server.responses.wire import ResponsesCount, ResponsesRequest
from vllm_plugin_server.sampling import sampling_fields, sampling_params
from vllm_plugin_server.stream import EventStream, after, json_answer

__all__ = ["create", "error_event", "input_tokens"]


def create(context: ServerContext) -> Any:
    desk = Desk.of(context)

    @describe(body=ResponsesRequest, streams=True, queued=True)
    async def create(request: Request) -> Response:
        body = await read_body(request, ResponsesRequest, context)
        model = model_of(context, body.model)
        if body.background:
            desk.need_store("background", "background")
            if body.store is False:
                raise bad_request("background needs store: the response is fetched later", "background")
        made, before = await _conversation(context, desk, request, body)
        wants_logprobs = LOGPROBS in (body.include or ())
        params = _params(context, body, made, wants_logprobs)
        job = await ChatJob.prepare(context, request, made.chat, params, priority=made.chat.priority or 0)
        # A limit beyond the context is one that the context sets.
        room = max(context.engine.ready.longest - len(job.prompt_token_ids), 1)
        if body.max_output_tokens is not None:
            job.params = attrs.evolve(job.params, max_tokens=min(body.max_output_tokens, room))
        keeps = body.store is not False and not desk.why_not
        response = _response(body, model, job.params, keeps)
        run = Run(response, one_call=body.parallel_tool_calls is False, top=body.top_logprobs or 0)
        making = _Making(context, job, run, stream=bool(body.stream or wants_logprobs))
        owner = request.state.key
        if body.background:
            live = Live(owner, run, made.given, before, bool(body.stream), [] if body.stream else None)
            desk.start(live, making.events)
            return EventStream(live.follow(), on_error=error_event) if body.stream else json_answer(response)

        def keep() -> None:
            if keeps:
                desk.keep(owner, run, made.given, before)

        if not body.stream:
            async with aclosing(making.events()) as running:
                async for _ in running:
                    pass
            keep()
            return json_answer(response)
        pieces = _pieces(making, keep)
        first = await anext(pieces)  # what the engine refuses is an error with its own status
        return EventStream(after(first, pieces), on_error=lambda error: b"".join(map(sse, run.fail(error))))

    return create


def input_tokens(context: ServerContext) -> Any:
    desk = Desk.of(context)

    @describe(body=ResponsesCount)
    async def input_tokens(request: Request) -> Response:
        body = await read_body(request, ResponsesCount, context)
        model_of(context, body.model)
        made, _ = await _conversation(context, desk, request, body)
        found = await read_conversation(context, made.chat)
        return json_answer({"object": "response.input_tokens", "input_tokens": len(found.prompt.token_ids)})

    return input_tokens


async def _conversation(
    context: ServerContext, desk: Desk, request: Request, body: ResponsesCount
) -> tuple[AsChat, Turn | None]:
    owner = request.state.key
    before = None if body.previous_response_id is None else desk.turn(owner, body.previous_response_id)
    made = await context.work(
        as_chat,
        body,
        lambda: history(before),
        lambda id: desk.store.item(owner, id),
        context.settings.lenient_requests,
        size=len(request.state.body) + (0 if before is None else before.length),
    )
    request.state.exchange.ignored += made.ignored
    return made, before


# What the engine knows by other names.
_NAMES = {"logprobs": "top_logprobs", "max_tokens": "max_output_tokens", "structured_outputs": "text.format"}


def _params(context: ServerContext, body: ResponsesRequest, made: AsChat, wants_logprobs: bool) -> SamplingParams:
    fields = sampling_fields(made.chat)
    name_fields(_NAMES)
    if wants_logprobs:
        fields["logprobs"] = body.top_logprobs or 0
    take_format(fields, made.chat.response_format)
    return sampling_params(context, fields, max_tokens=None)


class _Making:
    """From the engine's outputs to events."""

    def __init__(self, context: ServerContext, job: ChatJob, run: Run, *, stream: bool) -> None:
        self.context, self.job, self.run, self.stream = context, job, run, stream

    async def events(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Without the first ones, which ``Run.begin`` gives."""
        async with aclosing(self.job.outputs(stream=self.stream)) as outputs:
            async for output in outputs:
                if events := self.run.take(output):
                    yield events
        yield self.run.end(await self._reasoning_tokens())

    async def _reasoning_tokens(self) -> int:
        """The engine counts no tokens of reasoning, so its text is tokenized again."""
        text = self.run.reasoning
        if not text:
            return 0
        encode = self.context.engine.get_tokenizer().encode
        return len(await self.context.work(encode, text, add_special_tokens=False, size=len(text)))


async def _pieces(making: _Making, keep: Any) -> AsyncIterator[bytes]:
    head = making.run.begin()
    async with aclosing(making.events()) as running:
        async for events in running:
            if making.run.over:
                keep()  # before the client reads that it has ended, and goes on from it
            yield b"".join(map(sse, head + events))
            head = []


def error_event(error: ApiError) -> bytes:
    """Of a stream that only tells of a response."""
    return sse({"type": "error", "code": error.code, "message": error.message, "param": error.param})


def _response(body: ResponsesRequest, model: str, params: SamplingParams, stored: bool) -> dict[str, Any]:
    """The response before anything is made, with what was asked for."""
    reasoning, text = body.reasoning, body.text
    form: dict[str, Any] = {"type": "text"}
    if text is not None and text.format is not None:
        given = text.format
        form = {"type": given.type}
        if given.type == "json_schema":
            form |= {"name": given.name or "answer", "schema": given.schema, "strict": given.strict}
            form["description"] = given.description
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued" if body.background else "in_progress",
        "background": bool(body.background),
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": stored,
        "temperature": params.temperature,
        "text": {"format": form, "verbosity": text.verbosity if text else None},
        "tool_choice": body.tool_choice or "auto",
        "tools": [{"strict": None, "parameters": None, **tool} for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
    }
