"""Bad requests: what each is answered with, on every route that takes a body."""

from __future__ import annotations

import json

import httpx
import pytest

CHAT, TEXTS, COUNT, BACK = "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"
GOOD = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    TEXTS: {"prompt": "hi", "max_tokens": 1},
    COUNT: {"prompt": "hi"},
    BACK: {"tokens": [1]},
}
BODIES = {
    "no body": b"",
    "half an object": b"{",
    "a list": b"[]",
    "a key twice": b'{"model": "tiny", "model": "tiny"}',
    "NaN": b'{"model": NaN}',
    "half a surrogate pair": b'{"model": "\\ud800"}',
    "invalid UTF-8": b'{"model": "\xff"}',
    "too deep": b'{"model": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "an infinite number": b'{"model": 1e999}',
}


def check(answer: httpx.Response, status: int = 400) -> dict:
    """The error, whose shape is always the same."""
    assert answer.status_code == status, answer.text[:500]
    assert len(answer.content) <= 8 * 1024
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert answer.headers["x-request-id"]
    return error


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_is_no_json_object_is_refused_on_every_route(server, path, body):
    answer = httpx.post(server.url + path, content=body, headers={"content-type": "application/json"}, timeout=30)
    assert check(answer)["code"] == "invalid_json"


@pytest.mark.parametrize("path", GOOD)
def test_good_bodies_are_answered(server, path):
    assert server.post(path, GOOD[path]).status_code == 200


@pytest.mark.parametrize("path", GOOD)
def test_an_unknown_field_names_the_nearest_on_every_route(server, path):
    error = check(server.post(path, {**GOOD[path], "modell": "x"}))
    assert (error["param"], error["code"]) == ("modell", "unknown_field")
    assert "did you mean 'model'" in error["message"]


def test_fields_that_vllm_had_once_name_what_took_their_place(server):
    answer = server.post(CHAT, {**GOOD[CHAT], "guided_json": {"type": "object"}})
    assert "structured_outputs.json takes its place" in check(answer)["message"]


