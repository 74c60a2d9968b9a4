"""Large bodies are read in a process of its own, as small ones are read here, and it can be ended."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import msgspec
import pytest
from vllm_plugin_server.body import read_tree
from vllm_plugin_server.chat.wire import ChatRequest
from vllm_plugin_server.completions.wire import CompletionRequest
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.reader import Reader
from vllm_plugin_server.testing.cases import all_cases
from vllm_plugin_server.testing.watch import family

GOOD = {
    "a text": {"prompt": "x" * 1000},
    "characters of all planes": {"prompt": 'é\u2028😀\x00"\\/\n' * 100},
    "ids": {"prompt": list(range(1000))},
    "lists of ids": {"prompt": [[1, 2], [3]]},
    "a whole number for a float": {"prompt": "x", "temperature": 1},
    "a large number": {"prompt": "x", "metadata": {"a": 10**30, "b": -(10**19), "c": 2**63, "d": 1e300}},
    "a table": {"prompt": "x", "logit_bias": {str(i): i / 7 for i in range(100)}},
    "null": {"prompt": "x", "stop": None},
}


def both(raw: bytes, kind: type, reader: Reader, lenient: bool = False):
    """What is found here, and there."""

    def here():
        return read_tree(raw, kind, lenient)[1:]

    async def there():
        return await reader.read(raw, kind, lenient)

    found = []
    for read in (here, lambda: asyncio.run(there())):
        try:
            record, names = read()
            found.append((msgspec.to_builtins(record), names))
        except ApiError as error:
            found.append((error.status, error.message, error.param, error.code))
    return found


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    asyncio.run(reader.close())


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_a_good_body_is_the_same_record_in_both_places(reader, body):
    here, there = both(json.dumps({"model": "m", **body}).encode(), CompletionRequest, reader)

    assert here == there
    assert here[0]["model"] == "m"
    assert set(here[1]) == {"model", *body}


def test_a_body_with_a_byte_order_mark_or_many_escapes_is_the_same(reader):
    for raw in (
        b'\xef\xbb\xbf{"prompt": "x"}',
        b'{"prompt": "' + b"\\u00e9\\ud83d\\ude00\\n" * 100_000 + b'", "metadata": {"a": 1' + b"0" * 50 + b"}}",
    ):
        here, there = both(raw, CompletionRequest, reader)
        assert here == there
        assert "prompt" in here[1]


def test_every_hostile_body_is_refused_or_read_as_it_is_here(reader):
    routes = {"/v1/completions": CompletionRequest, "/v1/chat/completions": ChatRequest}
    cases = [case for case in all_cases("m") if case.body is not None and case.target in routes]
    assert len(cases) > 300
    for case in cases:
        if len(case.body) < 3_000_000:
            here, there = both(case.body, routes[case.target], reader, lenient="unknown" in case.name)
            assert here == there, case.name


def test_a_body_that_takes_too_long_is_refused_and_the_next_one_is_read():
    nested = b'{"prompt": [' + (b"[" * 40 + b"]" * 40 + b",") * 200_000 + b"1]}"

    async def run():
        reader = Reader(seconds=0.1)
        try:
            with pytest.raises(ApiError) as caught:
                await reader.read(nested, CompletionRequest, False)
            return caught.value, await reader.read(b'{"prompt": "x"}', CompletionRequest, False)
        finally:
            await reader.close()

    error, (record, _) = asyncio.run(run())
    assert (error.status, error.code) == (400, "request_too_complex")
    assert record.prompt == "x"


def test_a_body_that_takes_too_much_memory_is_refused():
    many = b'{"prompt": [' + b'"abcdefgh",' * 1_000_000 + b"1]}"

    async def run():
        reader = Reader(seconds=20, memory=80 << 20)
        try:
            with pytest.raises(ApiError) as caught:
                await reader.read(many, CompletionRequest, False)
            return caught.value
        finally:
            await reader.close()

    error = asyncio.run(run())
    assert error.status == 413
    assert "memory" in error.message


def test_more_values_than_allowed_are_refused_in_both_places(reader):
    parts = ",".join('{"text":"x"}' for _ in range(1000))
    message = f'{{"role":"user","content":[{parts}]}}'
    here, there = both(f'{{"messages":[{",".join([message] * 40)}]}}'.encode(), ChatRequest, reader)

    assert here == there
    assert here[0] == 400
    assert "100,000 texts, names, lists and objects" in here[1]


def test_the_process_ends_with_its_reader():
    async def run():
        reader = Reader()
        before = set(family(os.getpid()))
        await reader.read(b'{"prompt": "x"}', CompletionRequest, False)
        (child,) = set(family(os.getpid())) - before
        await reader.close()
        return child

    child = asyncio.run(run())
    until = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{child}").exists()


def test_the_loop_goes_on_while_a_large_body_is_read():
    many = b'{"prompt": [' + b"[]," * 400_000 + b"1]}"

    async def run():
        reader = Reader(seconds=20)
        await reader.read(b'{"prompt": "x"}', CompletionRequest, False)
        reading = asyncio.ensure_future(reader.read(many, CompletionRequest, False))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0.001)
            turns += 1
        await reader.close()
        with pytest.raises(ApiError):
            await reading
        return turns

    assert asyncio.run(run()) > 20  # it takes some hundred milliseconds
