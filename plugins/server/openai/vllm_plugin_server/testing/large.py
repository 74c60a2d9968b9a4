"""R19: bodies as large as the server takes, each made to be slow at another place between the socket and the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs

from vllm_plugin_server.testing.cases.good import good

__all__ = ["Large", "large_bodies"]

SIZE = 30_000_000  # bytes, below the limit of 32 MiB
TEXT = 8_000_000  # characters: the longest text that any model takes
IDS = 1_000_000


@attrs.frozen
class Large:
    """``body()`` makes it anew: dozens of megabytes are held one at a time."""

    name: str
    target: str
    body: Callable[[], bytes]


def _with(base: dict[str, Any], field: str, value: bytes) -> bytes:
    """``base`` with a field whose JSON is given."""
    rest = {name: item for name, item in base.items() if name != field}
    return json.dumps(rest)[:-1].encode() + f', "{field}": '.encode() + value + b"}"


def _list(item: bytes, size: int = SIZE, most: int | None = None) -> bytes:
    count = size // (len(item) + 1) if most is None else most
    return b"[" + (item + b",") * (count - 1) + item + b"]"


def _object(names: int, value: bytes = b"1") -> bytes:
    return b"{" + b",".join(b'"k%d":%s' % (i, value) for i in range(names)) + b"}"


def _text(size: int, piece: bytes = b"All work and no play. ") -> bytes:
    return b'"' + (piece * (size // len(piece) + 1))[:size] + b'"'


_VALUES: dict[str, Callable[[], bytes]] = {
    # Anything, in any field: what only the reader of JSON sees.
    "30 MB of text": lambda: _text(SIZE),
    "8 MB of text": lambda: _text(TEXT),
    "500 kB of text": lambda: _text(500_000),
    "60 kB of text": lambda: _text(60_000),
    "30 MB of escapes": lambda: _text(SIZE // 6 * 6, b"\\u0041"),
    "30 MB of surrogate pairs": lambda: _text(SIZE // 12 * 12, b"\\ud83d\\ude00"),
    "half a pair after 30 MB": lambda: _text(SIZE // 12 * 12, b"\\ud83d\\ude00")[:-1] + b'\\ud800"',
    "no UTF-8 after 30 MB": lambda: _text(SIZE)[:-1] + b'\xff"',
    "30 MB of two-byte characters": lambda: _text(SIZE, "é".encode()),
    "30 MB of spaces": lambda: b" " * SIZE + b"1",
    "an open text of 30 MB": lambda: _text(SIZE)[:-1],
    "1.4 million numbers": lambda: _list(b"7", most=1_400_000),
    "1.4 million long numbers": lambda: _list(b"1234567890.12345678", most=1_400_000),
    "a number of 30 MB": lambda: b"1" * SIZE,
    "a fraction of 30 MB": lambda: b"0." + b"1" * SIZE,
    "7,000 numbers of 4,200 digits": lambda: _list(b"9" * 4200),
    "1.4 million texts": lambda: _list(b'"abcdefgh"', most=1_400_000),
    "1.4 million lists": lambda: _list(b"[]", most=1_400_000),
    "1.4 million objects": lambda: _list(b"{}", most=1_400_000),
    "1.4 million objects of one name": lambda: _list(b'{"text":"x"}', most=1_400_000),
    "1.4 million names": lambda: _object(1_400_000),
    "lists in lists": lambda: _list(b"[" * 40 + b"1" + b"]" * 40, most=370_000),
    "more commas than are allowed": lambda: b"[" + b"," * SIZE + b"]",
    "400,000 levels": lambda: b"[" * 400_000,
    "one name twice after 1.4 million": lambda: _object(1_400_000)[:-1] + b',"k0":1}',
    "1,000,000 ids": lambda: _list(b"77", most=IDS),
    "1,000,000 ids, one too large": lambda: _list(b"77", most=IDS)[:-1] + b",99999999999]",
    "1,000 lists of 999 ids": lambda: _list(_list(b"77", most=999), most=1000),
    "1,000 texts of 8,000": lambda: _list(_text(8000), most=1000),
}  # fmt: skip

_FIELDS = {
    "/v1/completions": ("prompt", "stop", "logit_bias", "suffix", "unknown_name", "metadata", "model"),
    "/v1/chat/completions": ("messages", "tools", "chat_template_kwargs", "documents", "metadata", "tool_choice"),
    "/v1/responses": ("input", "tools", "instructions", "text"),
    "/v1/messages": ("messages", "system", "tools"),
    "/tokenize": ("prompt", "messages"),
    "/detokenize": ("tokens",),
}


def _user(content: bytes) -> bytes:
    return b'[{"role":"user","content":' + content + b"}]"


def _calls(arguments: bytes, count: int) -> bytes:
    call = b'{"id":"c","type":"function","function":{"name":"f","arguments":' + arguments + b"}}"
    return b'[{"role":"user","content":"x"},{"role":"assistant","tool_calls":' + _list(call, most=count) + b"}]"


def _tool(parameters: bytes, anthropic: bool = False) -> bytes:
    if anthropic:
        return b'[{"name":"f","input_schema":' + parameters + b"}]"
    return b'[{"type":"function","function":{"name":"f","parameters":' + parameters + b"}}]"


def _schema(names: int) -> bytes:
    return b'{"type":"object","properties":' + _object(names, b'{"type":"string"}') + b"}"


_MADE: dict[tuple[str, str, str], Callable[[], bytes]] = {
    # What routes read further: conversations, tools, schemas.
    ("/v1/chat/completions", "messages", "4,000 messages"): lambda: _list(b'{"role":"user","content":"x"}', most=4000),
    ("/v1/chat/completions", "messages", "4,000 messages of 170 parts"): lambda: _list(
        b'{"role":"user","content":' + _list(b'{"type":"text","text":"x"}', most=170) + b"}", most=4000
    ),
    ("/v1/chat/completions", "messages", "1,000 parts of 8,000"): lambda: _user(
        _list(b'{"type":"text","text":' + _text(8000) + b"}", most=1000)
    ),
    ("/v1/chat/completions", "messages", "8 MB in one"): lambda: _user(_text(TEXT)),
    ("/v1/chat/completions", "messages", "30 MB of special tokens"): lambda: _user(_text(SIZE, b"<|im_start|>")),
    ("/v1/chat/completions", "messages", "500 kB of special tokens"): lambda: _user(_text(500_000, b"<|im_start|>")),
    ("/v1/chat/completions", "messages", "calls of 15 MB of arguments"): lambda: _calls(
        json.dumps(_object(1_000_000).decode()).encode(), 1
    ),
    ("/v1/chat/completions", "messages", "120 calls of 200 kB"): lambda: _calls(
        json.dumps(_object(12_000).decode()).encode(), 120
    ),
    ("/v1/chat/completions", "messages", "arguments as an object of 1,000,000"): lambda: _calls(_object(1_000_000), 1),
    ("/v1/chat/completions", "tools", "a schema of 20 MB"): lambda: _tool(_schema(700_000)),
    ("/v1/chat/completions", "tools", "a schema of 60 kB"): lambda: _tool(_schema(2000)),
    ("/v1/chat/completions", "response_format", "a schema of 20 MB"): lambda: (
        b'{"type":"json_schema","json_schema":{"name":"x","schema":' + _schema(700_000) + b"}}"
    ),
    ("/v1/chat/completions", "response_format", "a schema of 60 kB"): lambda: (
        b'{"type":"json_schema","json_schema":{"name":"x","schema":' + _schema(2000) + b"}}"
    ),
    ("/v1/completions", "structured_outputs", "1.4 million choices"): lambda: (
        b'{"choice":' + _list(b'"x"', most=1_400_000) + b"}"
    ),
    ("/v1/completions", "structured_outputs", "a schema of 20 MB"): lambda: b'{"json":' + _schema(700_000) + b"}",
    ("/v1/completions", "structured_outputs", "a grammar of 30 MB"): lambda: b'{"grammar":' + _text(SIZE) + b"}",
    ("/v1/completions", "allowed_token_ids", "1,000,000"): lambda: _list(b"7", most=IDS),
    ("/v1/completions", "bad_words", "1.4 million"): lambda: _list(b'"x"', most=1_400_000),
    ("/v1/responses", "input", "100,000 items"): lambda: _list(
        b'{"type":"message","role":"user","content":"x"}', most=100_000
    ),
    ("/v1/responses", "input", "a message of 500,000 parts"): lambda: _user(
        _list(b'{"type":"input_text","text":"x"}', most=500_000)
    ),
    ("/v1/responses", "input", "a wrong item of 30 MB"): lambda: b"[" + _list(b'"abcdefgh"', most=1_400_000) + b"]",
    ("/v1/responses", "text", "a schema of 20 MB"): lambda: (
        b'{"format":{"type":"json_schema","name":"x","schema":' + _schema(700_000) + b"}}"
    ),
    ("/v1/messages", "messages", "a message of 500,000 parts"): lambda: _user(
        _list(b'{"type":"text","text":"x"}', most=500_000)
    ),
    ("/v1/messages", "messages", "4,000 messages of 170 parts"): lambda: _list(
        b'{"role":"user","content":' + _list(b'{"type":"text","text":"x"}', most=170) + b"}", most=4000
    ),
    ("/v1/messages", "system", "500,000 parts"): lambda: _list(b'{"type":"text","text":"x"}', most=500_000),
    ("/v1/messages", "system", "a wrong one of 30 MB"): lambda: b"[" + _list(b'"abcdefgh"', most=1_400_000) + b"]",
    ("/v1/messages", "tools", "a schema of 20 MB"): lambda: _tool(_schema(700_000), anthropic=True),
    ("/tokenize", "messages", "8 MB in one"): lambda: _user(_text(TEXT)),
}


# In the other fields of a route they differ only in what the record and the route then make of them.
_ELSEWHERE = (
    "30 MB of text", "8 MB of text", "1.4 million objects of one name", "1.4 million names", "lists in lists",
    "1,000,000 ids", "1,000 texts of 8,000",
)  # fmt: skip


def large_bodies(model: str) -> Iterator[Large]:
    """Every value in a field of every route, some in the other fields, and what only one route reads."""
    made = [
        ((target, field, name), _VALUES[name])
        for target, fields in _FIELDS.items()
        for field in fields
        for name in (_VALUES if field == fields[0] else _ELSEWHERE)
    ]
    bases = good(model)
    for (target, field, name), value in [*made, *_MADE.items()]:
        make = partial(_made, bases[target], field, value)
        yield Large(f"{target} {field}: {name}", target, make)


def _made(base: dict[str, Any], field: str, value: Callable[[], bytes]) -> bytes:
    return _with(base, field, value())
