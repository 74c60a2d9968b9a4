"""From a request's bytes to a checked record: the only way in, for every route."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.errors import ApiError, bad_request
from vllm_plugin_server.ignored import ignored_in
from vllm_plugin_server.limits import LIMITS, most
from vllm_plugin_server.reader import LARGE, Reader
from vllm_plugin_server.strict_json import count_values, parse_object
from vllm_plugin_server.unknown import known_names, unknown_names

__all__ = ["Room", "read_body", "read_bytes", "read_tree", "reader_of", "room_of", "to_record"]

T = TypeVar("T")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
READER, ROOM = "reader", "room"  # in ``ServerContext.state``
_TYPES = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "an object", "null": "null",
}  # fmt: skip

# Names that vLLM had once, and clients may still send.
_INSTEAD = {
    **{f"guided_{name}": f"structured_outputs.{name}" for name in ("json", "regex", "choice", "grammar")},
    "guided_whitespace_pattern": "structured_outputs.whitespace_pattern",
    "guided_decoding_backend": "--structured-outputs-config of the server",
}


class Room:
    """Bytes of bodies that are held at this moment, by all requests of the process."""

    def __init__(self) -> None:
        self.held = 0

    def take(self, size: int) -> None:
        if self.held + size > most("all_bodies_bytes"):
            raise ApiError(
                503, "the server holds too many large requests; try again in 1 s", code="busy",
                headers={"retry-after": "1"},
            )  # fmt: skip
        self.held += size

    def give(self, size: int) -> None:
        self.held -= size


async def read_bytes(headers: Mapping[str, str], receive: Callable[[], Awaitable[Any]], room: Room) -> bytes:
    """The body, within its limits of size and time. ``ApiError`` 413, 408, 503, or a client that has gone.

    ``room`` holds its length afterwards: whoever drops the body gives that back.
    """
    largest = most("body_bytes")
    if headers.get("content-encoding", "identity") not in ("identity", ""):
        raise ApiError(415, "a body must not be compressed (Content-Encoding)", code="unsupported_encoding")
    length = headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 20 and int(length) > largest:
        raise _too_large(largest)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(LIMITS["body_seconds"].most):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ConnectionResetError
                piece = message.get("body", b"")
                if size + len(piece) > largest:
                    raise _too_large(largest)
                room.take(len(piece))
                size += len(piece)
                pieces.append(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces) if len(pieces) > 1 else piece
    except BaseException as error:
        room.give(size)
        if not isinstance(error, TimeoutError):
            raise
        raise ApiError(
            408,
            f"the body did not come within {LIMITS['body_seconds'].most:g} seconds",
            headers={"connection": "close"},
        ) from None


def _too_large(largest: int) -> ApiError:
    """The connection stays, and `protocol` throws the rest away: clients read no answer before they have sent all."""
    return ApiError(413, f"the body may have at most {largest:,} bytes")


async def read_body(request: Request, kind: type[T], context: ServerContext) -> T:
    """The body as a record of this type; unknown names, wrong types and values out of bounds are an ``ApiError``."""
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media not in ("application/json", "") and not media.endswith("+json"):
        raise ApiError(
            415, f"the body must be JSON (Content-Type: application/json), not {media[:80]}",
            code="unsupported_media_type",
        )  # fmt: skip
    raw: bytes = request.state.body
    lenient = context.settings.lenient_requests
    if len(raw) > LARGE:
        record, names = await reader_of(context).read(raw, kind, lenient)
    else:
        _, record, names = await context.work(read_tree, raw, kind, lenient, size=len(raw) // 8)
    if ignored := ignored_in(request.state.route, names):
        request.state.exchange.ignored = ignored
    return record


def reader_of(context: ServerContext) -> Reader:
    """One a server."""
    if READER not in context.state:
        reader = context.state[READER] = Reader()
        context.on_shutdown.append(reader.close)
    return context.state[READER]


def room_of(context: ServerContext) -> Room:
    """One a server."""
    return context.state.setdefault(ROOM, Room())


def read_tree(raw: bytes, kind: type[T], lenient: bool) -> tuple[dict[str, Any], T, list[str]]:
    """A body as it was parsed, as a record, and which of the record's names it has. Raises ``ApiError``."""
    tree = parse_object(raw)
    record = to_record(tree, kind, lenient=lenient)
    if count_values(tree) > most("values"):  # last, as what the record lacks says more
        raise bad_request(f"the body holds more than {most('values'):,} texts, names, lists and objects")
    return tree, record, [name for name in known_names(kind) if name in tree]


def to_record(tree: dict[str, Any], kind: type[T], *, lenient: bool = False) -> T:
    """A parsed object as a record. ``lenient``: names that nobody knows are passed over."""
    if not lenient:
        for where, name, known in unknown_names(tree, kind):
            raise _unknown(where, name, known)
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None


def _unknown(where: str, name: str, known: list[str]) -> ApiError:
    near = get_close_matches(name[:80], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if not where and name in _INSTEAD:
        hint = f" any more; {_INSTEAD[name]} takes its place"
    inside = f" in {where[:200]}" if where else ""
    path = f"{where}.{name}" if where else name
    return bad_request(f"there is no field {name[:80]!r}{inside}{hint}", path[:200], "unknown_field")


def _explained(text: str) -> ApiError:
    """msgspec's message in plain words, with the field it is about."""
    place = _PLACE.search(text)
    param = place[1] if place else None
    what = _PLACE.sub("", text)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return bad_request(f"{param} is missing", param, "missing_field")
    what = what[:1].lower() + what[1:]
    what = re.sub(r"`([^`]+)`", lambda m: " or ".join(_TYPES.get(t, t) for t in m[1].split(" | ")), what)
    return bad_request(f"{param or 'the body'}: {what}", param, "invalid_value")
