"""Chats whose answers have reasoning and calls: whole and streamed, as the openai client reads them."""

from __future__ import annotations

import json

import httpx
import pytest
from openai import OpenAI

from vllm_core.serving import EngineDeadError, RequestError

ASK = [{"role": "user", "content": "How warm is it in Rome?"}]
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("weather", "time")
]
SAYS = (
    "<think>I should look.</think>Let me see. "
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "n": [1, 2]}}\n</tool_call>'
    '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
)


@pytest.fixture
def client(live):
    return OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)


def whole(client, **fields):
    return client.chat.completions.create(model="scripted", messages=ASK, **fields).choices[0]


def streamed(client, **fields):
    """The message that a stream adds up to, and its reason."""
    found = {"reasoning": "", "content": "", "calls": {}, "finish_reason": None}
    for chunk in client.chat.completions.create(model="scripted", messages=ASK, stream=True, **fields):
        for choice in chunk.choices:
            found["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
            assert getattr(choice.delta, "reasoning", None) == getattr(choice.delta, "reasoning_content", None)
            found["content"] += choice.delta.content or ""
            found["finish_reason"] = choice.finish_reason or found["finish_reason"]
            for call in choice.delta.tool_calls or ():
                known = found["calls"].setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                known["id"] += call.id or ""
                known["name"] += call.function.name or ""
                known["arguments"] += call.function.arguments or ""
    return found


def test_reasoning_content_and_calls_are_told_apart(engine, client):
    engine.tell(SAYS)
    choice = whole(client, tools=TOOLS)
    message = choice.message
    assert message.reasoning == message.reasoning_content == "I should look."
    assert message.content.strip() == "Let me see."
    assert [call.function.name for call in message.tool_calls] == ["weather", "time"]
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Rome", "n": [1, 2]}
    assert choice.finish_reason == "tool_calls"

    found = streamed(client, tools=TOOLS)
    assert found["reasoning"] == message.reasoning
    assert found["content"].strip() == message.content.strip()
    assert found["finish_reason"] == "tool_calls"
    assert [call["name"] for call in found["calls"].values()] == ["weather", "time"]
    assert all(call["id"].startswith("call_") for call in found["calls"].values())
    assert [call["arguments"] for call in found["calls"].values()] == [
        call.function.arguments for call in message.tool_calls
    ]


def test_reasoning_can_be_left_out(engine, client):
    engine.tell(SAYS)
    fields = {"tools": TOOLS, "extra_body": {"include_reasoning": False}}
    assert not hasattr(whole(client, **fields).message, "reasoning_content")
    assert streamed(client, **fields)["reasoning"] == ""
    assert streamed(client, **fields)["content"].strip() == "Let me see."


def test_an_answer_that_is_all_reasoning_has_no_content(engine, client):
    """null, as vLLM says it: an empty text would be an answer."""
    engine.tell("<think>I was still thinking")
    message = whole(client).message
    assert (message.reasoning, message.content) == ("I was still thinking", None)


def test_one_call_at_a_time_if_that_is_asked(engine, client):
    engine.tell(SAYS)
    assert len(whole(client, tools=TOOLS, parallel_tool_calls=False).message.tool_calls) == 1
    assert len(streamed(client, tools=TOOLS, parallel_tool_calls=False)["calls"]) == 1


def test_without_tools_a_call_is_text(engine, client):
    engine.tell(SAYS)
    choice = whole(client)
    assert choice.message.tool_calls is None
    assert "<tool_call>" in choice.message.content
    assert choice.finish_reason == "stop"


def test_what_earlier_answers_reasoned_and_called_reaches_the_template(engine, client):
    engine.tell("Warm.")
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        *ASK,
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "21"}]},
    ]
    client.chat.completions.create(model="scripted", messages=messages, reasoning_effort="low")
    (prompt, _params) = engine.asked[0]
    assert "Hm." in prompt
    assert "'arguments': {'city': 'Rome'}" in prompt  # an object, as templates read it
    assert prompt.startswith("reasoning_effort=low")


def test_an_error_in_a_stream_is_its_last_event(engine, client, live):
    body = {"model": "scripted", "messages": ASK, "stream": True}
    for error, status, code in (
        (EngineDeadError("it was killed"), 503, "engine_dead"),
        (RequestError("that cannot be done"), 400, None),
        (KeyError("secret"), 500, "internal_error"),
    ):
        engine.tell("Hello there, you.", fails=error)
        text = httpx.post(f"{live.url}/v1/chat/completions", json=body).text
        *_, last, done = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert done == "[DONE]"
        assert json.loads(last)["error"]["code"] == code
        assert "secret" not in text
        answer = httpx.post(f"{live.url}/v1/chat/completions", json={**body, "stream": False})
        assert answer.status_code == status


def test_a_client_that_leaves_ends_its_work(engine, live, eventually):
    engine.tell("word " * 400, pause=0.02)
    body = {"model": "scripted", "messages": ASK, "stream": True}
    with httpx.stream("POST", f"{live.url}/v1/chat/completions", json=body) as stream:
        pieces = stream.iter_raw()  # closes the connection when it goes
        assert next(pieces)
        assert engine.running == 1
    assert eventually(lambda: engine.running == 0)
    assert live.context.admission.held == 0
