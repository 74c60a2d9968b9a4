"""Bodies that clients should not send."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["faults", "no_json", "other_values"]

OTHERS: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    1e308,
    "",
    "text",
    "\x00\ud83d",
    [],
    ["text"],
    [[]],
    {},
    {"a": 1},
)
DEEP = 2000  # levels


def no_json() -> Iterator[tuple[str, bytes]]:
    """(what it is, body): never a JSON object."""
    yield "nothing", b""
    yield "half an object", b'{"a": '
    yield "a list", b"[]"
    yield "null", b"null"
    yield "a text", b'"text"'
    yield "a number", b"1"
    yield "no UTF-8", b'{"a": "\xff\xfe"}'
    yield "zeros", b"\x00" * 64
    yield "two objects", b"{} {}"
    yield "NaN", b'{"a": NaN}'
    yield "a number of 5,000 digits", b'{"a": ' + b"9" * 5000 + b"}"
    yield "brackets without end", b"[" * DEEP


def faults(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(what is wrong, body): without one of its fields, and with one that goes deep."""
    for name in body:
        yield f"without {name}", {k: v for k, v in body.items() if k != name}
        deep: Any = "x"
        for _ in range(60):
            deep = [deep]
        yield f"{name} goes deep", {**body, name: deep}
        yield f"{name} is long", json.dumps({**body, name: "x" * 200_000}).encode()


def other_values(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in body:
        for value in OTHERS:
            yield f"{name} is {value!r:.30}", {**body, name: value}
