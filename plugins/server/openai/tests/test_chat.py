"""Every field of /v1/chat/completions, once, with its effect shown."""

from __future__ import annotations

import json

import pytest

PATH = "/v1/chat/completions"
ASK = [{"role": "user", "content": "hi"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
OTHER = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
CALL = 'Well. <tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
SHORT = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}


def ask(server, **fields):
    answer = server.post(PATH, {"messages": ASK, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def text(server, **fields):
    return ask(server, **{**SHORT, **fields})["choices"][0]["message"]["content"]


def stream(server, **fields):
    """The chunks of a stream, which must end with [DONE]."""
    answer = server.post(PATH, {"messages": ASK, "stream": True, **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(event) for event in events]


def joined(chunks):
    """What the deltas of a stream add up to, by choice."""
    found: dict[int, dict] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            whole = found.setdefault(choice["index"], {"content": "", "reasoning": "", "calls": {}, "logprobs": []})
            delta = choice["delta"]
            whole["role"] = delta.get("role", whole.get("role"))
            whole["content"] += delta.get("content") or ""
            whole["reasoning"] += delta.get("reasoning") or ""
            for call in delta.get("tool_calls", ()):
                known = whole["calls"].setdefault(call["index"], {"name": "", "arguments": "", "id": ""})
                known["id"] += call.get("id", "")
                known["name"] += call["function"].get("name", "")
                known["arguments"] += call["function"]["arguments"]
            whole["logprobs"] += (choice["logprobs"] or {"content": []})["content"]
            whole["finish_reason"] = choice["finish_reason"] or whole.get("finish_reason")
    return found


def test_an_answer_has_all_that_clients_read(server):
    answer = ask(server, **SHORT)

    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "tiny"
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8


@pytest.mark.parametrize("fields", [{}, {"n": 3, "temperature": 1, "seed": 5}, {"logprobs": True, "top_logprobs": 2}])
def test_a_stream_adds_up_to_the_whole(server, fields):
    whole = ask(server, **{**SHORT, **fields})
    chunks = stream(server, **{**SHORT, **fields})

    found = joined(chunks)
    for choice in whole["choices"]:
        streamed = found[choice["index"]]
        assert streamed["content"] == choice["message"]["content"]
        assert streamed["role"] == "assistant"
        assert streamed["finish_reason"] == choice["finish_reason"]
        assert streamed["logprobs"] == (choice["logprobs"] or {"content": []})["content"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_the_stream_tells_usage_if_asked(server):
    whole = ask(server, **SHORT)["usage"]
    *chunks, last = stream(server, **SHORT, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == whole["total_tokens"]
    assert all(chunk["usage"] is None for chunk in chunks)

    chunks = stream(server, **SHORT, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks[:-1]][-1] == 8


def test_the_other_served_name_stands_in_its_answers(server):
    assert ask(server, **SHORT, model="other-name")["model"] == "other-name"


def test_roles_and_parts_reach_the_template(server):
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi\nthere"}]
    parts = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, "there"], "name": "ann"},
    ]
    assert text(server, messages=plain) == text(server, messages=parts) != text(server)
    developer = [{"role": "developer", "content": "Be brief."}, plain[1]]
    assert text(server, messages=developer) != text(server, messages=plain)


def test_calls_and_their_results_reach_the_template(server):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"},
    ]
    count = server.post("/tokenize", {"messages": messages}).json()["count"]
    assert count > server.post("/tokenize", {"messages": [*ASK, *messages[2:]]}).json()["count"] + 40
    assert text(server, messages=messages) != text(server)


def test_sampling_fields_choose_the_tokens(server):
    greedy = text(server)
    assert text(server, temperature=1, top_k=1) == greedy
    assert text(server, temperature=1, top_p=1e-6) == greedy
    assert text(server, temperature=1, min_p=1.0) == greedy
    assert text(server, temperature=1, seed=7) == text(server, temperature=1, seed=7) != greedy
    assert text(server, logit_bias={"10": 100}) == "+" * 8
    assert text(server, allowed_token_ids=[10]) == "+" * 8
    assert "+" not in text(server, logit_bias={"10": 100}, bad_words=["+"])
    assert len(set(text(server, allowed_token_ids=[10, 11], frequency_penalty=2.0))) == 2
    assert len(set(text(server, allowed_token_ids=[10, 11], presence_penalty=2.0))) == 2
    assert len(set(text(server, allowed_token_ids=[10, 11], repetition_penalty=100.0))) == 2


def test_stopping_fields_end_the_answer(server):
    plus = {"logit_bias": {"10": 100}, "temperature": 0, "max_tokens": 20}
    found = ask(server, **plus, stop="++")["choices"][0]
    assert (found["message"]["content"], found["finish_reason"], found["stop_reason"]) == ("", "stop", "++")
    assert ask(server, **plus, stop=["no", "+"])["choices"][0]["stop_reason"] == "+"
    assert text(server, **plus, stop="+", include_stop_str_in_output=True) == "+"
    assert ask(server, **plus, stop_token_ids=[10])["choices"][0]["stop_reason"] == 10
    assert len(text(server, **plus, stop="+", min_tokens=5)) >= 4
    assert text(server, **{**plus, "max_tokens": None}, max_completion_tokens=3) == "+++"
    # The end of a text is token 257: it ends the answer unless it is ignored.
    end = {"logit_bias": {"257": 100}, "temperature": 0, "max_tokens": 4}
    assert ask(server, **end)["choices"][0]["finish_reason"] == "stop"
    assert (
        ask(server, **end, ignore_eos=True, skip_special_tokens=False)["choices"][0]["message"]["content"].count(
            "<|im_end|>"
        )
        == 4
    )


def test_logprobs_have_the_likeliest_of_each_position(server):
    content = ask(server, **SHORT, logprobs=True, top_logprobs=3)["choices"][0]["logprobs"]["content"]
    assert len(content) == 8
    for position in content:
        assert len(position["top_logprobs"]) == 3
        assert position["logprob"] == position["top_logprobs"][0]["logprob"]  # greedy
    named = ask(server, **SHORT, logprobs=True, return_tokens_as_token_ids=True, return_token_ids=True)
    (choice,) = named["choices"]
    assert [p["token"] for p in choice["logprobs"]["content"]] == [f"token_id:{i}" for i in choice["token_ids"]]
    assert named["prompt_token_ids"] == server.post("/tokenize", {"messages": ASK}).json()["tokens"]
    prompt = ask(server, **SHORT, prompt_logprobs=1)["prompt_logprobs"]
    assert prompt[0] is None
    assert len(prompt) == named["usage"]["prompt_tokens"]


def test_the_template_gets_its_arguments_and_no_others(server):
    assert text(server, chat_template_kwargs={"loud": True}) != text(server)
    unread = server.post(PATH, {"messages": ASK, **SHORT, "chat_template_kwargs": {"enable_thinking": True}})
    assert unread.headers["x-vllm-core-ignored"] == "chat_template_kwargs.enable_thinking"
    for name in ("tokenize", "chat_template", "messages", "__class__", "add_generation_prompt"):
        answer = server.post(PATH, {"messages": ASK, "chat_template_kwargs": {name: True}})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "chat_template_kwargs"


def test_templates_of_requests_are_run_only_where_that_is_allowed(server, start):
    fields = {"messages": ASK, "chat_template": "{{ messages[0].content }}!", **SHORT}
    assert server.post(PATH, fields).status_code == 400

    trusting = start("--trust-request-chat-template", "--lenient-requests")
    assert trusting.post("/tokenize", {"messages": ASK, "chat_template": fields["chat_template"]}).json()["count"] == 3
    for evil in ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "{% for i in range(10**9) %}{% endfor %}", "{{"):
        answer = trusting.post(PATH, {**fields, "chat_template": evil})
        assert answer.status_code == 400, answer.text
    assert trusting.post(PATH, {**fields, "no_such_field": 1}).status_code == 200  # lenient


def test_a_template_that_never_ends_is_stopped(start):
    trusting = start("--trust-request-chat-template")
    loop = "{% for i in range(99999) %}"
    loop = loop * 3 + "{% endfor %}" * 3
    answer = trusting.post(PATH, {"messages": ASK, "chat_template": loop})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request_too_complex")
    assert trusting.post(PATH, {"messages": ASK, **SHORT}).status_code == 200


def test_the_last_message_can_be_continued_and_echoed(server):
    begun = [*ASK, {"role": "assistant", "content": "Sure: "}]
    fields = {**SHORT, "messages": begun, "continue_final_message": True, "add_generation_prompt": False}
    answer = ask(server, **fields)["choices"][0]["message"]["content"]
    assert ask(server, **fields, echo=True)["choices"][0]["message"]["content"] == "Sure: " + answer
    assert joined(stream(server, **fields, echo=True))[0]["content"] == "Sure: " + answer
    both = server.post(PATH, {**fields, "add_generation_prompt": True})
    assert both.status_code == 400


def test_calls_are_found_whole_and_in_streams(server):
    fields = {"tools": [TOOL], "structured_outputs": {"choice": [CALL]}, "temperature": 0}
    (choice,) = ask(server, **fields)["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"].strip() == "Well."
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", {"city": "Rome"})
    streamed = joined(stream(server, **fields))[0]
    assert streamed["content"].strip() == "Well."
    assert streamed["finish_reason"] == "tool_calls"
    assert streamed["calls"][0]["arguments"] == call["function"]["arguments"]
    assert streamed["calls"][0]["name"] == "weather"
    assert streamed["calls"][0]["id"].startswith("call_")


def test_without_a_choice_of_tools_a_call_is_text(server):
    fields = {"tools": [TOOL], "tool_choice": "none", "structured_outputs": {"choice": [CALL]}, "temperature": 0}
    (choice,) = ask(server, **fields)["choices"]
    assert choice["message"]["content"] == CALL
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=["any", "named"]
)
def test_a_call_can_be_forced(server, choice):
    spaces = server.post("/tokenize", {"prompt": " \t\n\r"}).json()["tokens"]  # which JSON may have for ever
    fields = {"tools": [TOOL], "tool_choice": choice, "max_tokens": 160, "temperature": 0}
    fields["logit_bias"] = {str(token): -100 for token in spaces}
    message = ask(server, **fields)["choices"][0]["message"]
    call = message["tool_calls"][0]["function"]
    assert call["name"] == "weather"
    assert json.loads(call["arguments"])["city"] in ("Rome", "Oslo")
    streamed = joined(stream(server, **fields))[0]["calls"][0]
    assert (streamed["name"], json.loads(streamed["arguments"])) == ("weather", json.loads(call["arguments"]))


