"""What of regular expressions the library reads otherwise than their users mean."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["check_pattern", "check_regex"]

# Anchors and groups that it takes and does not heed.
_UNHEEDED = ((re.compile(r"\(\?<?[=!]"), "look-around"), (re.compile(r"\[\[:"), "POSIX classes"))
_ANCHORS = re.compile(r"\\[AZzG]")


def check_regex(regex: str) -> None:
    """``ValueError`` names what it would not heed. The whole output matches, so ^ and $ may stand at its ends."""
    plain = re.sub(r"\\\\", "", regex)
    for pattern, name in _UNHEEDED:
        if pattern.search(plain):
            raise ValueError(f"xgrammar has no {name} in regular expressions")
    if _ANCHORS.search(plain):
        raise ValueError(r"xgrammar has no anchors \A, \Z, \z and \G; the whole output matches without them")
    if inner := _inner_anchors(regex):
        raise ValueError(f"xgrammar heeds ^ and $ at the ends only, and one is at position {inner[0]}")


def check_pattern(pattern: str) -> None:
    """Of a JSON schema: it is looked for anywhere in a text, and the library matches the whole text."""
    check_regex(pattern)
    if not (pattern.startswith("^") and re.search(r"(?<!\\)(\\\\)*\$$", pattern)):
        raise ValueError(f"xgrammar needs patterns from ^ to $, and {pattern!r:.80} is not")
    if '"' in pattern or "\\\\" in pattern:
        raise ValueError(f"xgrammar has no quotation marks and backslashes in patterns: {pattern!r:.80}")
    if "|" in _top_level(pattern):
        raise ValueError(f"xgrammar needs alternatives of a pattern in a group: {pattern!r:.80}")


def _outside(regex: str) -> Iterator[tuple[int, str]]:
    """(place, character) of each that is neither escaped nor in a class."""
    escaped = in_class = False
    for place, char in enumerate(regex):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        else:
            yield place, char


def _inner_anchors(regex: str) -> list[int]:
    """The places of ^ and $ that are not at its ends."""
    ends = {"^": 0, "$": len(regex) - 1}
    return [place for place, char in _outside(regex) if char in ends and place != ends[char]]


def _top_level(regex: str) -> str:
    """The expression without its groups, classes and escapes."""
    kept, depth = [], 0
    for _, char in _outside(regex):
        if char in "()":
            depth += 1 if char == "(" else -1
        elif depth == 0:
            kept.append(char)
    return "".join(kept)
