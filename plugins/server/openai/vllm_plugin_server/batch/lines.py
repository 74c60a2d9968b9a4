"""Lines of a batch file: read one at a time, so that a file may be larger than memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import attrs
import msgspec

from vllm_plugin_server.limits import most

__all__ = ["BadLine", "Line", "read_lines"]

LONGEST = most("body_bytes") + (1 << 16)  # bytes of a line: a body, and what stands around it
FIELDS = ("custom_id", "method", "url", "body")


@attrs.frozen
class Line:
    number: int  # in the file, from 1
    custom_id: str
    url: str
    body: bytes  # JSON, as the route reads it


@attrs.frozen
class BadLine:
    """A line that is no request. Its answer says why; the others go on."""

    number: int
    custom_id: str | None
    why: str


class _Fields(msgspec.Struct):
    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: msgspec.Raw = msgspec.Raw(b"")


_split = msgspec.json.Decoder(_Fields).decode


def read_lines(path: str | os.PathLike[str]) -> Iterator[Line | BadLine]:
    """Every line but blank ones. ``OSError`` if there is no such file.

    A custom_id is a request's only name in the output, so that the second line with one is refused.
    """
    known: dict[bytes, int] = {}
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                size = len(line) + _skip(file)
                yield BadLine(number, None, f"the line has {size:,} bytes; at most {LONGEST:,} are read")
            elif line.strip():
                yield _first(_read(number, line), known)


def _first(line: Line | BadLine, known: dict[bytes, int]) -> Line | BadLine:
    """The line, if none before it has its custom_id. ``known``: digests, as names may be long, and lines many."""
    if line.custom_id is None:
        return line
    before = known.setdefault(
        hashlib.blake2b(line.custom_id.encode("utf-8", "replace"), digest_size=16).digest(), line.number
    )
    if before == line.number:
        return line
    return BadLine(line.number, line.custom_id, f"custom_id {line.custom_id[:80]!r} is that of line {before}, too")


def _skip(file: BinaryIO) -> int:
    """To the end of the line; the bytes that were left out."""
    size = 0
    while piece := file.readline(1 << 20):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _read(number: int, line: bytes) -> Line | BadLine:
    try:
        fields = _split(line)
    except Exception as error:  # whatever a parser raises belongs to this line
        return BadLine(number, None, f"the line is no JSON object with {', '.join(FIELDS)}: {str(error)[:300]}")
    name = fields.custom_id if isinstance(fields.custom_id, str) else None
    if name is None:
        return BadLine(number, None, "custom_id must be text")
    if fields.method != "POST":
        return BadLine(number, name, f"method must be POST, not {fields.method!r:.40}")
    if not isinstance(fields.url, str) or not fields.url.startswith("/") or not fields.url.isascii():
        return BadLine(number, name, f"url must be the path of a route such as /v1/completions, not {fields.url!r:.80}")
    body = bytes(fields.body)
    if not body.startswith(b"{"):
        return BadLine(number, name, "body must be an object")
    return Line(number, name, fields.url, body)
