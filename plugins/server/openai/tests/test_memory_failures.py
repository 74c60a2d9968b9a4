"""Memory that cannot be had costs one request at most, and the command that measures this sees when it costs more."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from vllm_plugin_server.testing.memory_failures import Attack, memory_failures
from vllm_plugin_server.testing.shortages import PLACES, Shortage
from vllm_plugin_server.testing.wire import Reply

SOME = ("Roster.take", "Runner._forward", "render_chat", "OutputProcessor.take", "Grammars._compile")


def test_a_lack_of_memory_in_any_part_costs_one_request_at_most():
    places = [place for place in PLACES if place.name in SOME]
    report = asyncio.run(memory_failures(len(places), places=places))
    assert report.findings == []
    assert report.survived == report.points == len(places)
    assert set(report.parts) == {"scheduler", "worker", "tokenizer", "front", "grammar"}


def stream(text: str) -> Reply:
    events = [{"choices": [{"text": letter}]} for letter in text]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return Reply(200, {}, body.encode())


def error(**fields) -> Reply:
    fields = {"message": "m", "type": "server_error", "param": None, "code": "out_of_memory"} | fields
    return Reply(503, {}, json.dumps({"error": fields}).encode())


@pytest.mark.parametrize(
    ("replies", "wrong"),
    [
        ([stream("abc"), error(), error()], "2 requests failed"),
        ([stream("abX"), stream("def"), stream("g")], "instead of 'abc'"),
        ([stream("abc"), stream("def"), error(extra=1)], "another shape"),
        ([stream("abc"), stream("def"), Reply(500, {}, b"oops")], "another shape"),
        ([Reply(200, {}, stream("abc").body[:-14]), stream("def"), error()], "2 requests failed"),
    ],
)
def test_the_command_sees_what_a_lack_of_memory_must_not_do(replies, wrong):
    attack = Attack(None, None, random.Random(0), right=["abc", "def", ""])
    assert attack._judge([stream("abc"), stream("def"), error()]) == "503 out_of_memory"
    assert attack._judge([stream("abc"), error(), stream("g")]) == "503 out_of_memory"
    with pytest.raises(ValueError, match=wrong):
        attack._judge(replies)


def test_a_place_fails_once_at_the_call_that_was_said(tmp_path):
    shortage = Shortage(tmp_path / "file")
    seen = Shortage(tmp_path / "file")  # another process's
    shortage.set(2, 3)
    assert not any(seen.due(1) for _ in range(5))
    assert [seen.due(2) for _ in range(5)] == [False, False, True, False, False]
    assert shortage.happened