def test_one_call_is_given_where_several_are_not_wanted(server):
    fields = {"tools": [TOOL], "structured_outputs": {"choice": [CALL + CALL]}, "temperature": 0}
    assert len(ask(server, **fields)["choices"][0]["message"]["tool_calls"]) == 2
    assert len(ask(server, **fields, parallel_tool_calls=False)["choices"][0]["message"]["tool_calls"]) == 1
    assert len(joined(stream(server, **fields, parallel_tool_calls=False))[0]["calls"]) == 1


SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}


def test_answers_conform_to_what_was_asked(server):
    fields = {"temperature": 0, "max_tokens": 200}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    assert json.loads(text(server, **fields, response_format=form))["a"] in (1, 2)
    assert text(server, **fields, structured_outputs={"choice": ["yes", "no"]}) in ("yes", "no")
    assert text(server, **fields, structured_outputs={"regex": "[ab]{3}"}).strip("ab") == ""
    assert json.loads(text(server, **fields, structured_outputs={"json": SCHEMA}))["a"] in (1, 2)
    assert text(server, **fields, structured_outputs={"grammar": 'root ::= "x" | "y"'}) in ("x", "y")
    assert text(server, **SHORT, response_format={"type": "text"}) == text(server)
    assert text(server, max_tokens=60, response_format={"type": "json_object"}).lstrip().startswith("{")


