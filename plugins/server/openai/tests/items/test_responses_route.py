"""/v1/responses under the ``openai`` client, over a live server."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.openapi import schema_of
from vllm_plugin_server.responses import desk as desk_module
from vllm_plugin_server.responses.desk import Desk, Live
from vllm_plugin_server.responses.run import Run

from vllm_core.serving import EngineDeadError

TOOL = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": False,
}
CALL = '<think>Let me add.</think>I will add.<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.fixture
def client(live):
    with OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def create(client):
    def create(input="Hi", **fields):
        return client.responses.create(model="scripted", input=input, **fields)

    return create


@pytest.fixture
def post(live):
    def post(path="/v1/responses", **body):
        return httpx.post(live.url + path, json={"model": "scripted", "input": "Hi", **body})

    return post


def refused(answer, param=None, status=400):
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param or error["param"]), error
    assert set(error) == {"message", "type", "param", "code"}
    return error


# ---- answers


def test_a_text_comes_back_as_a_message(engine, create):
    response = create(metadata={"a": "b"}, temperature=0.5)
    assert (response.status, response.output_text) == ("completed", "Hello there.")
    assert response.output[0].role == "assistant"
    assert (response.usage.output_tokens, response.usage.total_tokens) == (12, 12 + response.usage.input_tokens)
    assert (response.metadata, response.temperature, response.error) == ({"a": "b"}, 0.5, None)
    assert engine.asked[0][0] == "user: Hi\nassistant:"


def test_reasoning_and_calls_are_items_of_their_own(engine, create):
    engine.tell(CALL)
    response = create(tools=[TOOL])
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.output[0].content[0].text == "Let me add."
    assert response.output_text == "I will add."
    call = response.output[2]
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1})
    assert response.usage.output_tokens_details.reasoning_tokens == len("Let me add.")
    assert engine.asked[0][0].startswith("tools=['add']")


def test_a_call_its_result_and_its_reasoning_go_back_as_they_came(engine, create):
    engine.tell(CALL)
    first = create(tools=[TOOL])
    result = {"type": "function_call_output", "call_id": first.output[2].call_id, "output": "2"}
    history = [{"role": "user", "content": "1+1?"}, *[item.to_dict() for item in first.output], result]
    engine.tell("It is 2.")
    assert create(history, tools=[TOOL]).output_text == "It is 2."
    said = engine.asked[0][0]
    assert "I will add. | Let me add. | [{" in said
    assert "'arguments': {'a': 1}" in said
    assert "tool: 2" in said


def test_a_stream_says_what_the_whole_answer_says(engine, create, client):
    engine.tell(CALL)
    whole = create(tools=[TOOL])
    with client.responses.stream(model="scripted", input="Hi", tools=[TOOL]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"

    def told(response):
        fields = [item.to_dict() for item in response.output]
        return [{k: v for k, v in item.items() if k not in ("id", "call_id", "parsed_arguments")} for item in fields]

    assert [item["type"] for item in told(final)] == [item["type"] for item in told(whole)]
    assert final.output_text == whole.output_text
    assert final.usage == whole.usage
    assert final.output[2].arguments == whole.output[2].arguments


def test_the_raw_stream_is_named_events_and_nothing_else(engine, live):
    body = {"model": "scripted", "input": "Hi", "stream": True}
    text = httpx.post(f"{live.url}/v1/responses", json=body).text
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        assert name.removeprefix("event: ") == json.loads(data.removeprefix("data: "))["type"]


def test_an_answer_that_was_cut_is_incomplete(engine, create):
    engine.tell("Hello", reason="length")
    response = create(max_output_tokens=5)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.output[0].status == "incomplete"
    assert engine.asked[0][1].max_tokens == 5


def test_a_limit_beyond_the_context_is_the_context(engine, create):
    create(max_output_tokens=1_000_000)
    prompt, params = engine.asked[0]
    assert params.max_tokens == 4096 - len(prompt)


def test_instructions_are_for_one_response_only(engine, create):
    first = create(instructions="Be kind.")
    assert engine.asked[0][0].startswith("system: Be kind.")
    create("More", previous_response_id=first.id)
    assert engine.asked[1][0] == "user: Hi\nassistant: Hello there.\nuser: More\nassistant:"


def test_a_pydantic_class_is_what_the_answer_must_be(engine, client):
    class Sum(BaseModel):
        value: int

    engine.tell('{"value": 2}')
    response = client.responses.parse(model="scripted", input="1+1?", text_format=Sum)
    assert response.output_parsed == Sum(value=2)
    wanted = engine.asked[0][1].structured_outputs
    assert wanted.kind == "json_schema"
    assert json.loads(wanted.specification)["properties"]["value"]["type"] == "integer"


def test_log_probabilities_are_told_where_they_are_asked_for(engine, create):
    response = create(include=["message.output_text.logprobs"], top_logprobs=1)
    entries = response.output[0].content[0].logprobs
    assert "".join(entry.token for entry in entries) == "Hello there."
    assert entries[0].logprob == -0.5
    assert engine.asked[0][1].logprobs == 1


def test_effort_and_template_arguments_reach_the_template(engine, create):
    create(reasoning={"effort": "low"}, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert engine.asked[0][0].startswith("enable_thinking=False\nreasoning_effort=low\n")


def test_vllms_sampling_fields_are_taken(engine, create):
    create(extra_body={"top_k": 3, "seed": 7, "stop": ["x"], "repetition_penalty": 1.2, "ignore_eos": True})
    params = engine.asked[0][1]
    assert (params.top_k, params.seed, params.stop, params.ignore_eos) == (3, 7, ("x",), True)


def test_one_call_only_if_parallel_calls_are_off(engine, create):
    engine.tell(CALL.replace("I will add.", "") + CALL.partition("add.")[2].partition("add.")[2])
    assert len([i for i in create(tools=[TOOL]).output if i.type == "function_call"]) == 2
    found = create(tools=[TOOL], parallel_tool_calls=False).output
    assert len([i for i in found if i.type == "function_call"]) == 1


def test_allowed_tools_are_all_that_the_model_sees(engine, create):
    other = {**TOOL, "name": "other"}
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "other"}]}
    create(tools=[TOOL, other], tool_choice=choice)
    assert engine.asked[0][0].startswith("tools=['other']")


def test_fields_without_effect_are_named_in_a_header(post):
    answer = post(user="me", reasoning={"summary": "auto"}, include=["reasoning.encrypted_content"], store=True)
    assert answer.status_code == 200
    names = answer.headers["x-vllm-core-ignored"].split(", ")
    assert set(names) == {"user", "reasoning.summary", "include.reasoning.encrypted_content"}


# ---- kept responses


def test_a_response_is_retrieved_continued_listed_and_forgotten(engine, create, client):
    first = create()
    assert client.responses.retrieve(first.id).output_text == "Hello there."
    second = create("More", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    texts = [item.content[0].text for item in client.responses.input_items.list(second.id, order="asc")]
    assert texts == ["Hi", "Hello there.", "More"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        client.responses.retrieve(first.id)
    assert create("Still", previous_response_id=second.id).output_text == "Hello there."


def test_input_items_come_in_pages(engine, create, client):
    ids = create([{"role": "user", "content": str(i)} for i in range(5)]).id
    page = client.responses.input_items.list(ids, limit=2, order="asc")
    assert [item.content[0].text for item in page.data] == ["0", "1"]
    assert [item.content[0].text for item in page] == list("01234")


def test_a_response_that_is_not_stored_is_gone(engine, create, client):
    response = create(store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError) as found:
        create(previous_response_id=response.id)
    assert (found.value.param, found.value.code) == ("previous_response_id", "previous_response_not_found")


def test_a_streamed_response_can_be_gone_on_from_when_its_end_was_read(engine, create):
    *_, last = create(stream=True)
    create("More", previous_response_id=last.response.id)
    assert "assistant: Hello there.\nuser: More" in engine.asked[1][0]


def test_an_item_can_be_sent_by_its_id(engine, create):
    first = create()
    create([{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "More"}])
    assert engine.asked[1][0] == "assistant: Hello there.\nuser: More\nassistant:"


def test_keys_do_not_see_each_others_responses(engine, guarded):
    alice, bob = (OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) for key in ("alice-key", "bobs-key"))
    made = alice.responses.create(model="scripted", input="secret")
    item = {"type": "item_reference", "id": made.output[0].id}
    assert alice.responses.retrieve(made.id)
    for attempt in (
        lambda: bob.responses.retrieve(made.id),
        lambda: bob.responses.delete(made.id),
        lambda: bob.responses.cancel(made.id),
        lambda: bob.responses.input_items.list(made.id),
        lambda: bob.responses.create(model="scripted", input="x", previous_response_id=made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    with pytest.raises(openai.BadRequestError, match="not kept here"):
        bob.responses.create(model="scripted", input=[item])
    assert alice.responses.retrieve(made.id)


def test_the_store_keeps_no_more_than_it_may(engine, guarded):
    client = OpenAI(base_url=f"{guarded.url}/v1", api_key="alice-key", max_retries=0)
    made = [client.responses.create(model="scripted", input="x").id for _ in range(4)]
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made[0])
    assert client.responses.retrieve(made[3])


# ---- in the background


def test_a_response_in_the_background_is_polled(engine, create, client, eventually):
    engine.tell(pause=0.05)
    response = create(background=True)
    assert (response.status, response.output) == ("queued", [])
    assert eventually(lambda: client.responses.retrieve(response.id).status == "completed")
    assert client.responses.retrieve(response.id).output_text == "Hello there."


def test_cancelling_stops_the_work(engine, create, client, eventually):
    engine.tell("x" * 4000, pause=0.02)
    response = create(background=True)
    assert eventually(lambda: engine.running == 1)
    assert client.responses.cancel(response.id).status == "cancelled"
    assert engine.running == 0
    assert client.responses.retrieve(response.id).status == "cancelled"
    assert client.responses.cancel(response.id).status == "cancelled"


def test_deleting_stops_the_work_too(engine, create, client, eventually):
    engine.tell("x" * 4000, pause=0.02)
    response = create(background=True)
    assert eventually(lambda: engine.running == 1)
    client.responses.delete(response.id)
    assert engine.running == 0
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_only_the_background_can_be_cancelled(engine, create, client):
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(create().id)


def test_a_stream_in_the_background_goes_on_when_its_reader_leaves(engine, create, client, eventually):
    engine.tell("Hello there.", pause=0.05)
    with create(background=True, stream=True) as stream:
        first = [next(stream) for _ in range(3)]
    id = first[0].response.id
    assert [event.type for event in first][:2] == ["response.created", "response.queued"]
    rest = list(client.responses.retrieve(id, stream=True, starting_after=first[-1].sequence_number))
    assert [event.sequence_number for event in rest] == list(range(3, 3 + len(rest)))
    assert rest[-1].response.output_text == "Hello there."
    assert eventually(lambda: client.responses.retrieve(id).status == "completed")
    again = list(client.responses.retrieve(id, stream=True))
    assert [event.sequence_number for event in again] == list(range(3 + len(rest)))


def test_a_log_of_events_that_grows_too_large_is_given_up(monkeypatch):
    monkeypatch.setattr(desk_module, "most", lambda name: 1000)
    run = Run({"id": "resp_1", "status": "in_progress"})
    live = Live(owner="", run=run, given=[], before=None, streams=True, log=[])
    for _ in range(10):
        live.tell([{"type": "x", "delta": "y" * 200}])
    assert live.log is None

    async def follow():
        return [piece async for piece in live.follow()]

    with pytest.raises(ApiError, match="too many"):
        asyncio.run(follow())


def test_a_failure_in_the_background_is_told_by_the_response(engine, create, client, eventually):
    engine.tell("x" * 40, fails=EngineDeadError("it fell over"))
    id = create(background=True).id
    assert eventually(lambda: client.responses.retrieve(id).status == "failed")
    assert "it fell over" in client.responses.retrieve(id).error.message


def test_what_the_background_cannot_serve_is_refused_at_once(post):
    assert "store" in refused(post(background=True, store=False), "background")["message"]
    refused(post(background=True, input=[{"type": "web_search_call"}]), "input[0].type")


# ---- what goes wrong


def test_a_failing_engine_ends_the_stream_with_response_failed(engine, create):
    engine.tell("x" * 40, fails=EngineDeadError("it fell over"))
    events = list(create(stream=True))
    assert events[-1].type == "response.failed"
    assert "it fell over" in events[-1].response.error.message
    assert events[-1].response.output[0].status == "incomplete"
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_failing_engine_is_a_503_before_anything_was_said(engine, post):
    engine.tell("x" * 40, fails=EngineDeadError("it fell over"))
    refused(post(), status=503)


def test_a_client_that_leaves_ends_the_work(engine, live, eventually):
    engine.tell("x" * 4000, pause=0.02)
    body = {"model": "scripted", "input": "Hi", "stream": True}
    with httpx.stream("POST", f"{live.url}/v1/responses", json=body) as answer:
        lines = answer.iter_lines()  # held, as httpx closes the connection when it is dropped
        assert next(lines) == "event: response.created"
        assert engine.running == 1
    assert eventually(lambda: engine.running == 0)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": [None]}, "input[0]"),
        ({"input": {"role": "user"}}, "input"),
        ({"model": 3}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "5"}, "max_output_tokens"),
        ({"max_output_tokens": 10**30}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"include": ["everything"]}, "include[0]"),
        ({"include": "message.output_text.logprobs"}, "include"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"metadata": {str(i): "x" for i in range(100)}}, "metadata"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": "x"}}}, "text.format.schema"),
        ({"text": {"fromat": {}}}, "text.fromat"),
        ({"tools": [{"type": "web_search_preview"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search_2025_08_26"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "name": "x", "parameters": []}]}, "tools[0].parameters"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": ["add"]}, "tools[0]"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": 3}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice.tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"truncation": "some"}, "truncation"),
        ({"previous_response_id": {}}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"reasoning": {"efort": "low"}}, "reasoning.efort"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs"),  # CVE-2026-115918
        ({"enable_response_messages": True}, "enable_response_messages"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"text": {"format": {"type": "json_object"}}, "structured_outputs": {"regex": "a"}}, "text.format"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(engine, post, body, param):
    refused(post(**body), param)
    assert engine.asked == []


def test_an_unknown_model_is_a_404(post):
    assert refused(post(model="gpt"), "model", 404)["code"] == "model_not_found"


def test_a_conversation_beyond_the_context_is_a_400(engine, post):
    assert refused(post(input="x" * 5000))["code"] == "context_length_exceeded"


def test_truncation_auto_leaves_out_the_beginning(engine, post):
    assert post(input="x" * 5000, truncation="auto").status_code == 200
    assert engine.asked[0][1].truncate_prompt_tokens == -1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses/resp_x", 404),
        ("GET", "/v1/responses/resp_x?stream=true", 404),
        ("GET", "/v1/responses/resp_x/input_items", 404),
        ("POST", "/v1/responses/resp_x/cancel", 404),
        ("DELETE", "/v1/responses/resp_x", 404),
        ("PUT", "/v1/responses/resp_x", 405),
        ("GET", "/v1/responses", 405),
        ("GET", "/v1/responses/resp_x?steam=true", 400),
        ("GET", "/v1/responses/resp_x/input_items?limit=0", 400),
        ("GET", "/v1/responses/resp_x/input_items?limit=x", 400),
        ("GET", "/v1/responses/resp_x/input_items?order=up", 400),
        ("GET", "/v1/responses/%00", 404),
        ("GET", f"/v1/responses/{'x' * 3000}", 404),
    ],
)
def test_other_methods_and_ids_are_answered_with_care(live, method, path, status):
    refused(httpx.request(method, live.url + path), status=status)


def test_starting_after_is_a_number_of_a_stream(engine, create, live):
    id = create().id
    for query in ("starting_after=3", "stream=true", "stream=true&starting_after=x"):
        refused(httpx.get(f"{live.url}/v1/responses/{id}?{query}"))


def test_tokens_are_counted_without_the_engine(engine, client):
    counted = client.responses.input_tokens.count(model="scripted", input="Hi", instructions="Be kind.")
    assert counted.input_tokens == len("system: Be kind.\nuser: Hi\nassistant:")
    assert engine.asked == []


def test_a_large_conversation_does_not_hold_up_the_server(engine, live):
    parts = [{"type": "input_text", "text": "x"}] * 500
    body = {"model": "scripted", "input": [{"role": "user", "content": parts}] * 38, "truncation": "auto"}
    done = []
    thread = threading.Thread(target=lambda: done.append(httpx.post(f"{live.url}/v1/responses", json=body, timeout=60)))
    thread.start()
    answered = 0
    while thread.is_alive():
        assert httpx.get(f"{live.url}/v1/responses/resp_x").status_code == 404
        answered += 1
    assert done[0].status_code == 200
    assert answered > 5


def test_the_document_names_every_field_and_both_shapes_of_errors(live):
    document = schema_of(live.context)
    bodies = document["components"]["schemas"]
    assert {"previous_response_id", "background", "store"} <= set(bodies["ResponsesRequest"]["properties"])
    assert {"messages", "max_tokens", "thinking"} <= set(bodies["MessagesRequest"]["properties"])
    assert not [name for name in bodies if "." in name]  # two types of one name
    ours, theirs = (
        document["paths"][path]["post"]["responses"]["4XX"]["content"]["application/json"]["schema"]
        for path in ("/v1/responses", "/v1/messages")
    )
    assert ours == {"$ref": "#/components/schemas/Error"}
    assert set(theirs["properties"]) == {"type", "error"}


def test_a_server_that_keeps_nothing_says_so(another):
    url = f"{another(response_store=0).url}/v1/responses"
    answer = httpx.post(url, json={"model": "scripted", "input": "Hi"}).json()
    assert (answer["status"], answer["store"]) == ("completed", False)
    for field in ({"background": True}, {"previous_response_id": answer["id"]}):
        refusal = httpx.post(url, json={"model": "scripted", "input": "Hi", **field})
        assert "--response-store 0" in refused(refusal, next(iter(field)))["message"]
    refused(httpx.get(f"{url}/{answer['id']}"), status=404)


def test_a_lenient_server_grants_names_that_nobody_knows(another):
    body = {"model": "scripted", "input": [{"role": "user", "content": "Hi", "mood": "good"}], "colour": "red"}
    assert httpx.post(f"{another(lenient_requests=True).url}/v1/responses", json=body).status_code == 200


def test_the_background_ends_with_the_server(engine, live, create, client, eventually):
    engine.tell("x" * 4000, pause=0.02)
    id = create(background=True).id
    assert eventually(lambda: engine.running == 1)
    desk = Desk.of(live.context)
    asyncio.run_coroutine_threadsafe(desk.close(), desk.live["", id].task.get_loop()).result(5)
    assert engine.running == 0
    assert client.responses.retrieve(id).status == "cancelled"


def test_the_background_keeps_to_the_time_limit(engine, another, eventually):
    engine.tell(pause=30)
    url = f"{another(request_timeout=0.5).url}/v1/responses"
    id = httpx.post(url, json={"model": "scripted", "input": "Hi", "background": True}).json()["id"]
    assert eventually(lambda: httpx.get(f"{url}/{id}").json()["status"] == "failed")
    assert engine.running == 0
