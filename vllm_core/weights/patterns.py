"""Dotted names with captures: the little language of weight rules.

``{i}`` (any name) stands for an integer, ``{x:q|k|v}`` for one of some words, ``{w}`` for one
segment of a dotted name: ``weight``, ``bias``, or what a quantization method stores beside them.
Everything else is literal.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from vllm_core.weights.errors import RuleError

_CAPTURE = re.compile(r"\{(\w+)(?::([^{}]+))?\}")
SEGMENT = "w"
_SAMPLE_SEGMENTS = ("weight", "bias", "weight_scale")


@attrs.frozen
class Capture:
    name: str
    words: tuple[str, ...] = ()  # () for an integer or a segment

    @property
    def regex(self) -> str:
        if self.words:
            return "|".join(map(re.escape, self.words))
        return r"[A-Za-z_]\w*" if self.name == SEGMENT else r"\d+"

    @property
    def samples(self) -> tuple[str, ...]:
        return self.words or (_SAMPLE_SEGMENTS if self.name == SEGMENT else ("0",))


@attrs.frozen
class Pattern:
    """A text split at its captures: ``literals`` has one entry more than ``captures``."""

    text: str
    literals: tuple[str, ...]
    captures: tuple[Capture, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        pieces = _CAPTURE.split(text)
        captures = tuple(
            Capture(name, tuple(words.split("|")) if words else ())
            for name, words in zip(pieces[1::3], pieces[2::3], strict=True)
        )
        literals = tuple(pieces[::3])
        if any("{" in literal or "}" in literal for literal in literals):
            raise RuleError(f"weight rule {text!r}: a brace is not part of a capture such as {{i}} or {{x:q|k|v}}")
        return cls(text, literals, captures)

    @property
    def names(self) -> set[str]:
        return {c.name for c in self.captures}

    def regex(self, known: Mapping[str, Capture] | None = None) -> str:
        """One group a capture, in order. ``known`` says what the captures of a target stand for."""
        groups = [(known[c.name] if known else c).regex for c in self.captures]
        out = re.escape(self.literals[0])
        for group, literal in zip(groups, self.literals[1:], strict=True):
            out += f"({group}){re.escape(literal)}"
        return out

    def render(self, values: Mapping[str, str]) -> str:
        out = self.literals[0]
        for capture, literal in zip(self.captures, self.literals[1:], strict=True):
            out += values[capture.name] + literal
        return out

    def format_string(self) -> str:
        """For ``str.format(*values)``, values in the order of ``captures``."""
        return "{}".join(self.literals)

    def expand(self, fixed: Mapping[str, str], limit: int = 256) -> Iterator[dict[str, str]]:
        """Values of all captures: those of ``fixed``, and the samples of the others."""
        choices = [(fixed[c.name],) if c.name in fixed else c.samples for c in self.captures]
        names = [c.name for c in self.captures]
        for values in itertools.islice(itertools.product(*choices), limit):
            yield dict(zip(names, values, strict=True))


def match_values(regex: re.Pattern[str], pattern: Pattern, text: str) -> dict[str, str] | None:
    """The captures' values, or None. A capture that stands twice must have one value."""
    found = regex.fullmatch(text)
    if found is None:
        return None
    values: dict[str, Any] = {}
    for capture, value in zip(pattern.captures, found.groups(), strict=True):
        if values.setdefault(capture.name, value) != value:
            return None
    return values
