"""Requests that nobody has thought of: good ones with fields and bytes changed by chance, alike for the same seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

import attrs

from vllm_plugin_server.testing.cases.good import good
from vllm_plugin_server.testing.wire import Address, request_bytes

__all__ = ["FIELDS", "Mutant", "mutant"]

# What /openapi.json says of a server's fields is added to these.
FIELDS = (
    "model", "prompt", "messages", "input", "tokens", "max_tokens", "max_completion_tokens", "max_output_tokens",
    "temperature", "top_p", "top_k", "min_p", "n", "best_of", "stop", "stop_token_ids", "seed", "logprobs",
    "top_logprobs", "prompt_logprobs", "echo", "suffix", "stream", "stream_options", "logit_bias", "user", "tools",
    "tool_choice", "response_format", "structured_outputs", "chat_template", "chat_template_kwargs",
    "add_generation_prompt", "continue_final_message", "include_reasoning", "reasoning", "text", "instructions",
    "previous_response_id", "store", "system", "thinking", "stop_sequences", "priority", "cache_salt", "request_id",
    "bad_words", "allowed_token_ids", "min_tokens", "ignore_eos", "truncate_prompt_tokens", "add_special_tokens",
    "return_token_ids", "documents", "metadata", "kv_transfer_params", "vllm_xargs", "content", "role", "type",
)  # fmt: skip

RAW = "@raw:"  # a string that begins so is written without quotes


def _deep(levels: int, opening: str, closing: str) -> str:
    return f"{RAW}{opening * levels}1{closing * levels}"


VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 100, 1.5, -0.0, 1e-300, 1e308, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**30,
    "", " ", "x", "0", "null", "\x00", "\ud800", "\udfff", "\ufeff", "\u202e", "a" * 5000, "\U0001f600" * 50, "../..",
    "{{7*7}}", "{% for i in range(10**9) %}{% endfor %}", "(a+)+b", "http://127.0.0.1:9/", "<|im_start|>", "%s%n", "'",
    [], [None], [[]], [0], [-1], [2**40], ["x"], [1, "x"], [1.5], [{}], ["x"] * 300, list(range(2000)),
    {}, {"a": 1}, {"": ""}, {"type": "x"}, {"type": "object"}, {"type": "function", "function": {"name": "f"}},
    {"role": "user", "content": "x"}, {"regex": "("}, {"$ref": "#"}, {"1": 1}, {"-1": "x"},
    _deep(40, "[", "]"), _deep(70, "[", "]"), _deep(500, "[", "]"),
    f"{RAW}NaN", f"{RAW}Infinity", f"{RAW}-Infinity", f"{RAW}1e999", f"{RAW}{'9' * 5000}", f"{RAW}01", f"{RAW}x",
)  # fmt: skip


@attrs.frozen
class Mutant:
    request: bytes
    must_answer: bool  # False: HTTP itself may be broken, and closing the connection is an answer, too
    about: str


def mutant(address: Address, model: str, seed: int, index: int, fields: Sequence[str] = FIELDS) -> Mutant:
    """Request ``index`` of a run with this seed, the same whenever and wherever it is made."""
    chance = random.Random(f"{seed}/{index}")
    bodies = good(model)
    route = chance.choice(list(bodies))
    body = copy.deepcopy(bodies[route])
    steps = [_change(body, chance, fields) for _ in range(chance.choice((1, 1, 1, 2, 3, 6)))]
    written = _written(body)
    if chance.random() < 0.3:
        written = _damage(written, chance)
        steps.append("bytes of the body")
    about = f"{route}: {', '.join(steps)}"
    method = "POST" if chance.random() < 0.97 else chance.choice(("GET", "PUT", "DELETE", "HEAD", "OPTIONS"))
    request = request_bytes(address, method, route, written)
    if chance.random() < 0.08:
        return Mutant(_damage(request, chance), False, f"{about}, bytes of the request")
    return Mutant(request, True, about)


def _written(body: Any) -> bytes:
    text = json.dumps(body)
    while (at := text.find(f'"{RAW}')) >= 0:
        end = text.index('"', at + 1)
        text = text[:at] + text[at + 1 + len(RAW) : end] + text[end + 1 :]
    return text.encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in it."""
    found: list[tuple[Any, Any]] = []
    for key, inner in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


def _change(body: dict[str, Any], chance: random.Random, fields: Sequence[str]) -> str:
    places = [place for place in _places(body) if len(place[0]) < 100]
    what = chance.choice(("value", "value", "add", "add", "drop", "wrap", "key")) if places else "add"
    if what == "add":
        name = chance.choice(fields)
        body[name] = copy.deepcopy(chance.choice(VALUES))
        return f"{name}={body[name]!r:.40}"
    container, key = chance.choice(places)
    if what == "value":
        container[key] = copy.deepcopy(chance.choice(VALUES))
    elif what == "drop":
        del container[key]
    elif what == "wrap":
        container[key] = chance.choice(
            ([container[key]], {"a": container[key]}, {"type": "text", "text": container[key]})
        )
    elif isinstance(container, dict):
        container[chance.choice(("", "\x00", "modle", "__proto__", f"{key} ", str(key).upper()))] = container.pop(key)
    return f"{what} {key!r:.30}"


def _damage(data: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, put in, taken out, doubled or cut off."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(found) + 1)
        kind = chance.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[at:at] = bytes(chance.choices(range(256), k=chance.choice((1, 2, 16))))
        elif kind == 2:
            del found[at : at + chance.choice((1, 4, 32))]
        elif kind == 3:
            found[at:at] = found[at : at + chance.choice((1, 8, 64))]
        elif kind == 4:
            del found[at:]
        else:
            found[at:at] = chance.choice((b"\r\n", b"\x00", b'"', b"{", b"[" * 100, b"\xff", b"\\u", b"\r\n\r\n"))
    return bytes(found)
