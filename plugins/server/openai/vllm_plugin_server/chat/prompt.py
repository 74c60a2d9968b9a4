"""A conversation in a body as a prompt: messages as templates take them, and only arguments that are safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import Conversation
from vllm_plugin_server.chat.wire import Conversing, Message
from vllm_plugin_server.errors import ApiError, bad_request
from vllm_plugin_server.generation import check_text
from vllm_plugin_server.limits import most
from vllm_plugin_server.strict_json import parse_object
from vllm_plugin_server.work import SMALL

__all__ = ["plain_message", "read_conversation", "render"]

encode = msgspec.json.encode

# Arguments of the renderer, and of transformers' apply_chat_template: never a client's to set by this way.
RESERVED = {
    "messages", "conversation", "conversations", "tools", "documents", "chat_template", "tokenize", "padding",
    "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
    "add_generation_prompt", "continue_final_message", "chat_template_content_format", "chat_template_kwargs",
}  # fmt: skip

# Fields of messages that hold something which no template here reads.
UNREAD = {
    "function_call": "tool_calls take its place",
    "audio": "messages are text only",
    "tools": "tools stand beside the messages",
}


def plain_message(message: Message, index: int) -> dict[str, Any]:
    """As chat templates take it: arguments of calls as objects, reasoning under both of its names."""
    for field, instead in UNREAD.items():
        if getattr(message, field):
            raise bad_request(f"messages[{index}].{field} is not supported; {instead}", f"messages[{index}].{field}")
    found: dict[str, Any] = {"role": message.role, "content": _content(message, index)}
    if message.name is not None:
        found["name"] = message.name
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        found["tool_calls"] = [_call(call, index, i) for i, call in enumerate(message.tool_calls)]
    reasoning = message.reasoning if message.reasoning_content is None else message.reasoning_content
    if reasoning is not None:
        found["reasoning"] = found["reasoning_content"] = reasoning
    return found


def _content(message: Message, index: int) -> str | list[dict[str, Any]]:
    if message.content is None:
        return message.refusal or ""
    if isinstance(message.content, str):
        return message.content
    parts = []
    for i, part in enumerate(message.content):
        where = f"messages[{index}].content[{i}]"
        kind = "text" if isinstance(part, str) else part.type
        text = part if isinstance(part, str) else part.refusal if kind == "refusal" else part.text
        if kind not in ("text", "input_text", "output_text", "refusal"):
            raise bad_request(f"{where}: parts of type {kind[:40]!r} are not supported yet, only text", where)
        if text is None:
            raise bad_request(f"{where}: a part of type {kind!r} needs a text", where)
        parts.append({"type": "text", "text": text})
    return parts


def _call(call: Any, index: int, number: int) -> dict[str, Any]:
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = parse_object(arguments.encode(), marks=most("arguments")) if arguments.strip() else {}
        except ApiError as error:
            where = f"messages[{index}].tool_calls[{number}].function.arguments"
            raise bad_request(f"{where}: {error.message.replace('the body', 'the text')}", where) from None
    found = {"type": call.type, "function": {"name": call.function.name, "arguments": arguments}}
    return found if call.id is None else {"id": call.id, **found}


def _arguments(context: ServerContext, body: Any, template: str) -> tuple[dict[str, Any], list[str]]:
    """Arguments of the template, and those that it does not read."""
    given: Mapping[str, Any] = body.chat_template_kwargs or {}
    defaults: Mapping[str, Any] = context.settings.default_chat_template_kwargs
    for name in (*defaults, *given):
        if name in RESERVED or not name.isidentifier() or name.startswith("_"):
            raise bad_request(
                f"chat_template_kwargs may not have {name[:80]!r}: it is no argument of the template's own",
                "chat_template_kwargs",
            )
    both = {**defaults, **given}
    arguments = {name: value for name, value in both.items() if not template or name in template}
    unread = [f"chat_template_kwargs.{name}" for name in given if name not in arguments]
    if body.reasoning_effort is not None:
        if "reasoning_effort" in template:
            arguments.setdefault("reasoning_effort", body.reasoning_effort)
        else:
            unread.append("reasoning_effort")
    if body.documents is not None:
        if "documents" not in template:
            unread.append("documents")
        else:
            arguments["documents"] = body.documents
    return arguments, unread


def _template(context: ServerContext, body: Any) -> str:
    """The text of the template that will be used, as far as it is known."""
    if body.chat_template is not None:
        return body.chat_template
    own = getattr(context.engine.text.renderer, "chat_template", "") or ""
    return "".join(own.values()) if isinstance(own, Mapping) else own


async def read_conversation(
    context: ServerContext,
    body: Conversing | Any,
    *,
    tool_choice: str | dict[str, Any] | None = None,
    unread: list[str] | None = None,
) -> Conversation:
    """The prompt of a body with ``Conversing``'s fields. ``ApiError`` 400 for what cannot be rendered.

    unread   is given the names of arguments that the template does not read
    """
    if body.chat_template is not None and not context.settings.trust_request_chat_template:
        raise bad_request(
            "chat_template: templates of requests are not run here (--trust-request-chat-template allows them)",
            "chat_template",
        )
    if body.continue_final_message and body.add_generation_prompt:
        raise bad_request(
            "continue_final_message and add_generation_prompt exclude each other", "continue_final_message"
        )
    template = _template(context, body)
    arguments, missed = _arguments(context, body, template)
    if body.tools and template and "tools" not in template and tool_choice in (None, "none", "auto"):
        missed.append("tools")  # a call that must be is held to its tool by a grammar
    if unread is not None:
        unread += missed
    conversation = await render(
        context,
        body.messages,
        tools=[_plain_tool(tool, i) for i, tool in enumerate(body.tools or ())] or None,
        tool_choice=tool_choice,
        chat_template=body.chat_template,
        chat_template_content_format=context.settings.chat_template_content_format,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=bool(body.continue_final_message),
        chat_template_kwargs=arguments,
    )
    if not body.add_special_tokens:  # the template has written them
        return conversation
    text = conversation.prompt.text or ""
    prompt = await context.work(context.engine.read_prompt, text, add_special_tokens=True, size=len(text))
    return Conversation(prompt, conversation.parsing)


def _plain_tool(tool: Any, index: int) -> dict[str, Any]:
    if tool.type != "function" or tool.function is None:
        raise bad_request(f"tools[{index}]: only tools of type 'function' are supported", f"tools[{index}]")
    function = tool.function
    found: dict[str, Any] = {"name": function.name, "description": function.description or ""}
    found["parameters"] = function.parameters or {"type": "object", "properties": {}}
    if function.strict is not None:
        found["strict"] = function.strict
    return {"type": "function", "function": found}


def _characters(message: Message) -> int:
    """Of all that a template may write of a message."""
    content = message.content or message.refusal or ""
    if isinstance(content, str):
        count = len(content)
    else:
        count = sum(len(part) if isinstance(part, str) else len(part.text or part.refusal or "") for part in content)
    count += max(len(message.reasoning or ""), len(message.reasoning_content or ""))
    for call in message.tool_calls or ():
        arguments = call.function.arguments
        count += len(arguments if isinstance(arguments, str) else encode(arguments))
    return count


async def render(context: ServerContext, messages: Sequence[Message], **options: Any) -> Conversation:
    """Through the template and the tokenizer, always in a thread: a template is a program."""

    def read() -> Conversation:
        check_text(context, sum(map(_characters, messages)), "messages")
        check_text(context, len(encode(options.get("tools"))), "tools")
        plain = [plain_message(m, i) for i, m in enumerate(messages)]
        return context.engine.read_chat(plain, **options)

    return await context.work(read, size=SMALL + 1)
