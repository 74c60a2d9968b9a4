"""The openai package as people use it, against SmolLM2 and against the tiny model."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest

ASK = [{"role": "user", "content": "What is the capital of France?"}]
SMOL = "SmolLM2-135M-Instruct"


def test_smollm2_answers_chats_whole_and_streamed(smol):
    client = smol.openai()
    answer = client.chat.completions.create(model=SMOL, messages=ASK, temperature=0, max_tokens=30)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"

    stream = client.chat.completions.create(
        model=SMOL, messages=ASK, temperature=0, max_tokens=30, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens


def test_smollm2_continues_texts(smol):
    client = smol.openai()
    fields = {"model": SMOL, "prompt": "Water boils at 100", "temperature": 0, "max_tokens": 8}
    answer = client.completions.create(**fields, logprobs=2, echo=True)
    assert answer.choices[0].text.startswith("Water boils at 100°C")
    assert len(answer.choices[0].logprobs.token_logprobs) == answer.usage.total_tokens
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**fields, stream=True))
    assert "Water boils at 100" + streamed == answer.choices[0].text


def test_smollm2_keeps_to_a_schema(smol):
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "population": {"type": "integer", "maximum": 9999999, "minimum": 0},
        },
        "required": ["city", "population"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    answer = smol.openai().chat.completions.create(
        model=SMOL, messages=ASK, temperature=0, max_tokens=200, response_format=form
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"city", "population"}


def test_smollm2_calls_the_tool_that_it_must_call(smol):
    parameters = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    parameters["additionalProperties"] = False
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    answer = smol.openai().chat.completions.create(
        model=SMOL, messages=ASK, temperature=0, max_tokens=100, tools=tools, tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert "city" in json.loads(call.function.arguments)


def test_models_are_listed(smol):
    (model,) = smol.openai().models.list().data
    assert model.id == SMOL
    assert smol.openai().models.retrieve(SMOL).id == SMOL


def test_errors_are_the_clients_own_classes(server):
    client = server.openai()
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=ASK)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=ASK, extra_body={"top_kk": 1})
    assert caught.value.param == "top_kk"
    assert caught.value.request_id
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=ASK, max_tokens=10**6)
    assert caught.value.code == "context_length_exceeded"


def test_vllms_fields_come_through_extra_body(server):
    answer = server.openai().chat.completions.create(
        model="tiny", messages=ASK, max_tokens=5, extra_body={"top_k": 1, "min_tokens": 5, "ignore_eos": True}
    )
    assert answer.usage.completion_tokens == 5


def test_the_parsed_answers_of_the_client_work(server):
    from pydantic import BaseModel

    class Answer(BaseModel):
        right: bool

    found = server.openai().chat.completions.parse(
        model="tiny", messages=ASK, temperature=0, max_tokens=100, response_format=Answer
    )
    assert isinstance(found.choices[0].message.parsed, Answer)


def test_the_streaming_helper_of_the_client_works(server):
    call = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    with server.openai().chat.completions.stream(
        model="tiny",
        messages=ASK,
        temperature=0,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        extra_body={"structured_outputs": {"choice": [call]}},
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    assert final.choices[0].message.tool_calls[0].function.name == "f"


def test_clients_that_leave_free_what_they_held(server):
    """Streams that are left after their first chunk, and whole answers that nobody waits for any more."""
    fields = {"messages": ASK, "max_tokens": 400, "ignore_eos": True}

    async def leave():
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:

            async def stream():
                async with client.stream("POST", "/v1/chat/completions", json={**fields, "stream": True}) as answer:
                    await anext(answer.aiter_raw())

            async def whole():
                with pytest.raises(httpx.ReadTimeout):
                    await client.post("/v1/chat/completions", json=fields, timeout=0.1)

            await asyncio.gather(*(stream() for _ in range(20)), *(whole() for _ in range(20)))

    asyncio.run(leave())
    assert server.is_idle()


def test_many_at_once_get_what_each_gets_alone(server):
    async def ask(client, i):
        body = {"prompt": f"request {i}", "max_tokens": 20, "temperature": 0, "ignore_eos": True, "stream": bool(i % 2)}
        answer = await client.post("/v1/completions", json=body)
        if not body["stream"]:
            return answer.json()["choices"][0]["text"]
        events = [line.removeprefix("data: ") for line in answer.text.split("\n\n")[:-2]]
        return "".join(json.loads(event)["choices"][0]["text"] for event in events)

    async def run(together):
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            if together:
                return await asyncio.gather(*(ask(client, i) for i in range(40)))
            return [await ask(client, i) for i in range(40)]

    assert asyncio.run(run(True)) == asyncio.run(run(False))
