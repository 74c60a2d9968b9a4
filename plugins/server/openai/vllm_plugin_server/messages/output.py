"""The answer of Anthropic's API: what parsers made of the text, as content blocks, and as the events of a stream.

One class makes both, so that a stream says what the whole answer says. A block ends before the next one begins.
"""

from __future__ import annotations

import hashlib
from typing import Any

import attrs

from vllm_plugin_server.typed_items import tool_input

__all__ = ["Blocks"]

Event = dict[str, Any]
STARTS = {
    "text": {"type": "text", "text": "", "citations": None},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


@attrs.define
class _Open:
    """The block that is being written."""

    kind: str
    pieces: list[str] = attrs.field(factory=list)
    call: int = -1  # the parser's number, of a tool's use
    id: str = ""
    name: str = ""


class Blocks:
    """``add`` each parsed piece, then ``close``: both give the events that this makes.

    show_thinking   False: thinking blocks are there, but empty (``thinking.display: omitted``)
    one_call        give the first use of a tool only (``disable_parallel_tool_use``)
    """

    def __init__(self, *, show_thinking: bool = True, one_call: bool = False) -> None:
        self.content: list[dict[str, Any]] = []  # blocks that are done
        self._show_thinking, self._one_call = show_thinking, one_call
        self._open: _Open | None = None

    def add(self, delta: Any) -> list[Event]:
        """The next piece, a ``ParsedDelta``."""
        events: list[Event] = []
        if delta.reasoning:
            events += self._begin("thinking")
            if self._show_thinking:
                events.append(self._write(delta.reasoning, type="thinking_delta", thinking=delta.reasoning))
        if delta.content:
            events += self._begin("text")
            events.append(self._write(delta.content, type="text_delta", text=delta.content))
        for part in delta.calls:
            if part.index > 0 and self._one_call:
                continue
            events += self._begin("tool_use", call=part.index, id=part.id, name=part.name)
            if part.arguments:
                events.append(self._write(part.arguments, type="input_json_delta", partial_json=part.arguments))
        return events

    def close(self) -> list[Event]:
        """The output has ended."""
        block, self._open = self._open, None
        if block is None:
            return []
        said, index, events = "".join(block.pieces), len(self.content), []
        if block.kind == "text":
            self.content.append({**STARTS["text"], "text": said})
        elif block.kind == "thinking":
            signature = hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()
            self.content.append({"type": "thinking", "thinking": said, "signature": signature})
            delta = {"type": "signature_delta", "signature": signature}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        else:
            self.content.append({"type": "tool_use", "id": block.id, "name": block.name, "input": tool_input(said)})
        return [*events, {"type": "content_block_stop", "index": index}]

    # ---- inside

    def _begin(self, kind: str, call: int = -1, **known: str) -> list[Event]:
        """Begin a block, unless this is it already."""
        if self._open is not None and (self._open.kind, self._open.call) == (kind, call):
            return []
        events = self.close()
        self._open = _Open(kind=kind, call=call, **known)
        start = STARTS.get(kind) or {"type": kind, **known, "input": {}}
        return [*events, {"type": "content_block_start", "index": len(self.content), "content_block": start}]

    def _write(self, text: str, /, **delta: str) -> Event:
        assert self._open is not None
        self._open.pieces.append(text)
        return {"type": "content_block_delta", "index": len(self.content), "delta": delta}
