"""A request to ``/v1/responses`` as a chat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from vllm_plugin_server.body import to_record
from vllm_plugin_server.chat.wire import ChatRequest
from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.responses.conversation import Conversation
from vllm_plugin_server.responses.items import kept_items
from vllm_plugin_server.responses.tools import chat_tool_choice, chat_tools
from vllm_plugin_server.responses.wire import ResponsesCount, ResponsesRequest, TextFormat
from vllm_plugin_server.typed_items import Reader

__all__ = ["LOGPROBS", "AsChat", "as_chat"]

NOT_HERE = {
    "conversation": "conversations are not kept; go on with previous_response_id, or send all items",
    "prompt": "prompt templates are not kept here; send instructions and input",
    "previous_input_messages": "send items of the conversation in input",
    "previous_response": "send its items in input, or previous_response_id",
    "enable_response_messages": "/tokenize shows what the model reads",
}
LOGPROBS = "message.output_text.logprobs"
INCLUDE = {
    LOGPROBS: True,
    "reasoning.encrypted_content": False,  # reasoning is given as text, which clients may send back
    "file_search_call.results": False,
    "web_search_call.results": False,
    "web_search_call.action.sources": False,
    "message.input_image.image_url": False,
    "computer_call_output.output.image_url": False,
    "code_interpreter_call.outputs": False,
}
SAME = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "logit_bias", "seed", "stop", "ignore_eos", "skip_special_tokens", "include_stop_str_in_output",
    "include_reasoning", "structured_outputs", "vllm_xargs", "priority", "cache_salt",
)  # fmt: skip


@attrs.frozen
class AsChat:
    """``chat``: the request to chats; ``given``: this request's items; ``ignored``: fields without effect."""

    chat: ChatRequest
    given: list[Mapping[str, Any]]
    ignored: list[str]


def as_chat(
    body: ResponsesCount,
    before: Callable[[], Iterable[Mapping[str, Any]]],
    find: Callable[[str], Mapping[str, Any] | None],
    lenient: bool,
) -> AsChat:
    """May run in any thread.

    before   gives the items of the responses that this one goes on from
    find     an item that is kept, by its id
    """
    for name, instead in NOT_HERE.items():
        if getattr(body, name, None):
            raise bad_request(f"{name} cannot be served: {instead}", name, "unsupported_value")
    reader = Reader(lenient=lenient)
    conversation = Conversation(reader, find)
    if body.instructions:
        conversation.instruct(body.instructions)
    conversation.add(before(), "previous_response_id")
    earlier = len(conversation.items)
    given = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
    conversation.add(given)
    choice, tools = chat_tool_choice(body.tool_choice, chat_tools(body.tools, reader), reader)
    chat: dict[str, Any] = {
        "messages": conversation.messages,
        "tools": tools or None,
        "tool_choice": choice,
        "parallel_tool_calls": body.parallel_tool_calls,
        "continue_final_message": conversation.continues,
        "add_generation_prompt": not conversation.continues,
        "chat_template_kwargs": body.chat_template_kwargs,
        "reasoning_effort": None if body.reasoning is None else body.reasoning.effort,
        "truncate_prompt_tokens": -1 if body.truncation == "auto" else None,
    }
    record = to_record(chat, ChatRequest)
    ignored = sorted(reader.idle) + _nested(body)
    if isinstance(body, ResponsesRequest):
        ignored += _included(body, reader)
        for name in SAME:
            setattr(record, name, getattr(body, name))
    if body.text is not None and body.text.format is not None:
        if record.structured_outputs is not None:
            raise bad_request("text.format and structured_outputs exclude each other", "text.format")
        record.response_format = _format(body.text.format)
    return AsChat(record, kept_items(conversation.items[earlier:]), ignored)


def _format(given: TextFormat) -> Any:
    found: dict[str, Any] = {"type": given.type}
    if given.type == "json_schema":
        if given.schema is None:
            raise bad_request("text.format of type json_schema needs a schema", "text.format.schema", "missing_field")
        found["json_schema"] = {"name": given.name or "answer", "schema": given.schema}
    return to_record({"messages": [{"role": "user"}], "response_format": found}, ChatRequest).response_format


def _included(body: ResponsesRequest, reader: Reader) -> list[str]:
    names = [reader.choice(name, INCLUDE, f"include[{i}]") for i, name in enumerate(body.include or ())]
    if body.top_logprobs and LOGPROBS not in names:
        raise bad_request(f'top_logprobs needs "{LOGPROBS}" in include', "top_logprobs", "invalid_value")
    return [f"include.{name}" for name in names if not INCLUDE[name]]


def _nested(body: ResponsesCount) -> list[str]:
    """Fields of fields that were given and have no effect."""
    idle = []
    for name in ("summary", "generate_summary", "context", "mode"):
        if body.reasoning is not None and getattr(body.reasoning, name) is not None:
            idle.append(f"reasoning.{name}")
    if body.text is not None and body.text.verbosity is not None:
        idle.append("text.verbosity")
    return idle
