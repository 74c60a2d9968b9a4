"""JSON as the standard has it and no more: what two parsers would read differently is refused.

Duplicate keys, NaN and infinities, numbers too large for a float, invalid UTF-8, halves of surrogate pairs, and
nesting beyond the limit.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from vllm_plugin_server.errors import ApiError, bad_request
from vllm_plugin_server.limits import most

__all__ = ["count_values", "depth_of", "parse_object"]

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
DEPTH, DIGITS = most("depth"), most("digits")
_PLAIN = frozenset((int, float, bool, type(None)))


class _Refused(Exception):
    pass


def parse_object(body: bytes, *, marks: int | None = None) -> dict[str, Any]:
    """The object that a body holds. Raises ``ApiError``.

    marks   at most so many commas, brackets and braces: what is read where nobody can end it
    """
    if marks is not None and sum(map(body.count, (b",", b"[", b"{"))) > marks:
        raise ApiError(413, f"the body holds more than {marks:,} commas, brackets and braces")
    if not body.strip():
        raise bad_request("the body is empty; it must be a JSON object", code="invalid_json")
    if body.count(b",") > most("commas"):  # before the parser, which would hold everybody up
        raise ApiError(413, f"the body holds more than {most('commas'):,} commas")
    try:
        text = body.decode("utf-8-sig" if body.startswith(b"\xef\xbb\xbf") else "utf-8")
        found = _decoder.decode(text)
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8 (byte {error.start})", code="invalid_json") from None
    except _Refused as refused:
        raise bad_request(f"the body is not valid JSON: {refused}", code="invalid_json") from None
    except json.JSONDecodeError as error:
        raise bad_request(
            f"the body is not valid JSON: {error.msg} at character {error.pos}", code="invalid_json"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(found, dict):
        raise bad_request(f"the body must be a JSON object, not {_kind(found)}", code="invalid_json")
    if depth_of(found) > DEPTH:
        raise _too_deep()
    if _SURROGATE.search(body):
        _refuse_halves(found)
    return found


def depth_of(value: Any, most: int = DEPTH) -> int:
    """Levels of lists and objects; counting ends one past ``most``."""
    level, depth = [value], 0
    while level and depth <= most:
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
        depth += 1
    return depth


def count_values(value: Any) -> int:
    """Texts, names, lists and objects in it: each takes its time wherever it is read."""
    count, todo = 0, [value]
    while todo:
        outer = todo.pop()
        if isinstance(outer, dict):
            count += len(outer)
            outer = outer.values()
        items = [item for item in outer if type(item) not in _PLAIN]
        count += len(items)
        todo += [item for item in items if not isinstance(item, str)]
    return count


def _too_deep() -> ApiError:
    return bad_request(f"the body nests lists and objects deeper than {DEPTH} levels", code="invalid_json")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON number")


def _int(text: str) -> int:
    if len(text) > DIGITS:
        raise _Refused("a number has too many digits")
    return int(text)


def _float(text: str) -> float:
    if len(text) > DIGITS:
        raise _Refused("a number has too many digits")
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"the number {text[:40]} is too large")
    return value


def _refuse_halves(value: Any) -> None:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError:
                raise bad_request(
                    "the body is not valid JSON: a text holds half of a surrogate pair", code="invalid_json"
                ) from None
        elif isinstance(item, dict):
            todo += [*item, *item.values()]
        elif isinstance(item, list):
            todo += item


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(type(value), "a number")


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=_int)
