"""What may stand in rope parameters, and what is wrong with those given. No torch here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs


@attrs.frozen
class Rule:
    """What a value must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


POSITIVE = Rule("a number above 0", lambda v: _number(v) and v > 0)
FROM_0 = Rule("a number of 0 or more", lambda v: _number(v) and v >= 0)
FROM_1 = Rule("a number of 1 or more", lambda v: _number(v) and v >= 1)
LENGTH = Rule("a whole number of 2 or more", lambda v: _number(v) and v >= 2 and v == int(v))
FLAG = Rule("true or false", lambda v: isinstance(v, bool))
FACTORS = Rule("a list of numbers above 0", lambda v: isinstance(v, (list, tuple)) and all(map(POSITIVE.holds, v)))
SHARE = Rule("a number above 0 and at most 1", lambda v: _number(v) and 0 < v <= 1)

COMMON = {
    "rope_theta": Rule("a number above 1", lambda v: _number(v) and v > 1),
    "partial_rotary_factor": SHARE,
    "interleaved": FLAG,
    "max_position_embeddings": LENGTH,
    "original_max_position_embeddings": LENGTH,
}
UNREAD = {"rope_type", "type", "finetuned"}  # the last is a remark of the checkpoint's authors


@attrs.frozen(kw_only=True)
class Kind:
    """A rope type.

    needs          all of these; an inner tuple: at least one of them
    takes          further fields that are read
    unread         fields that published checkpoints of this type have and nobody reads
    reads_length   whether the table depends on the longest sequence that is served
    """

    target: str
    summary: str
    needs: tuple[str | tuple[str, ...], ...] = ("rope_theta",)
    takes: Mapping[str, Rule]
    unread: frozenset[str] = frozenset()
    reads_length: bool = False


def fault(kind: Kind, head_dim: int, params: Mapping[str, Any]) -> str:
    """What is wrong with rope parameters; "" if nothing is. A field that is null counts as left out."""
    given = {name: value for name, value in params.items() if value is not None}
    for need in kind.needs:
        names = (need,) if isinstance(need, str) else need
        if not given.keys() & set(names):
            return f"rope_parameters lack {' or '.join(map(repr, names))}; they have {', '.join(sorted(given))}"
    rules = {**COMMON, **kind.takes}
    for name, value in given.items():
        if name in kind.unread or name in UNREAD:
            continue
        if name not in rules:
            near = difflib.get_close_matches(name, rules, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(rules))}"
            return f"rope_parameters have {name!r}, which this type does not read{meant}"
        if not rules[name].holds(value):
            return f"rope_parameters: {name!r} must be {rules[name].words}, not {value!r:.80}"
    size = int(head_dim * given.get("partial_rotary_factor", 1.0))
    if size < 4 or size % 2:
        return f"{size} of {head_dim} elements of a head would be rotated; this type needs an even number from 4"
    for name in given:
        if rules.get(name) is FACTORS and len(given[name]) != size // 2:
            return f"rope_parameters: {name!r} must have {size // 2} numbers, one a frequency, not {len(given[name])}"
    return ""
