"""Items of the Responses API as messages of a chat.

Items that one turn of the model made (reasoning, a message, calls of functions) become one assistant message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.limits import bound
from vllm_plugin_server.typed_items import Item, Reader, tool_input

__all__ = ["Conversation"]

MEDIA = "images, audio and files are not supported yet; send input_text"
HOSTED = "the tools of that name run at OpenAI; describe a function and run it yourself"
PARTS = ("input_text", "output_text", "text", "refusal")
NO_PARTS = {"input_image": MEDIA, "input_file": MEDIA, "input_audio": MEDIA}
ITEMS = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
NO_ITEMS = dict.fromkeys(
    (
        "file_search_call",
        "computer_call",
        "computer_call_output",
        "web_search_call",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "compaction",
        "image_generation_call",
        "code_interpreter_call",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "custom_tool_call",
        "custom_tool_call_output",
        "compaction_trigger",
        "program",
        "program_output",
        "configuration_update",
    ),
    HOSTED,
)
Id = Annotated[str, bound("label")]
Name = Annotated[str, bound("name")]
Parts = Annotated[list[Any], bound("parts")]
Status = Literal["in_progress", "completed", "incomplete"]


class _Part(Item, kw_only=True):
    no_effect: ClassVar = ("prompt_cache_breakpoint",)
    prompt_cache_breakpoint: Any = None
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None  # of our own output, when it comes back
    logprobs: list[Any] | None = None


class _Message(Item, kw_only=True):
    no_effect: ClassVar = ("phase",)
    phase: Any = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Parts
    id: Id | None = None
    status: Status | None = None


class _FunctionCall(Item, kw_only=True):
    no_effect: ClassVar = ("caller", "namespace")
    caller: Any = None
    namespace: Any = None
    call_id: Id
    name: Name
    arguments: str
    id: Id | None = None
    status: Status | None = None


class _FunctionCallOutput(Item, kw_only=True):
    no_effect: ClassVar = ("caller", "namespace", "name")
    caller: Any = None
    namespace: Any = None
    name: Any = None
    call_id: Id
    output: str | Parts
    id: Id | None = None
    status: Status | None = None


class _Text(Item, kw_only=True):
    text: str


class _Reasoning(Item, kw_only=True):
    no_effect: ClassVar = ("encrypted_content",)
    encrypted_content: Any = None  # of other servers: nobody can read it here
    summary: Parts = []
    content: Parts | None = None
    id: Id | None = None
    status: Status | None = None


class _Reference(Item, kw_only=True):
    id: Id


class Conversation:
    """``add`` items in order; ``messages`` is then the chat.

    find         the item with this id, if it is kept here
    continues    the last item is an assistant's message that is not complete: the answer goes on with it
    """

    def __init__(self, reader: Reader, find: Callable[[str], Mapping[str, Any] | None] = lambda _: None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.items: list[Mapping[str, Any]] = []  # what was added, references resolved
        self.continues = False
        self._reader, self._find = reader, find

    def instruct(self, text: str) -> None:
        """Instructions go before everything else, and into one message with system messages that follow."""
        self.messages.append({"role": "system", "content": text})

    def add(self, items: Iterable[Any], path: str = "input") -> None:
        for i, item in enumerate(items):
            self._add(item, f"{path}[{i}]")

    # ---- inside

    def _add(self, given: Any, path: str) -> None:
        reader = self._reader
        kind = reader.mapping(given, path).get("type")
        if kind is None:
            kind = "message" if "role" in given else "item_reference" if set(given) == {"id"} else kind
        kind = reader.choice(kind, ITEMS, f"{path}.type", NO_ITEMS)
        if kind == "item_reference":
            found = self._find(reader.read(_Reference, given, path).id)
            if found is None:
                raise bad_request(
                    f"{path}: item {given['id']!r:.80} is not kept here (any more): send the item itself", param=path
                )
            self._add(found, path)
            return
        self.continues = False
        self.items.append(given)
        getattr(self, f"_{kind}")(given, path)

    def _message(self, given: Any, path: str) -> None:
        message = self._reader.read(_Message, given, path)
        content = self._content(message.content, f"{path}.content")
        if message.role == "assistant":
            turn = self._turn(fresh=("content", "tool_calls"))
            turn["content"] = content
            self.continues = message.status in ("in_progress", "incomplete")
        elif message.role == "user":
            self.messages.append({"role": "user", "content": content})
        elif len(self.messages) == 1 and self.messages[0]["role"] == "system":
            self.messages[0]["content"] = [*_parts(self.messages[0]["content"]), *_parts(content)]
        else:  # few templates know developers; theirs is the system's word
            self.messages.append({"role": "system", "content": content})

    def _reasoning(self, given: Any, path: str) -> None:
        item = self._reader.read(_Reasoning, given, path)
        texts = [
            self._reader.read(_Text, part, f"{path}.{name}[{i}]").text
            for name, parts in (("content", item.content), ("summary", [] if item.content else item.summary))
            for i, part in enumerate(parts or ())
        ]
        if texts:
            turn = self._turn(fresh=("content", "tool_calls", "reasoning_content"))
            turn["reasoning_content"] = "\n".join(texts)

    def _function_call(self, given: Any, path: str) -> None:
        call = self._reader.read(_FunctionCall, given, path)
        # A call that was cut has no whole arguments, which templates need; the conversation goes on all the same.
        cut = call.status == "incomplete"
        arguments = msgspec.json.encode(tool_input(call.arguments)).decode() if cut else call.arguments
        function = {"name": call.name, "arguments": arguments}
        turn = self._turn(fresh=())
        turn.setdefault("tool_calls", []).append({"id": call.call_id, "type": "function", "function": function})

    def _function_call_output(self, given: Any, path: str) -> None:
        item = self._reader.read(_FunctionCallOutput, given, path)
        content = self._content(item.output, f"{path}.output")
        self.messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})

    def _turn(self, fresh: tuple[str, ...]) -> dict[str, Any]:
        """The assistant's message that goes on; a new one if the last has something of ``fresh`` already."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or any(last.get(name) is not None for name in fresh):
            self.messages.append({"role": "assistant", "content": None})
        return self.messages[-1]

    def _content(self, content: str | list[Any], path: str) -> str | list[dict[str, str]]:
        if isinstance(content, str):
            return content
        parts = []
        for i, given in enumerate(content):
            here = f"{path}[{i}]"
            kind = self._reader.choice(self._reader.mapping(given, here).get("type"), PARTS, f"{here}.type", NO_PARTS)
            part = self._reader.read(_Part, given, here)
            text = part.refusal if kind == "refusal" else part.text
            if text is None:
                raise bad_request(f"{here}: a part of type {kind} needs a text", param=here)
            parts.append({"type": "text", "text": text})
        return parts[0]["text"] if len(parts) == 1 else parts


def _parts(content: Any) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
