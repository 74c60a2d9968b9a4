"""A request of Anthropic's API as a chat."""

from __future__ import annotations

from typing import Any

import attrs
from starlette.requests import Request

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.body import to_record
from vllm_plugin_server.chat.job import ChatJob
from vllm_plugin_server.chat.wire import ChatRequest
from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.messages.conversation import Conversation
from vllm_plugin_server.messages.tools import chat_tool_choice, chat_tools
from vllm_plugin_server.messages.wire import MessagesCount, MessagesRequest, Thinking
from vllm_plugin_server.sampling import sampling_fields, sampling_params
from vllm_plugin_server.typed_items import Reader

__all__ = ["as_chat", "prepare", "read_chat"]

THINKING = ("enable_thinking", "thinking")  # as templates call it; each reads one of them at most


async def read_chat(context: ServerContext, request: Request, body: MessagesCount) -> ChatRequest:
    """The same request to ``/v1/chat/completions``, without sampling fields."""
    size = len(request.state.body)
    chat, ignored = await context.work(as_chat, body, context.settings.lenient_requests, size=size)
    request.state.exchange.ignored += ignored
    return chat


def as_chat(body: MessagesCount, lenient: bool) -> tuple[ChatRequest, list[str]]:
    """... and the names of fields without effect. May run in any thread."""
    for name in ("mcp_servers", "container", "thread"):
        if getattr(body, name, None):
            raise bad_request(f"{name}: there is no such service here; leave it out", name, "unsupported_value")
    reader = Reader(lenient=lenient)
    conversation = Conversation(reader)
    conversation.instruct(body.system)
    conversation.add(body.messages)
    tools = chat_tools(body.tools, reader)
    choice = body.tool_choice
    chat: dict[str, Any] = {
        "messages": conversation.messages,
        "tools": tools or None,
        "tool_choice": chat_tool_choice(choice, tools),
        "parallel_tool_calls": not (choice is not None and choice.disable_parallel_tool_use),
        "continue_final_message": conversation.continues,
        "add_generation_prompt": not conversation.continues,
        "chat_template_kwargs": {**_thinking(body.thinking, reader), **(body.chat_template_kwargs or {})},
        "reasoning_effort": None if body.output_config is None else body.output_config.effort,
    }
    return to_record(chat, ChatRequest), sorted(reader.idle)


async def prepare(context: ServerContext, request: Request, body: MessagesRequest) -> ChatJob:
    """Ready to be run. ``ApiError`` for what cannot be served."""
    chat = await read_chat(context, request, body)
    chat.temperature, chat.top_p, chat.top_k = body.temperature, body.top_p, body.top_k
    chat.stop = body.stop_sequences
    fields = sampling_fields(chat)
    if body.output_config is not None and body.output_config.format is not None:
        fields["structured_outputs"] = {"json": body.output_config.format.schema}
    job = await ChatJob.prepare(context, request, chat, sampling_params(context, fields, max_tokens=None))
    _rename(request.state.exchange.ignored, body)
    # A limit beyond the context is no error in this API: the answer then ends where the context does.
    room = context.engine.ready.longest - len(job.prompt_token_ids)
    job.params = attrs.evolve(job.params, max_tokens=min(body.max_tokens, room))
    return job


def _rename(ignored: list[str], body: MessagesRequest) -> None:
    """Name what the template does not read as the client knows it."""
    own = body.chat_template_kwargs or {}
    words = [f"chat_template_kwargs.{name}" for name in THINKING if name not in own]
    if body.thinking is not None and words and all(word in ignored for word in words):
        ignored.append("thinking")
    theirs = {"reasoning_effort": "output_config.effort"}
    ignored[:] = [theirs.get(name, name) for name in ignored if name not in words]


def _thinking(thinking: Thinking | None, reader: Reader) -> dict[str, bool]:
    if thinking is None:
        return {}
    if thinking.type not in ("enabled", "disabled"):
        reader.idle.add("thinking")
        return {}
    if thinking.budget_tokens is not None:
        reader.idle.add("thinking.budget_tokens")
    wanted = thinking.type == "enabled"
    return dict.fromkeys(THINKING, wanted)
