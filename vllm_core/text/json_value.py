"""One JSON value out of text that comes in pieces (RFC 8259)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

__all__ = ["JsonValue"]

_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[-+.0-9A-Za-z]*")
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_HEX = re.compile(r"[0-9A-Fa-f]*")
LONGEST_SCALAR = 1000  # characters; held back until it is whole


class JsonValue:
    """Reads up to the end of a value, or to the first character that no value can go on with.

    done     the value is whole
    broken   the text is no JSON; what was given out before is the beginning of some

    Given out is JSON as it was written, with two slips of models mended, both within strings:
    a line break or other control character is escaped, and so is a backslash that begins no escape.
    """

    def __init__(self) -> None:
        self.done = self.broken = False
        self._nested: list[str] = []  # "}" and "]" that are due
        self._expect: Callable[[str, int], int] = self._value
        self._out: list[str] = []
        self._held = ""  # the beginning of a scalar or of an escape
        self._key = False  # the string being read is a key
        self._first = False  # nothing stands in this object or array yet, so that it may end

    def feed(self, text: str, at: int = 0) -> int:
        """Read ``text`` from ``at`` on; where it stopped. It stops early only if done or broken."""
        while at < len(text) and not (self.done or self.broken):
            at = self._expect(text, at)
        return at

    def take(self) -> str:
        """What has become certain since the last time."""
        text, self._out = "".join(self._out), []
        return text

    def finish(self) -> None:
        """The text has ended. A number is whole only now."""
        if self._expect == self._scalar and not self.broken:
            self._end_scalar()

    def rest(self) -> str:
        """What was read and is not given out: the beginning of something that did not come."""
        text, self._held = self._held, ""
        return text

    def _gap(self, text: str, at: int) -> tuple[str, int]:
        """Past white space: the character there, "" if the piece ends before."""
        end = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        self._out.append(text[at:end])
        return text[end : end + 1], end

    def _go(self, text: str, at: int, expect: Callable[[str, int], int]) -> int:
        """Give out the character at ``at`` and go on."""
        self._out.append(text[at])
        self._expect = expect
        return at + 1

    def _break(self, at: int) -> int:
        self.broken = True
        return at

    def _value(self, text: str, at: int) -> int:
        c, at = self._gap(text, at)
        if not c:
            return at
        if c == "]" and self._first and self._nested[-1] == c:
            return self._close(text, at)
        if c in "{[":
            self._nested.append("}" if c == "{" else "]")
            self._first = True
            return self._go(text, at, self._name if c == "{" else self._value)
        self._first = False
        if c == '"':
            self._key = False
            return self._go(text, at, self._string)
        if c in "-0123456789tfn":
            self._expect = self._scalar
            return at
        return self._break(at)

    def _name(self, text: str, at: int) -> int:
        c, at = self._gap(text, at)
        if not c:
            return at
        if c == "}" and self._first:
            return self._close(text, at)
        if c != '"':
            return self._break(at)
        self._first, self._key = False, True
        return self._go(text, at, self._string)

    def _colon(self, text: str, at: int) -> int:
        c, at = self._gap(text, at)
        return at if not c else self._go(text, at, self._value) if c == ":" else self._break(at)

    def _next(self, text: str, at: int) -> int:
        c, at = self._gap(text, at)
        if not c:
            return at
        if c == self._nested[-1]:
            return self._close(text, at)
        return (
            self._go(text, at, self._name if self._nested[-1] == "}" else self._value) if c == "," else self._break(at)
        )

    def _close(self, text: str, at: int) -> int:
        self._nested.pop()
        self._first = False
        at = self._go(text, at, self._next)
        self.done = not self._nested
        return at

    def _string(self, text: str, at: int) -> int:
        end = _PLAIN.match(text, at).end()  # type: ignore[union-attr]
        self._out.append(text[at:end])
        if end == len(text):
            return end
        if text[end] == '"':
            end = self._go(text, end, self._colon if self._key else self._next)
            self.done = not self._nested
            return end
        if text[end] == "\\":
            self._held, self._expect = "\\", self._escape
        else:
            self._out.append(json.dumps(text[end])[1:-1])
        return end + 1

    def _escape(self, text: str, at: int) -> int:
        if self._held == "\\":
            c = text[at]
            if c == "u":
                self._held = "\\u"
                return at + 1
            good = c in '"\\/bfnrt'
        else:
            end = _HEX.match(text, at, at + 6 - len(self._held)).end()  # type: ignore[union-attr]
            self._held += text[at:end]
            good = len(self._held) == 6
            if end == len(text) and not good:
                return end
            at, c = end, ""
        # A backslash that begins no escape stands for itself; what comes after it is read again.
        self._out.append(self._held + c if good else "\\" + self._held)
        self._held, self._expect = "", self._string
        return at + len(c) if good else at

    def _scalar(self, text: str, at: int) -> int:
        end = _WORD.match(text, at, at + LONGEST_SCALAR).end()  # type: ignore[union-attr]
        self._held += text[at:end]
        if len(self._held) > LONGEST_SCALAR:
            self.broken = True
        elif end < len(text):
            self._end_scalar()
        return end

    def _end_scalar(self) -> None:
        if _SCALAR.fullmatch(self._held) is None:
            self.broken = True
            return
        self._out.append(self._held)
        self._held, self._expect = "", self._next
        self.done = not self._nested
