"""Messages of Anthropic's API as messages of a chat.

Results of tools become tool messages, thinking and uses of tools belong to the assistant's message that has them. The
order is kept: a system message in the middle stays there.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.limits import bound
from vllm_plugin_server.typed_items import Item, Reader

__all__ = ["Conversation"]

MEDIA = "images and documents are not supported yet; send text"
HOSTED = "the tools of that name run at Anthropic; describe a tool and run it yourself"
Id = Annotated[str, bound("label")]
Name = Annotated[str, bound("name")]
Parts = Annotated[list[Any], bound("parts")]
USER = ("text", "tool_result")
ASSISTANT = ("text", "thinking", "redacted_thinking", "tool_use")
NO_BLOCKS = {
    "image": MEDIA,
    "document": MEDIA,
    "search_result": "send its text in a text block",
    "container_upload": "there are no containers here",
    "tool_reference": "there is no search for tools here",
    **dict.fromkeys(
        (
            "server_tool_use",
            "web_search_tool_result",
            "web_fetch_tool_result",
            "code_execution_tool_result",
            "bash_code_execution_tool_result",
            "text_editor_code_execution_tool_result",
            "tool_search_tool_result",
            "mcp_tool_use",
            "mcp_tool_result",
            "compaction",
        ),
        HOSTED,
    ),
}
# Claude Code from 2.1.154 on; vLLM takes them, too.
ALIASES = {"ctx": "user", "msg": "user"}
# Claude Code writes a hash of each request there, so that no two prompts would begin alike.
BILLING = "x-anthropic-billing-header"


class _Message(Item, kw_only=True):
    role: Name
    content: str | Parts


class _Text(Item, kw_only=True):
    no_effect: ClassVar = ("cache_control",)
    cache_control: Any = None
    text: str
    citations: list[Any] | None = None  # of our own output: none


class _Thinking(Item, kw_only=True):
    thinking: str
    signature: str | None = None


class _ToolUse(Item, kw_only=True):
    no_effect: ClassVar = ("cache_control", "caller", "toolset_name")
    cache_control: Any = None
    caller: Any = None
    toolset_name: Any = None
    id: Id
    name: Name
    input: dict[str, Any]


class _ToolResult(Item, kw_only=True):
    no_effect: ClassVar = ("cache_control", "is_error", "toolset_name")
    cache_control: Any = None
    is_error: bool | None = None
    toolset_name: Any = None
    tool_use_id: Id
    content: str | Parts = ""


class Conversation:
    """``instruct`` and ``add``; ``messages`` is then the chat.

    continues   the last message is the assistant's: the answer goes on with it
    """

    def __init__(self, reader: Reader) -> None:
        self.messages: list[dict[str, Any]] = []
        self.continues = False
        self._reader = reader

    def instruct(self, system: str | list[Any] | None) -> None:
        """The field ``system``."""
        if system and (content := self._texts(system, "system")):
            self.messages.append({"role": "system", "content": content})

    def add(self, messages: list[Any]) -> None:
        if not messages:
            raise bad_request("messages must have at least one message", param="messages")
        for i, given in enumerate(messages):
            self._add(given, f"messages[{i}]")

    # ---- inside

    def _add(self, given: Any, path: str) -> None:
        message = self._reader.read(_Message, given, path)
        role = ALIASES.get(message.role, message.role)
        role = self._reader.choice(role, ("user", "assistant", "system"), f"{path}.role")
        self.continues = False
        here = f"{path}.content"
        if role == "system":
            if content := self._texts(message.content, here):
                self.messages.append({"role": "system", "content": content})
        elif role == "assistant":
            self._assistant(message.content, here)
        else:
            self._user(message.content, here)

    def _user(self, content: str | list[Any], path: str) -> None:
        if isinstance(content, str):
            self.messages.append({"role": "user", "content": content})
            return
        said: list[dict[str, str]] = []
        for here, kind, block in self._blocks(content, USER, path):
            if kind == "text":
                said.append({"type": "text", "text": self._reader.read(_Text, block, here).text})
                continue
            if said:
                self.messages.append({"role": "user", "content": _plain(said)})
                said = []
            result = self._reader.read(_ToolResult, block, here)
            text = self._texts(result.content, f"{here}.content")
            self.messages.append({"role": "tool", "tool_call_id": result.tool_use_id, "content": text or ""})
        if said or not content:
            self.messages.append({"role": "user", "content": _plain(said)})

    def _assistant(self, content: str | list[Any], path: str) -> None:
        if isinstance(content, str):
            self.continues = True
            self.messages.append({"role": "assistant", "content": content})
            return
        said: list[dict[str, str]] = []
        thoughts: list[str] = []
        uses: list[dict[str, Any]] = []
        for here, kind, block in self._blocks(content, ASSISTANT, path):
            if kind == "text":
                said.append({"type": "text", "text": self._reader.read(_Text, block, here).text})
            elif kind == "thinking":
                thoughts.append(self._reader.read(_Thinking, block, here).thinking)
            elif kind == "redacted_thinking":
                self._reader.idle.add(kind)  # encrypted by another server: nobody can read it here
            else:
                uses.append(_call(self._reader.read(_ToolUse, block, here)))
        message: dict[str, Any] = {"role": "assistant", "content": _plain(said) if said else None}
        if thoughts:
            message["reasoning_content"] = "\n".join(thoughts)
        if uses:
            message["tool_calls"] = uses
        self.continues = not uses
        self.messages.append(message)

    def _texts(self, content: str | list[Any], path: str) -> str | list[dict[str, str]]:
        if isinstance(content, str):
            return "" if content.startswith(BILLING) else content
        texts = [
            self._reader.read(_Text, block, here).text for here, _, block in self._blocks(content, ("text",), path)
        ]
        return _plain([{"type": "text", "text": text} for text in texts if not text.startswith(BILLING)])

    def _blocks(self, content: list[Any], known: tuple[str, ...], path: str) -> Any:
        for i, block in enumerate(content):
            here = f"{path}[{i}]"
            given = self._reader.mapping(block, here).get("type")
            yield here, self._reader.choice(given, known, f"{here}.type", NO_BLOCKS), block


def _call(use: _ToolUse) -> dict[str, Any]:
    arguments = msgspec.json.encode(use.input).decode()
    return {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": arguments}}


def _plain(parts: list[dict[str, str]]) -> str | list[dict[str, str]]:
    return parts[0]["text"] if len(parts) == 1 else parts or ""
