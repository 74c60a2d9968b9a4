"""One output's text into reasoning, answer and calls of tools, as it comes.

``OutputParser`` runs the parsers of a request; it is what a server's stream is made of. A parser that raises
concerns its request only: the text is then given unparsed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from vllm_core.engine.outputs import ParsedDelta
from vllm_core.interfaces.reasoning_parser import ReasoningParser
from vllm_core.interfaces.tool_parser import ToolCall, ToolDelta, ToolParser

__all__ = ["Made", "OutputParser", "warn"]

log = logging.getLogger(__name__)


@attrs.frozen
class Made:
    """A parser that was chosen: how one is made for a request, and what to call it in messages."""

    make: Callable[[], Any]
    label: str  # ``tool parser "x" (vllm-plugin-x 0.1.0)``


class OutputParser:
    """``feed`` the text of one output as it comes, then ``finish``; each gives what has become certain.

    reasoning   so far; None without a parser for it
    content     what is neither reasoning nor a call, so far
    """

    def __init__(
        self,
        tool: Made | None = None,
        reasoning: Made | None = None,
        prompt_ids: Sequence[int] = (),
        request_id: str = "",
    ) -> None:
        self.reasoning: str | None = None
        self.content = ""
        self._calls: dict[int, ToolDelta] = {}  # the first part of each
        self._arguments: dict[int, list[str]] = {}
        self._request_id, self._prompt_ids = request_id, prompt_ids
        self._reasons, self._tools = reasoning, tool
        self._reasoner: ReasoningParser | None = None
        self._caller: ToolParser | None = None
        self._read: list[str] = []  # the text so far
        self._answer: list[str] = []  # what of it is not reasoning

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [
            ToolCall(name=first.name, arguments="".join(self._arguments[index]), id=first.id)
            for index, first in self._calls.items()
        ]

    def feed(self, text: str, ids: Sequence[int] = ()) -> ParsedDelta:
        """The next piece, and the tokens that it came with."""
        return self._take(text, ids, over=False)

    def finish(self) -> ParsedDelta:
        """The output has ended."""
        return self._take("", (), over=True)

    def _take(self, text: str, ids: Sequence[int], *, over: bool) -> ParsedDelta:
        reasoning, calls = "", tuple[ToolDelta, ...]()
        if self._reasons is not None:
            self._read.append(text)
            try:
                reasoning, text = self._reason(text, ids, over)
                self.reasoning = (self.reasoning or "") + reasoning
            except Exception as error:
                text = self._unparsed(self._reasons, error, self._read, only=not self.reasoning)
                self._reasons = self._tools = self.reasoning = None
        if self._tools is not None:
            self._answer.append(text)
            try:
                text, calls = self._find_calls(text, ids, over)
            except Exception as error:
                text = self._unparsed(self._tools, error, self._answer, only=True)
                self._tools = None
        self.content += text
        return ParsedDelta(reasoning=reasoning, content=text, calls=calls)

    def _reason(self, text: str, ids: Sequence[int], over: bool) -> tuple[str, str]:
        if self._reasoner is None:
            assert self._reasons is not None
            self._reasoner = self._reasons.make()
            self._reasoner.starts_inside(self._prompt_ids)
        said = [self._reasoner.feed(text, ids), *([self._reasoner.finish()] if over else [])]
        return "".join(s.reasoning for s in said), "".join(s.content for s in said)

    def _find_calls(self, text: str, ids: Sequence[int], over: bool) -> tuple[str, tuple[ToolDelta, ...]]:
        if self._caller is None:
            assert self._tools is not None
            self._caller = self._tools.make()
        found = [*([self._caller.feed(text, ids)] if text else []), *([self._caller.finish()] if over else [])]
        calls = tuple(self._join(part) for f in found for part in f.calls)
        return "".join(f.content for f in found), calls

    def _join(self, part: ToolDelta | ToolCall) -> ToolDelta:
        """Add a part to its call. The first one gets an id, if it has none."""
        if not isinstance(part, ToolDelta):
            raise TypeError(f"feed and finish give ToolDelta, not {part!r:.80}")
        if part.index not in self._calls:
            if not part.name:
                raise ValueError(f"call {part.index} began without a name")
            part = part if part.id else attrs.evolve(part, id=f"call_{secrets.token_hex(12)}")
            self._calls[part.index], self._arguments[part.index] = part, []
        self._arguments[part.index].append(part.arguments)
        return part

    def _unparsed(self, made: Made, error: Exception, read: list[str], *, only: bool) -> str:
        """The text that this parser has read is content now. Returns what of it has not been given as such.

        only   whether it has given nothing but content, as far as is known here
        """
        warn(self._request_id, made, error)
        text = "".join(read)
        rest = text.removeprefix(self.content) if only and not self._calls else text
        self.content, self._calls = text[: len(text) - len(rest)], {}
        return rest


def warn(request_id: str, made: Made, error: Exception) -> None:
    log.warning(
        "request %s: %s failed (%s: %s); its text is given unparsed",
        request_id, made.label, type(error).__name__, error, exc_info=error,
    )  # fmt: skip
