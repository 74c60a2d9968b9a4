"""Mistral's tool calls, in the formats of its tokenizers up to version 7 and from 11 on.

up to 7    [TOOL_CALLS][{"name": NAME, "arguments": {...}}, ...]
from 11    [TOOL_CALLS]NAME[ARGS]{...}, again for each call; some write [CALL_ID]ID before [ARGS], or no [ARGS]

Formats: mistral-common, tokens/tokenizers/instruct.py.
"""

from __future__ import annotations

import re
import secrets
import string

from vllm_core.text.pieces import Pieces, Reading
from vllm_core.text.tools import LONGEST_NAME, StreamedToolParser

__all__ = ["MistralToolParser"]

CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_NAME = re.compile(r"[\w.:/-]*", re.ASCII)
_LETTERS = string.ascii_letters + string.digits
_ID = re.compile(r"[0-9A-Za-z]{9}")


class MistralToolParser(StreamedToolParser):
    """Ids are the model's if it gave one, else made: templates refuse any but 9 letters and digits."""

    markers = (CALLS, ARGS, CALL_ID)

    def call(self, name: str, id: str = "") -> None:
        super().call(name, id if _ID.fullmatch(id) else "".join(secrets.choice(_LETTERS) for _ in range(9)))

    def read(self, text: Pieces) -> Reading[None]:
        while (yield from text.until((CALLS,), self.content)):
            before = CALLS + (yield from text.space())
            if not (yield from text.ahead(CALLS)) and (yield from text.passes("[")):
                yield from self._array(text, before + "[")
            else:
                yield from self._named(text, before)

    def _array(self, text: Pieces, before: str) -> Reading[None]:
        before += yield from text.space()
        while (yield from text.peek()) == "{":
            if not (yield from self.call_object(text, before)):
                return
            before = yield from text.space()
            if (yield from text.passes("]")):
                return
            if not (yield from text.passes(",")):
                break
            before += "," + (yield from text.space())
        self.content(before)

    def _named(self, text: Pieces, before: str) -> Reading[None]:
        if (yield from text.peek()) == "{":  # one object, without its array
            yield from self.call_object(text, before)
            return
        name = yield from text.run(_NAME, LONGEST_NAME)
        before += name
        id = ""
        if name and (yield from text.passes(CALL_ID)):
            id = yield from text.run(_NAME, LONGEST_NAME)
            before += CALL_ID + id
        if name and (yield from text.passes(ARGS)):
            before += ARGS
        before += yield from text.space()
        if name and (yield from text.peek()) == "{":
            self.call(name, id)
            yield from self.arguments_object(text)
        else:
            self.content(before)
