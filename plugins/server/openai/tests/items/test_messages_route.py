"""/v1/messages under the ``anthropic`` client, over a live server."""

from __future__ import annotations

import json

import anthropic
import httpx
import pytest
from anthropic import Anthropic
from pydantic import BaseModel

from vllm_core.serving import EngineDeadError

TOOL = {"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {"a": {}}}}
CALL = '<think>Let me add.</think>I will add.<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def client(live):
    with Anthropic(base_url=live.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def create(client):
    def create(messages=HI, max_tokens=100, **fields):
        return client.messages.create(model="scripted", max_tokens=max_tokens, messages=messages, **fields)

    return create


@pytest.fixture
def post(live):
    def post(path="/v1/messages", headers=None, **body):
        given = {"model": "scripted", "max_tokens": 100, "messages": HI, **body}
        return httpx.post(live.url + path, json=given, headers=headers)

    return post


def refused(answer, kind="invalid_request_error", status=400):
    error = answer.json()
    assert (answer.status_code, error["error"]["type"]) == (status, kind), error
    assert (set(error), error["type"], set(error["error"])) == ({"type", "error"}, "error", {"type", "message"})
    return error["error"]["message"]


def test_a_text_comes_back_as_a_block(engine, create):
    engine.tell(cached=3)
    message = create(system="Be kind.", extra_body={"temperature": 0.5, "top_k": 3})
    assert (message.content[0].text, message.stop_reason, message.role) == ("Hello there.", "end_turn", "assistant")
    prompt, params = engine.asked[0]
    assert prompt == "system: Be kind.\nuser: Hi\nassistant:"
    assert (params.temperature, params.top_k, params.max_tokens) == (0.5, 3, 100)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (len(prompt) - 3, 3)
    assert message.usage.output_tokens == 12


def test_thinking_and_uses_of_tools_are_blocks(engine, create):
    engine.tell(CALL)
    message = create(tools=[TOOL])
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[0].thinking == "Let me add."
    assert message.content[1].text == "I will add."
    assert (message.content[2].name, message.content[2].input) == ("add", {"a": 1})
    assert message.stop_reason == "tool_use"


def test_an_answer_goes_back_with_the_results_of_its_tools(engine, create):
    engine.tell(CALL)
    first = create(tools=[TOOL])
    result = {"type": "tool_result", "tool_use_id": first.content[2].id, "content": "2"}
    engine.tell("It is 2.")
    create([*HI, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}], tools=[TOOL])
    said = engine.asked[0][0]
    assert "assistant: I will add. | Let me add. | [{" in said
    assert "'arguments': {'a': 1}" in said
    assert said.endswith("tool: 2\nassistant:")


def test_a_stream_says_what_the_whole_answer_says(engine, create, client):
    engine.tell(CALL)
    whole = create(tools=[TOOL])
    with client.messages.stream(model="scripted", max_tokens=100, messages=HI, tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()

    def told(message):
        return [{k: v for k, v in b.to_dict().items() if k not in ("id", "parsed_output")} for b in message.content]

    assert told(final) == told(whole)
    assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


def test_the_raw_stream_has_anthropics_events_in_their_order(engine, live):
    engine.tell("Hi there")
    body = {"model": "scripted", "max_tokens": 9, "messages": HI, "stream": True}
    text = httpx.post(f"{live.url}/v1/messages", json=body).text
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    assert [block[0].removeprefix("event: ") for block in blocks] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    events = [json.loads(block[1].removeprefix("data: ")) for block in blocks]
    assert events[0]["message"]["content"] == []
    assert events[0]["message"]["stop_reason"] is None
    assert events[0]["message"]["usage"]["input_tokens"] == len("user: Hi\nassistant:")
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_a_stop_sequence_is_the_reason_and_named(engine, create):
    engine.tell("Hello", stop="END")
    message = create(stop_sequences=["END"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    assert engine.asked[0][1].stop == ("END",)


@pytest.mark.parametrize(("limit", "reason"), [(5, "max_tokens"), (1_000_000, "model_context_window_exceeded")])
def test_a_cut_answer_says_what_cut_it(engine, create, limit, reason):
    engine.tell("Hello", reason="length")
    assert create(max_tokens=limit, timeout=60).stop_reason == reason
    prompt, params = engine.asked[0]
    assert params.max_tokens == min(limit, 4096 - len(prompt))


def test_an_assistants_message_at_the_end_is_gone_on_with(engine, create):
    create([*HI, {"role": "assistant", "content": "Well,"}])
    assert engine.asked[0][0] == "user: Hi\nassistant: Well,"


@pytest.mark.parametrize(("kind", "said"), [("enabled", "True"), ("disabled", "False")])
def test_thinking_is_turned_on_and_off_by_the_template(engine, create, kind, said):
    extra = {"budget_tokens": 1024} if kind == "enabled" else {}
    create(thinking={"type": kind, **extra}, max_tokens=2000)
    assert engine.asked[0][0].startswith(f"enable_thinking={said}\n")


def test_thinking_can_be_kept_back(engine, create):
    engine.tell(CALL)
    message = create(thinking={"type": "adaptive", "display": "omitted"})
    assert message.content[0].type == "thinking"
    assert message.content[0].thinking == ""


def test_effort_and_format_are_put_to_the_model(engine, create):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    create(output_config={"effort": "low", "format": {"type": "json_schema", "schema": schema}})
    prompt, params = engine.asked[0]
    assert prompt.startswith("reasoning_effort=low\n")
    assert json.loads(params.structured_outputs.specification) == schema


def test_a_pydantic_class_is_what_the_answer_must_be(engine, client):
    class Sum(BaseModel):
        value: int

    engine.tell('{"value": 2}')
    message = client.messages.parse(model="scripted", max_tokens=100, messages=HI, output_format=Sum)
    assert message.parsed_output == Sum(value=2)
    assert json.loads(engine.asked[0][1].structured_outputs.specification)["properties"]["value"]["type"] == "integer"


@pytest.mark.parametrize(("choice", "kind"), [({"type": "any"}, "array"), ({"type": "tool", "name": "add"}, "object")])
def test_a_tool_that_must_be_used_binds_the_answer(engine, create, choice, kind):
    engine.tell('[{"name": "add", "parameters": {"a": 1}}]' if kind == "array" else '{"a": 1}')
    message = create(tools=[TOOL], tool_choice=choice)
    assert (message.content[0].name, message.content[0].input) == ("add", {"a": 1})
    assert message.stop_reason == "tool_use"
    assert json.loads(engine.asked[0][1].structured_outputs.specification)["type"] == kind


def test_tools_that_are_off_are_not_looked_for(engine, create):
    engine.tell(CALL)
    message = create(tools=[TOOL], tool_choice={"type": "none"})
    assert [block.type for block in message.content] == ["thinking", "text"]


def test_tokens_are_counted_without_the_engine(engine, client):
    counted = client.messages.count_tokens(model="scripted", messages=HI, system="Be kind.", tools=[TOOL])
    assert counted.input_tokens == len("tools=['add']\nsystem: Be kind.\nuser: Hi\nassistant:")
    assert engine.asked == []


def test_fields_without_effect_are_named_in_a_header(post):
    system = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    answer = post(metadata={"user_id": "u"}, system=system, thinking={"type": "enabled", "budget_tokens": 1024})
    assert answer.status_code == 200
    found = set(answer.headers["x-vllm-core-ignored"].split(", "))
    assert found == {"metadata", "cache_control", "thinking.budget_tokens"}


def test_the_clients_own_header_opens_the_door(engine, guarded):
    message = Anthropic(base_url=guarded.url, api_key="alice-key").messages.create(
        model="scripted", max_tokens=9, messages=HI
    )
    assert message.content[0].text == "Hello there."
    with pytest.raises(anthropic.AuthenticationError) as found:
        Anthropic(base_url=guarded.url, api_key="eve", max_retries=0).messages.create(
            model="scripted", max_tokens=9, messages=HI
        )
    assert found.value.body["error"]["type"] == "authentication_error"


def test_a_failing_engine_ends_the_stream_with_an_error_event(engine, client):
    engine.tell("x" * 40, fails=EngineDeadError("it fell over"))
    with (
        pytest.raises(anthropic.APIStatusError, match="it fell over"),
        client.messages.stream(model="scripted", max_tokens=100, messages=HI) as stream,
    ):
        list(stream)


def test_a_client_that_leaves_ends_the_work(engine, live, eventually):
    engine.tell("x" * 4000, pause=0.02)
    body = {"model": "scripted", "max_tokens": 4000, "messages": HI, "stream": True}
    with httpx.stream("POST", f"{live.url}/v1/messages", json=body) as answer:
        lines = answer.iter_lines()  # held, as httpx closes the connection when it is dropped
        assert next(lines) == "event: message_start"
        assert engine.running == 1
    assert eventually(lambda: engine.running == 0)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"model": None}, "model"),
        ({"system": 3}, "system"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_k": "x"}, "top_k"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"tools": [{"name": "x"}]}, "input_schema is missing"),
        ({"tools": [{**TOOL, "input_shema": {}}]}, "did you mean 'input_schema'?"),
        ({"tools": [TOOL, TOOL]}, "twice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "sub"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"thinking": {"type": "on"}}, "thinking.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"mcp_servers": [{"url": "https://example.org"}]}, "mcp_servers"),
        ({"container": "c_1"}, "container"),
        ({"max_token": 3}, "did you mean 'max_tokens'?"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(engine, post, body, word):
    assert word in refused(post(**body))
    assert engine.asked == []


def test_errors_have_anthropics_shape_wherever_they_come_from(live, guarded, post):
    url = f"{live.url}/v1/messages"
    refused(post(model="gpt"), "not_found_error", 404)
    refused(post(messages=[{"role": "user", "content": "x" * 5000}]))
    refused(httpx.post(url, content=b"{", headers={"content-type": "application/json"}))
    refused(httpx.post(url, content=b"{}", headers={"content-type": "text/plain"}), status=415)
    refused(httpx.get(url), "invalid_request_error", 405)
    refused(httpx.post(f"{guarded.url}/v1/messages", json={}), "authentication_error", 401)
    refused(httpx.post(f"{guarded.url}/v1/messages/count_tokens", json={}), "authentication_error", 401)
    refused(httpx.post(f"{live.url}/v1/messages/count_tokens", json={"model": "scripted"}))


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_server_says_when_to_come_back(engine, live, post, stream):
    with live.context.admission.hold(8):
        answer = post(stream=stream)
    refused(answer, "rate_limit_error", 429)
    assert int(answer.headers["retry-after"]) > 0


def test_a_dead_engine_is_overloaded_before_anything_was_said(engine, post):
    engine.tell("x" * 40, fails=EngineDeadError("it fell over"))
    assert "it fell over" in refused(post(), "overloaded_error", 503)
