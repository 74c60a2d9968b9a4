"""Which matrices a list of names and patterns means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

HEADS = ("lm_head", "embed_out")
"""Products with the whole vocabulary: few of all weights, and the last to be rounded."""


def fits(name: str, pattern: str) -> bool:
    """``pattern`` is a module's name or the end of one, * for any characters; or "re:" and a regular expression.

    The latter fits from the start of the name, as in compressed-tensors.
    """
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def first_fit(name: str, patterns: Iterable[str]) -> str | None:
    return next((pattern for pattern in patterns if fits(name, pattern)), None)


def broken(patterns: Iterable[str]) -> str:
    """What is wrong with a pattern; "" if nothing is."""
    for pattern in patterns:
        try:
            fits("", pattern)
        except re.error as error:
            return f"{pattern!r} is no regular expression: {error}"
    return ""
