"""``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, as Nous Research published it with Hermes 2 Pro."""

from __future__ import annotations

from vllm_core.text.pieces import Pieces, Reading
from vllm_core.text.tools import StreamedToolParser

__all__ = ["HermesToolParser"]

BEGIN, END = "<tool_call>", "</tool_call>"


class HermesToolParser(StreamedToolParser):
    """Several objects between one pair of tags are several calls; an end tag that is missing does no harm."""

    markers = (BEGIN, END)

    def read(self, text: Pieces) -> Reading[None]:
        inside = False  # only there an end tag is one
        while found := (yield from text.until((BEGIN, END) if inside else (BEGIN,), self.content)):
            if found == END:
                inside = False
                continue
            before = BEGIN + (yield from text.space())
            while (yield from text.peek()) == "{":
                if not (yield from self.call_object(text, before)):
                    before = ""
                    break
                inside = True
                before = yield from text.space()
            self.content(before)
