"""The output of a response: what parsers made of the text, as items, and as the events that tell of them.

One class makes both, so that a stream says what the whole answer says. Items follow one another: an item is done
before the next one begins, and what has been said of it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

__all__ = ["OutputItems"]

Event = dict[str, Any]
IDS = {"reasoning": "rs", "message": "msg", "function_call": "fc"}


@attrs.define
class _Open:
    """The item that is being written."""

    kind: str
    id: str
    index: int  # in the response's output
    pieces: list[str] = attrs.field(factory=list)
    logprobs: list[dict[str, Any]] = attrs.field(factory=list)  # of a message's tokens
    call: int = -1  # the parser's number, of a function call
    call_id: str = ""
    name: str = ""


class OutputItems:
    """``add`` each parsed piece, then ``close``: both give the events that this makes, without sequence numbers.

    new_id      makes an id from a prefix: ``new_id("msg")``
    reasoning   whether reasoning is given out at all
    one_call    give the first call only, as ``parallel_tool_calls: false`` asks
    """

    def __init__(self, new_id: Callable[[str], str], *, reasoning: bool = True, one_call: bool = False) -> None:
        self.items: list[dict[str, Any]] = []  # those that are done
        self._new_id, self._reasoning, self._one_call = new_id, reasoning, one_call
        self._open: _Open | None = None

    @property
    def begun(self) -> bool:
        """Whether there is an item, done or not."""
        return bool(self.items) or self._open is not None

    def add(self, delta: Any, logprobs: Sequence[dict[str, Any]] = ()) -> list[Event]:
        """The next piece.

        delta      ``ParsedDelta``
        logprobs   of the tokens that it came with, in OpenAI's shape; told of with content only
        """
        events: list[Event] = []
        if delta.reasoning and self._reasoning:
            events += self._write("reasoning", delta.reasoning)
        if delta.content:
            events += self._write("message", delta.content, logprobs)
        for part in delta.calls:
            if part.index == 0 or not self._one_call:
                events += self._write_call(part)
        return events

    def close(self, status: str = "completed") -> list[Event]:
        """The output has ended; ``status`` is that of an item that was being written: "completed" or "incomplete"."""
        events: list[Event] = []
        if not self.begun:
            events += self._begin("message")  # the model ended at once: its message is empty
        return events + self._end(status)

    # ---- inside

    def _write(self, kind: str, text: str, logprobs: Iterable[dict[str, Any]] = ()) -> list[Event]:
        events = [] if self._open is not None and self._open.kind == kind else self._begin(kind)
        item = self._open
        assert item is not None
        item.pieces.append(text)
        event = _at(item, f"response.{_text_type(kind)}.delta", content_index=0, delta=text)
        if kind == "message":
            event["logprobs"] = [_brief(entry) for entry in logprobs]
            item.logprobs += logprobs
        return [*events, event]

    def _write_call(self, part: Any) -> list[Event]:
        events: list[Event] = []
        if self._open is None or self._open.call != part.index:
            events += self._begin("function_call", call=part.index, call_id=part.id, name=part.name)
        assert self._open is not None
        if part.arguments:
            self._open.pieces.append(part.arguments)
            events.append(_at(self._open, "response.function_call_arguments.delta", delta=part.arguments))
        return events

    def _begin(self, kind: str, **known: Any) -> list[Event]:
        events = self._end("completed")
        item = self._open = _Open(kind=kind, id=self._new_id(IDS[kind]), index=len(self.items), **known)
        events.append(_about(item, "response.output_item.added", "in_progress", begun=True))
        if kind != "function_call":
            events.append(_at(item, "response.content_part.added", content_index=0, part=_part(kind, "", [])))
        return events

    def _end(self, status: str) -> list[Event]:
        item, self._open = self._open, None
        if item is None:
            return []
        text, events = "".join(item.pieces), []
        if item.kind == "function_call":
            events.append(_at(item, "response.function_call_arguments.done", arguments=text, name=item.name))
        else:
            said = _at(item, f"response.{_text_type(item.kind)}.done", content_index=0, text=text)
            if item.kind == "message":
                said["logprobs"] = [_brief(entry) for entry in item.logprobs]
            part = _part(item.kind, text, item.logprobs)
            events += [said, _at(item, "response.content_part.done", content_index=0, part=part)]
        done = _about(item, "response.output_item.done", status)
        self.items.append(done["item"])
        return [*events, done]


def _text_type(kind: str) -> str:
    return "reasoning_text" if kind == "reasoning" else "output_text"


def _part(kind: str, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _at(item: _Open, event: str, **more: Any) -> Event:
    return {"type": event, "item_id": item.id, "output_index": item.index, **more}


def _about(item: _Open, event: str, status: str, *, begun: bool = False) -> Event:
    """An event that shows the item itself; ``begun``: as it is before anything is in it."""
    text = "" if begun else "".join(item.pieces)
    content = [] if begun else [_part(item.kind, text, item.logprobs)]
    shown: dict[str, Any] = {"id": item.id, "type": item.kind, "status": status}
    if item.kind == "reasoning":
        shown |= {"summary": [], "content": content, "encrypted_content": None}
    elif item.kind == "message":
        shown |= {"role": "assistant", "content": content}
    else:
        shown |= {"call_id": item.call_id, "name": item.name, "arguments": text}
    return {"type": event, "output_index": item.index, "item": shown}


def _brief(entry: dict[str, Any]) -> dict[str, Any]:
    """Events have less of a token than items: no bytes."""
    top = [{"token": one["token"], "logprob": one["logprob"]} for one in entry["top_logprobs"]]
    return {"token": entry["token"], "logprob": entry["logprob"], "top_logprobs": top}