@pytest.mark.parametrize("path", GOOD)
def test_an_unknown_model_is_a_404_on_every_route(server, path):
    error = check(server.post(path, {**GOOD[path], "model": "gpt-9"}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


@pytest.mark.parametrize("path", GOOD)
def test_other_media_types_and_methods_are_refused_on_every_route(server, path):
    assert check(httpx.post(server.url + path, content=b"a=b", headers={"content-type": "text/plain"}), 415)
    assert check(httpx.get(server.url + path), 405)
    assert check(server.get(f"{path}/nothing"), 404)


WRONG = {
    "model": [1, "", "x" * 300, ["tiny"]],
    "n": [0, -1, 129, 10**30, 1.5, "1", True, [1]],
    "temperature": [-0.1, "hot", True, 1e300, [0]],
    "top_p": [0, -1, 1.1, "1"],
    "top_k": [-2, 2**31, 1.5, "1"],
    "min_p": [-0.1, 1.1],
    "repetition_penalty": [0, -1, "1"],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1, "x"],
    "logit_bias": [[1], {"x": 1}, {"-1": 1}, {"99999": 1}, {"1": "a"}, {"1.5": 1}],
    "allowed_token_ids": [[], [-1], [99999], ["1"], 5],
    "bad_words": [[""], "x", [1]],
    "seed": ["x", 2**63, -2, 1.5],
    "stop": [[""], [1], 5, ["x"] * 129, "x" * 1025, {"a": 1}],
    "stop_token_ids": [[-1], ["a"], [99999], [1] * 129, 3],
    "max_tokens": [-1, 10**30, "5", 1.5, 100_000],
    "min_tokens": [-1, "1", 10**30],
    "ignore_eos": [1, "true"],
    "prompt_logprobs": [-2, 10**9, "1", 300],
    "truncate_prompt_tokens": [0, -2, "1"],
    "structured_outputs": [
        {}, {"json": {"type": "object"}, "regex": "a"}, {"choice": []}, {"choice": [""]}, {"regex": "("}, {"regx": "a"},
        {"json": "{"}, {"grammar": "root"}, {"json_object": False}, "json", {"regex": "a" * 70_000},
    ],
    "stream": ["true", 1],
    "stream_options": [{"include_usage": True}, {"include_usag": True}, [1]],
    "priority": [2**31, "1", 3],
    "cache_salt": [1, "x" * 2000],
    "vllm_xargs": [{"unheard_of": 1}, [1]],
    "user": [1, "x" * 2000],
    "use_beam_search": [True],
    "best_of": [2, 0],
    "response_format": [
        "json", {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objet"}}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}}},
    ],
}  # fmt: skip
OF_CHATS = {
    "messages": [
        [], "hi", [1], [{}], [{"role": 1, "content": "x"}], [{"role": "user", "content": 5}], [{"content": "x"}],
        [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"type": "video_url"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}],
        [{"role": "user", "content": "x" * 5000}],
    ],
    "logprobs": [1, "true"],
    "top_logprobs": [3, -2, "1"],
    "max_completion_tokens": [0, -1, 10**30],
    "tools": [
        {}, [1], [{"type": "function"}], [{"type": "web_search", "function": {"name": "x"}}],
        [{"type": "function", "function": {}}], [{"type": "function", "function": {"name": 1}}],
        [{"type": "function", "function": {"name": "x", "parameters": [1]}}],
        [{"type": "function", "function": {"name": "x"}}] * 129,
    ],
    "tool_choice": ["required", "any", {"type": "function"}, {"type": "function", "function": {"name": "x"}}, 5],
    "functions": [[{"name": "f"}]],
    "modalities": [["audio"], "text"],
    "chat_template_kwargs": [[1], {"messages": []}, {"a b": 1}],
    "chat_template": ["{{ 1 }}", 5],
    "continue_final_message": ["yes"],
}  # fmt: skip
OF_TEXTS = {
    "prompt": [
        ["a", [1]],
        "", [], [[]], [""], [1, "a"], [-1], [99999], [[1], [-1]], {"prompt": "a"}, 5, None, [None], [[["a"]]], [1.5],
        "x" * 5000, ["a"] * 1025,
    ],
    "logprobs": [-2, 10**9, "1", 300],
    "suffix": ["x", 5],
    "echo": ["yes"],
    "prompt_embeds": ["x"],
}  # fmt: skip
CASES = [
    (path, field, value)
    for path, tables in ((CHAT, (WRONG, OF_CHATS)), (TEXTS, (WRONG, OF_TEXTS)))
    for table in tables
    for field, values in table.items()
    for value in values
]


def test_every_wrong_value_is_a_400_that_names_its_field(server):
    """One test: hundreds of requests, of which none may be answered otherwise, slow the server or change an answer."""
    unnamed = []
    with server.client() as client:
        for path, field, value in CASES:
            answer = client.post(path, json={**GOOD[path], field: value})
            error = check(answer)
            if field not in json.dumps([error["param"], error["message"]]):
                unnamed.append((path, field, repr(value)[:60], error))
    # One that is about two fields may name the other one.
    allowed = {
        "min_tokens": "max_tokens",
        "cache_salt": "cache_salt",
        "top_logprobs": "logprobs",
    }
    left = [row for row in unnamed if allowed.get(row[1], "?") not in row[3]["message"]]
    assert not left
    for path, body in GOOD.items():
        assert server.post(path, body).status_code == 200


def test_what_the_engine_refuses_is_told_of_the_field_that_the_request_has(server):
    """The engine knows top_logprobs as logprobs, vllm_xargs as extra_args, and so on."""
    asked = {
        "vllm_xargs": {"unheard_of": 1},
        "top_logprobs": 300,
        "max_completion_tokens": 10**6,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objet"}}},
        "priority": 3,
    }
    for field, value in asked.items():
        error = check(server.post(CHAT, {**GOOD[CHAT], "logprobs": True, field: value}))
        assert error["param"] == field, error
        assert not [name for name in ("extra_args", "structured_outputs", "LLM(") if name in error["message"]], error
    error = check(server.post(TEXTS, {**GOOD[TEXTS], "logprobs": 300}))
    assert error["param"] == "logprobs"
    assert (
        check(server.post(TEXTS, {**GOOD[TEXTS], "structured_outputs": {"regex": "("}}))["param"]
        == "structured_outputs"
    )


def test_two_wrong_fields_and_long_values_give_short_errors(server):
    long = {"messages": [{"role": "x" * 300, "y" * 5000: 1}] * 4000, "z" * 100_000: 1}
    assert check(server.post(CHAT, long))


def test_a_stream_that_cannot_begin_is_an_error_with_a_status(server):
    check(server.post(CHAT, {**GOOD[CHAT], "stream": True, "structured_outputs": {"regex": "("}}))
    check(server.post(TEXTS, {**GOOD[TEXTS], "stream": True, "logit_bias": {"99999": 1}}))


def test_null_is_as_if_left_out(server):
    fields = dict.fromkeys(set(WRONG) - {"max_tokens"})
    assert server.post(CHAT, {**GOOD[CHAT], **fields}).status_code == 200
    assert server.post(TEXTS, {**GOOD[TEXTS], **fields}).status_code == 200


def test_a_text_far_beyond_the_context_is_refused_before_it_is_tokenized(server):
    """The tokenizer takes some hundred bytes a character: 20 MB of text took 4 GB."""
    text = "a" * 201_000
    for path, body in (
        (CHAT, {"messages": [{"role": "user", "content": text}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": text[:150_000]}] * 2}]}),
        (TEXTS, {"prompt": [text, "a"], "truncate_prompt_tokens": 5}),
        (COUNT, {"prompt": text}),
        (COUNT, {"messages": [{"role": "user", "content": text}]}),
    ):
        error = check(server.post(path, body))
        assert error["code"] == "context_length_exceeded"
        assert "characters" in error["message"]
