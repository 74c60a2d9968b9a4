"""Tools of Anthropic's API as the functions that chat templates know."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.limits import bound
from vllm_plugin_server.messages.wire import ToolUseChoice
from vllm_plugin_server.typed_items import Item, Reader

__all__ = ["chat_tool_choice", "chat_tools"]


class _Tool(Item, kw_only=True):
    no_effect: ClassVar = (
        "cache_control", "allowed_callers", "defer_loading", "eager_input_streaming", "input_examples", "strict",
    )  # fmt: skip
    name: Annotated[str, bound("name")]
    input_schema: dict[str, Any]
    description: str | None = None
    cache_control: Any = None
    allowed_callers: Any = None
    defer_loading: Any = None
    eager_input_streaming: Any = None
    input_examples: Any = None
    strict: bool | None = None


def chat_tools(tools: list[Any] | None, reader: Reader) -> list[dict[str, Any]]:
    found = []
    for i, given in enumerate(tools or ()):
        here = f"tools[{i}]"
        kind = reader.mapping(given, here).get("type")
        if kind not in (None, "custom"):
            raise bad_request(
                f"{here}: tools of type {kind!r:.80} are Anthropic's own; describe one with input_schema",
                f"{here}.type", "unsupported_value",
            )  # fmt: skip
        tool = reader.read(_Tool, given, here)
        function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
        found.append({"type": "function", "function": function})
    names = [tool["function"]["name"] for tool in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise bad_request(f"tools: {sorted(twice)[0]!r:.80} is there twice", "tools", "invalid_value")
    return found


def chat_tool_choice(choice: ToolUseChoice | None, tools: list[dict[str, Any]]) -> Any:
    """As OpenAI's chats have it."""
    if choice is None:
        return "auto" if tools else None
    if choice.type == "none":
        return "none"
    if not tools:
        raise bad_request(f"tool_choice {choice.type!r} needs tools", "tool_choice", "invalid_value")
    if choice.type != "tool":
        return "required" if choice.type == "any" else "auto"
    names = [tool["function"]["name"] for tool in tools]
    if choice.name not in names:
        raise bad_request(
            f"tool_choice.name must be one of {', '.join(names)!s:.200}, not {choice.name!r:.80}",
            "tool_choice.name", "invalid_value",
        )  # fmt: skip
    return {"type": "function", "function": {"name": choice.name}}
