"""The contract of tool parsers: calls of tools in a model's text. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from vllm_core.interfaces.tokenizer import Tokenizer


@attrs.frozen(kw_only=True)
class ToolCall:
    """A call. ``arguments`` is JSON text, as the model wrote it or made from its own format.

    If the output ended within the arguments, or they turned out to be no JSON, it is the beginning
    of them that was given out by then, which no reader of JSON accepts.
    """

    name: str
    arguments: str
    id: str = ""  # "": the core makes one


@attrs.frozen(kw_only=True)
class ToolDelta:
    """A part of call ``index``: the first part has the name, all parts' arguments join to JSON."""

    index: int
    name: str = ""
    arguments: str = ""
    id: str = ""


@attrs.frozen(kw_only=True)
class ToolParse:
    """Text outside of calls, and the calls: ``ToolCall`` for whole text, ``ToolDelta`` for a stream."""

    content: str = ""
    calls: tuple[ToolCall | ToolDelta, ...] = ()


class ToolParser(Protocol):
    """Made for each request: ``Target(tokenizer, tools)``, and the offer's options, if any, as keyword arguments.

    Either ``parse``, or ``feed``... ``finish``.
    """

    def __init__(self, tokenizer: Tokenizer, tools: Sequence[dict[str, Any]]) -> None:
        """``tools`` as in the request: ``{"type": "function", "function": {"name": ..., "parameters": ...}}``."""

    def prepare(self, options: dict[str, Any]) -> dict[str, Any]:
        """Change how the request is run, e.g. keep special tokens in its text. Returns the options to use.

        options   fields of SamplingParams: ``{"skip_special_tokens": True, ...}``
        """

    def parse(self, text: str) -> ToolParse:
        """The whole output of a request. Text that is no well-formed call stays content.

        All of the text is in the result: what is neither markup of a call nor part of one is content. White
        space beside a call may be left out.
        """

    def feed(self, text: str, ids: Sequence[int]) -> ToolParse:
        """The next piece of output; cut anywhere, also inside a marker, which is then held back.

        ids   of the tokens that the piece came with; text and tokens do not end at the same places
        """

    def finish(self) -> ToolParse:
        """The output has ended: give what was held back.

        All pieces together equal ``parse`` of the whole text.
        """
