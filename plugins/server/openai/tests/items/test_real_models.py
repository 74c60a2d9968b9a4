"""SmolLM2, and a tiny model under a grammar, through the clients of both APIs. Tokens are the engine's own."""

from __future__ import annotations

import json

import pytest
from anthropic import Anthropic
from pydantic import BaseModel

MODEL = "SmolLM2-135M-Instruct"
QUESTION = "What is the capital of France?"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.slow
def test_smollm2_answers_and_remembers_through_responses(smol):
    with smol.openai() as client:
        fields = {"model": MODEL, "temperature": 0, "max_output_tokens": 24}
        first = client.responses.create(input=QUESTION, **fields)
        assert first.status == "completed"
        assert "Paris" in first.output_text
        second = client.responses.create(input="And of Germany?", previous_response_id=first.id, **fields)
        assert "Berlin" in second.output_text
        with client.responses.stream(input=QUESTION, **fields) as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()
        assert "".join(deltas) == final.output_text == first.output_text
        assert final.usage.output_tokens == first.usage.output_tokens


@pytest.mark.slow
def test_smollm2_answers_through_messages(smol):
    messages = [{"role": "user", "content": QUESTION}]
    with Anthropic(base_url=smol.url, api_key="none", max_retries=0) as client:
        fields = {"model": MODEL, "max_tokens": 24, "messages": messages, "extra_body": {"temperature": 0}}
        whole = client.messages.create(**fields)
        assert "Paris" in whole.content[0].text
        assert whole.stop_reason == "end_turn"
        with client.messages.stream(**fields) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert text == final.content[0].text == whole.content[0].text
        counted = client.messages.count_tokens(model=MODEL, messages=messages).input_tokens
        usage = final.usage
        assert counted == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.slow
def test_a_tiny_model_writes_what_a_schema_wants(server):
    class Sum(BaseModel):
        a: int

    with server.openai() as client:
        response = client.responses.parse(model="tiny", input="x", text_format=Sum, max_output_tokens=60, temperature=0)
    if response.status == "completed":
        assert isinstance(response.output_parsed, Sum)
    assert response.output_text.lstrip().startswith("{")


@pytest.mark.slow
@pytest.mark.parametrize("choice", [{"type": "tool", "name": "add"}, {"type": "any"}])
def test_smollm2_uses_the_tool_that_it_must(smol, choice):
    tools = [{"name": "add", "input_schema": SCHEMA}]
    with (
        Anthropic(base_url=smol.url, api_key="none", max_retries=0) as client,
        client.messages.stream(
            model=MODEL,
            max_tokens=120,
            messages=[{"role": "user", "content": "Add 1."}],
            tools=tools,
            tool_choice=choice,
            extra_body={"temperature": 0},
        ) as stream,
    ):
        parts = [e.partial_json for e in stream if e.type == "input_json"]
        message = stream.get_final_message()
    use = message.content[0]
    assert (use.type, use.name) == ("tool_use", "add")
    if message.stop_reason == "tool_use":
        assert json.loads("".join(parts)) == use.input
        assert set(use.input) == {"a"}
