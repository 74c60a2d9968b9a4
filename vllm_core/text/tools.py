"""The base of tool parsers: a parser is one generator that tells content from calls."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from typing import Any, ClassVar

import attrs

from vllm_core.interfaces.tokenizer import Tokenizer
from vllm_core.interfaces.tool_parser import ToolCall, ToolDelta, ToolParse
from vllm_core.text.json_value import JsonValue
from vllm_core.text.pieces import Pieces, Reading, hides

__all__ = ["LONGEST_NAME", "StreamedToolParser"]

# A name or key that runs on is none: the quotation mark is missing, and what follows must not be swallowed.
_NAME = re.compile(r'[^"\\<\x00-\x1f]*')
_ANY = re.compile(r".?", re.DOTALL)
LONGEST_NAME = 256  # characters
_MEMBERS = ("name", "arguments", "parameters", "id", "type")
_ARGUMENTS = ("arguments", "parameters")


class StreamedToolParser:
    """``interfaces.tool_parser.ToolParser``; subclasses write ``read``.

    markers   what the model writes around calls; ``prepare`` keeps them in the text if they are special tokens

    White space beside a call, with nothing else between it and another call or either end of the
    output, belongs to the call. All other text outside of calls is content.
    """

    markers: ClassVar[tuple[str, ...]]

    def __init__(self, tokenizer: Tokenizer, tools: Sequence[dict[str, Any]]) -> None:
        self.tokenizer, self.tools = tokenizer, tools
        self._pieces = Pieces()
        self._run: Generator[None, None, None] | None = self.read(self._pieces)
        self._content: list[str] = []
        self._deltas: list[ToolDelta] = []
        self._space: list[str] = []  # that may belong to a call
        self._beside = True  # no content since the last call, or since the beginning
        self._index = -1  # of the last call

    # ---- the contract

    def prepare(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "skip_special_tokens": False} if hides(self.tokenizer, self.markers) else options

    def parse(self, text: str) -> ToolParse:
        parts = [self.feed(text, ()), self.finish()]
        calls: dict[int, ToolCall] = {}
        for delta in (call for part in parts for call in part.calls):
            had = calls.get(delta.index, ToolCall(name=delta.name, arguments="", id=delta.id))  # type: ignore[union-attr]
            calls[delta.index] = attrs.evolve(had, arguments=had.arguments + delta.arguments)  # type: ignore[union-attr]
        return ToolParse(content="".join(part.content for part in parts), calls=tuple(calls.values()))

    def feed(self, text: str, ids: Sequence[int]) -> ToolParse:
        self._pieces.push(text)
        self._go_on()
        return self._news()

    def finish(self) -> ToolParse:
        self._pieces.close()
        self._go_on()
        if self._index < 0:
            self._content += self._space
        self._space = []
        return self._news()

    # ---- for subclasses

    def read(self, text: Pieces) -> Reading[None]:
        """Read all of the text and say what it is through the methods below."""
        raise NotImplementedError(f"{type(self).__name__} does not say how calls are read: write read(text)")

    def content(self, text: str) -> None:
        """This is for the user."""
        if self._beside:
            rest = text.lstrip()
            self._space.append(text[: len(text) - len(rest)])
            if not rest:
                return
            text, self._space, self._beside = "".join(self._space) + rest, [], False
        self._content.append(text)

    def call(self, name: str, id: str = "") -> None:
        """Here begins a call of ``name``; ``id`` if the model gave one."""
        self._space, self._beside = [], True
        self._index += 1
        self._deltas.append(ToolDelta(index=self._index, name=name, id=id))

    def arguments(self, text: str) -> None:
        """The next part of the last call's arguments, in JSON."""
        if text:
            self._deltas.append(ToolDelta(index=self._index, arguments=text))

    def arguments_object(self, text: Pieces) -> Reading[bool]:
        """The text goes on with the last call's arguments: give them as they come. Whether they came whole.

        Where they are no JSON, the call keeps what it has and the text goes on at the mistake. Where
        the text ends, what there is is given.
        """
        value = JsonValue()
        while (yield from text.peek()) and not (value.done or value.broken):
            text.read(value.feed)
            self.arguments(value.take())
        rest = value.rest()
        if value.broken:
            self.content(rest)
        else:
            self.arguments(rest)
        return value.done

    def call_object(self, text: Pieces, before: str, id: str = "") -> Reading[bool]:
        """The text goes on with ``{"name": ..., "arguments": ...}``, in any order. Whether a call began there.

        before   the markup that was passed on the way; content, as is what follows, if there is no call

        ``parameters`` is another word for ``arguments``; a string of JSON counts as what it holds, none as {}.
        A call begins with its arguments if the name was known by then, else at the end of the object.
        """
        text.keep()
        begun, whole = yield from self._members(text, id)
        rest = text.kept()
        if not begun:
            self.content(before + rest)
        elif not whole:
            self.content(rest)
        return begun

    # ---- inside

    def _members(self, text: Pieces, id: str) -> Reading[tuple[bool, bool]]:
        """(whether the call has begun, whether the object came whole)."""
        name, arguments, begun = "", "", False
        seen: set[str] = set()
        yield from text.passes("{")
        while True:
            yield from text.space()
            key = yield from self._string(text)
            if key not in _MEMBERS or key in seen or (key in _ARGUMENTS and not seen.isdisjoint(_ARGUMENTS)):
                return begun, False
            seen.add(key)
            yield from text.space()
            if not (yield from text.passes(":")):
                return begun, False
            yield from text.space()
            if key not in _ARGUMENTS:
                said = yield from self._string(text)
                if not said or (key == "type" and said != "function"):
                    return begun, False
                name = said if key == "name" else name
            elif name and (yield from text.peek()) == "{":
                text.kept()
                self.call(name, id)
                begun = True
                whole = yield from self.arguments_object(text)
                text.keep()
                if not whole:
                    return begun, False
            else:
                found = yield from self._whole(text)
                if found is None:
                    return begun, False
                arguments = found
            yield from text.space()
            if not (yield from text.passes(",")):
                break
        if not name or not (yield from text.passes("}")):
            return begun, False
        if not begun:
            self.call(name, id)
            self.arguments(arguments or "{}")
        return True, True

    def _string(self, text: Pieces) -> Reading[str | None]:
        """A short string of JSON, or None."""
        if not (yield from text.passes('"')):
            return None
        raw = ""
        while len(raw) <= LONGEST_NAME:
            raw += yield from text.run(_NAME, LONGEST_NAME)
            if (yield from text.passes('"')):
                try:
                    return json.loads(f'"{raw}"')
                except ValueError:
                    return None
            if not (yield from text.passes("\\")):
                return None
            raw += "\\" + (yield from text.run(_ANY, 1))
        return None

    def _whole(self, text: Pieces) -> Reading[str | None]:
        """Arguments that cannot be given as they come: all of them, or None."""
        value = JsonValue()
        found: list[str] = []
        while (yield from text.peek()) and not (value.done or value.broken):
            text.read(value.feed)
            found.append(value.take())
        if not value.done:
            return None
        said = "".join(found)
        if said == "null":
            return "{}"
        if said.startswith('"'):
            inner = JsonValue()
            held = json.loads(said)
            end = inner.feed(held)
            if held.startswith("{") and inner.done and not held[end:].strip():
                return inner.take()
        return said

    def _go_on(self) -> None:
        if self._run is not None and next(self._run, self) is self:
            self._run = None

    def _news(self) -> ToolParse:
        deltas: list[ToolDelta] = []
        for delta in self._deltas:
            if deltas and deltas[-1].index == delta.index:
                deltas[-1] = attrs.evolve(deltas[-1], arguments=deltas[-1].arguments + delta.arguments)
            else:
                deltas.append(delta)
        news = ToolParse(content="".join(self._content), calls=tuple(deltas))
        self._content, self._deltas = [], []
        return news
