"""What of regular expressions the library reads otherwise than their users mean."""

from __future__ import annotations

import re

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
    for place, inner in _anchors(regex):
        if inner:
            raise ValueError(f"xgrammar heeds ^ and $ at the ends only, and one is at position {place}")


def check_pattern(pattern: str) -> None:
    """Of a JSON schema: it is looked for anywhere in a text, and the library matches the whole text."""
    check_regex(pattern)
    if not (pattern.startswith("^") and re.search(r"(?<!\\)(\\\\)*\$$", pattern)):
        raise ValueError(f"xgrammar needs patterns from ^ to $, and {pattern!r:.80} is not")
    if '"' in pattern or "\\\\" in pattern:
        raise ValueError(f"xgrammar has no quotation marks and backslashes in patterns: {pattern!r:.80}")
    if "|" in _top_level(pattern):
        raise ValueError(f"xgrammar needs alternatives of a pattern in a group: {pattern!r:.80}")


def _anchors(regex: str) -> list[tuple[int, bool]]:
    """(place, whether it is not at the beginning or end of an alternative at the top) of each ^ and $."""
    found, i, in_class = [], 0, False
    while i < len(regex):
        char = regex[i]
        if char == "\\":
            i += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif char == "^":
            found.append((i, i > 0))
        elif char == "$":
            found.append((i, i < len(regex) - 1))
        i += 1
    return found


def _top_level(regex: str) -> str:
    """The expression without its groups, classes and escapes."""
    kept, depth, in_class, i = [], 0, False, 0
    while i < len(regex):
        char = regex[i]
        if char == "\\":
            i += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif depth == 0:
            kept.append(char)
        i += 1
    return "".join(kept)
