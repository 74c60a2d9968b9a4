"""Tools of the Responses API as the functions that chat templates know."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.limits import bound
from vllm_plugin_server.typed_items import Item, Reader

__all__ = ["chat_tool_choice", "chat_tools"]

Name = Annotated[str, bound("name")]
OTHERS = dict.fromkeys(
    (
        "file_search",
        "computer",
        "computer_use",
        "computer_use_preview",
        "web_search",
        "web_search_preview",
        "mcp",
        "code_interpreter",
        "image_generation",
        "local_shell",
        "shell",
        "custom",
        "apply_patch",
        "namespace",
        "tool_search",
        "programmatic_tool_calling",
    ),
    "only functions are; OpenAI's own tools run there",
)


class _Function(Item, kw_only=True):
    no_effect: ClassVar = ("allowed_callers", "defer_loading", "output_schema", "strict")
    name: Name
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    allowed_callers: Any = None
    defer_loading: Any = None
    output_schema: Any = None


class _Choice(Item, kw_only=True):
    name: Name | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[Any], bound("tools")] | None = None


def chat_tools(tools: list[Any] | None, reader: Reader) -> list[dict[str, Any]]:
    found = []
    for i, given in enumerate(tools or ()):
        here = f"tools[{i}]"
        kind = reader.mapping(given, here).get("type")
        # web_search_2025_08_26 and the like are the same tools, dated.
        plain = kind.partition("_20")[0] if isinstance(kind, str) else kind
        reader.choice(plain, ("function",), f"{here}.type", OTHERS)
        tool = reader.read(_Function, given, here)
        function = {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters}
        found.append({"type": "function", "function": function})
    names = [tool["function"]["name"] for tool in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise bad_request(f"tools: {sorted(twice)[0]!r:.80} is there twice", "tools", "invalid_value")
    return found


def chat_tool_choice(choice: Any, tools: list[dict[str, Any]], reader: Reader) -> tuple[Any, list[dict[str, Any]]]:
    """The choice as OpenAI's chats have it, and the tools that it leaves."""
    if choice is None or isinstance(choice, str):
        kind = "auto" if choice is None else reader.choice(choice, ("none", "auto", "required"), "tool_choice")
        return (kind if tools or kind != "auto" else None), tools
    given = reader.mapping(choice, "tool_choice").get("type")
    kind = reader.choice(given, ("function", "allowed_tools"), "tool_choice.type", OTHERS)
    found = reader.read(_Choice, choice, "tool_choice")
    by_name = {tool["function"]["name"]: tool for tool in tools}
    if kind == "function":
        _known(found.name, by_name, "tool_choice.name")
        return {"type": "function", "function": {"name": found.name}}, tools
    allowed = []
    for i, tool in enumerate(found.tools or ()):
        here = f"tool_choice.tools[{i}]"
        name = reader.read(_Choice, tool, here).name
        allowed.append(by_name[_known(name, by_name, f"{here}.name")])
    if not allowed:
        raise bad_request("tool_choice.tools: there must be at least one", "tool_choice.tools", "invalid_value")
    return found.mode or "auto", allowed


def _known(name: str | None, tools: dict[str, Any], path: str) -> str:
    if name is None or name not in tools:
        there = f"there are {', '.join(tools)!s:.200}" if tools else "there are no tools"
        raise bad_request(f"{path}: there is no tool {name!r:.80}; {there}", path, "invalid_value")
    return name
