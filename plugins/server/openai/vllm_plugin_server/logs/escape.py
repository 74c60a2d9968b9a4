"""Text from clients, made safe for a terminal and for one line of a log."""

from __future__ import annotations

import re

__all__ = ["escaped"]

# Controls (ESC among them), line ends of Unicode, marks that turn the direction of text, halves of characters.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]|\\\\(?=[nrtxu])"
)
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}


def escaped(text: str) -> str:
    """``text`` in one line that shows all of it. A backslash that would look like such an escape is doubled."""
    return _UNSAFE.sub(_escape, text) if not text.isascii() or not text.isprintable() or "\\" in text else text


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
