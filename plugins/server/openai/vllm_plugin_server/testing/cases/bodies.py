"""Bodies that are no JSON object, or one that harms its reader. On every route that takes a body."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterator

from vllm_plugin_server.testing.case import OK, Case, case
from vllm_plugin_server.testing.cases.good import good

__all__ = ["cases"]

DEEP = 100_000  # levels
DIGITS = 100_000


@functools.cache
def _bomb() -> bytes:
    """64 MiB of spaces in 64 KiB."""
    return gzip.compress(b" " * (64 << 20))


def cases(model: str) -> list[Case]:
    found: list[Case] = []
    for route, body in good(model).items():
        text = json.dumps(body)
        short = route.removeprefix("/v1/").replace("/", "-").strip("-")
        found += [case("body", f"{short}: {name}", route, sent, want, **more) for name, sent, want, more in _bad(text)]
        found += _types(short, route, text)
    return found


def _bad(text: str) -> Iterator[tuple[str, bytes, tuple[int, ...], dict]]:
    raw, head = text.encode(), text[:-1].encode()
    bad = (400,)
    yield "empty", b"", bad, {}
    yield "spaces", b"   \n", bad, {}
    yield "null", b"null", bad, {}
    yield "a list", b"[]", bad, {}
    yield "a number", b"1", bad, {}
    yield "a string", b'"x"', bad, {}
    yield "cut off", raw[: len(raw) // 2], bad, {"cve": ("CVE-2026-73555",)}
    yield "something after it", raw + b"}", bad, {}
    yield "two objects", raw + raw, bad, {}
    yield "single quotes", text.replace('"', "'").encode(), bad, {}
    yield "trailing comma", head + b",}", bad, {}
    yield "a comment", b"/* x */" + raw, bad, {}
    yield "not UTF-8", head + b', "user": "\xff\xfe"}', bad, {}
    yield "UTF-16", text.encode("utf-16"), bad, {}
    yield "overlong UTF-8", head + b', "user": "\xc0\x80"}', bad, {}
    yield "surrogate as bytes", head + b', "user": "\xed\xa0\x80"}', bad, {}
    yield "byte order mark", b"\xef\xbb\xbf" + raw, (400, 200), {}
    yield "NUL bytes", b"\x00" * 64, bad, {}
    yield "control character in a string", head + b', "user": "a\x01b"}', bad, {}
    yield "NaN", head + b', "temperature": NaN}', bad, {"cve": ("CVE-2026-54235",)}
    yield "Infinity", head + b', "temperature": Infinity}', bad, {"cve": ("CVE-2026-54235",)}
    yield "-Infinity", head + b', "temperature": -Infinity}', bad, {"cve": ("CVE-2026-54235",)}
    yield "1e999", head + b', "temperature": 1e999}', bad, {"cve": ("CVE-2026-54235",)}
    yield "a key twice", head + b', "model": "other"}', bad, {}
    yield "deep lists", head + b', "user": ' + b"[" * DEEP + b"]" * DEEP + b"}", bad, {"cve": ("CVE-2025-67221",)}
    yield "deep objects", head + b', "user": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}", bad, {}
    yield "deep and open", head + b', "user": ' + b"[" * DEEP, bad, {}
    yield "a number of 100,000 digits", head + b', "seed": ' + b"9" * DIGITS + b"}", bad, {}
    yield "an unknown name", head + b', "tempurature": 1}', bad, {}
    yield "a name of 100,000 characters", head + b', "' + b"x" * 100_000 + b'": 1}', bad, {}
    yield (
        "100,000 unknown names",
        head + b"," + b",".join(b'"x%d":0' % i for i in range(100_000)) + b"}",
        bad,
        {"cve": ("vllm#49239",)},
    )


def _types(short: str, route: str, text: str) -> list[Case]:
    raw = text.encode()

    def of(name: str, want: tuple[int, ...], sent: bytes = raw, **headers: str) -> Case:
        given = tuple((k.replace("_", "-"), v) for k, v in headers.items())
        return case("type", f"{short}: {name}", route, sent, want, headers=given)

    boundary = "x" * 69 + "-" * 5000
    return [
        of("text/plain", (400, 415), content_type="text/plain"),
        of("a form", (400, 415), b"model=x&prompt=y", content_type="application/x-www-form-urlencoded"),
        of("multipart", (400, 415), b"--x--", content_type="multipart/form-data; boundary=x"),
        of("a boundary of 5,000 dashes", (400, 415), b"", content_type=f"multipart/form-data; boundary={boundary}"),
        of("no type of content", (200, 400, 415), content_type=""),
        of("a type with a parameter", OK, content_type="application/json; charset=utf-8"),
        of("a charset that nobody has", (200, 400, 415), content_type="application/json; charset=klingon"),
        of("gzip", (400, 415), gzip.compress(raw), content_encoding="gzip"),
        of("a gzip bomb", (400, 413, 415), _bomb(), content_encoding="gzip"),
    ]