def test_how_outputs_are_held_to_json_can_be_said(server):
    loose = {"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3]}}, "required": ["a", "b"]}
    fields = {"temperature": 0, "max_tokens": 200}
    one_line = text(server, **fields, structured_outputs={"json": loose, "disable_any_whitespace": True})
    assert one_line in ('{"a": 1, "b": 3}', '{"a": 2, "b": 3}')
    tabs = {"json": loose, "whitespace_pattern": r"\t", "disable_fallback": True}
    assert text(server, **fields, structured_outputs=tabs).translate({ord("\t"): None}) in (
        '{"a":1,"b":3}',
        '{"a":2,"b":3}',
    )
    for field in ("disable_any_whitespace", "disable_fallback", "whitespace_pattern"):
        answer = server.post(PATH, {"messages": ASK, "structured_outputs": {"json": loose, field: 5}})
        assert answer.json()["error"]["param"] == f"structured_outputs.{field}"


def test_what_a_message_holds_and_no_template_reads_is_refused(server):
    call = {"name": "weather", "arguments": "{}"}
    for field, value in (("function_call", call), ("audio", {"id": "x"}), ("tools", [TOOL])):
        answer = server.post(PATH, {"messages": [*ASK, {"role": "assistant", "content": "b", field: value}, *ASK]})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == f"messages[1].{field}"
    ask(server, **SHORT, messages=[*ASK, {"role": "assistant", "content": "b", "function_call": None}, *ASK])


def test_fields_without_effect_are_named(server):
    fields = {
        "user": "ann", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "safety_identifier": "x",
        "prompt_cache_key": "x", "prediction": {"type": "content", "content": "x"}, "verbosity": "low",
        "length_penalty": 1.0, "request_id": "x", "web_search_options": {}, "modalities": ["text"],
        "reasoning_effort": "low", "kv_transfer_params": {}, "mm_processor_kwargs": {},
    }  # fmt: skip
    answer = server.post(PATH, {"messages": ASK, **SHORT, **fields})
    assert answer.status_code == 200
    assert set(answer.headers["x-vllm-core-ignored"].split(", ")) == set(fields) - {"modalities"}


def test_a_salt_keeps_cached_prefixes_apart(server):
    long = [{"role": "user", "content": "the same words again and again, " * 4}]
    cached = lambda salt: ask(server, **SHORT, messages=long, cache_salt=salt)["usage"]["prompt_tokens_details"]  # noqa: E731
    assert cached("one")["cached_tokens"] == 0
    assert cached("one")["cached_tokens"] > 0
    assert cached("two")["cached_tokens"] == 0


def test_prompts_are_cut_only_where_that_is_asked(server):
    long = [{"role": "user", "content": "x" * 2000}]
    assert server.post(PATH, {"messages": long}).json()["error"]["code"] == "context_length_exceeded"
    assert ask(server, **SHORT, messages=long, truncate_prompt_tokens=50)["usage"]["prompt_tokens"] == 50
