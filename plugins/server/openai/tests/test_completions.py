"""/v1/completions: prompts in every form, echo and log-probabilities as evaluations need them, streams."""

from __future__ import annotations

import json

import pytest

PATH = "/v1/completions"
SHORT = {"temperature": 0, "max_tokens": 6, "ignore_eos": True}


def ask(server, **fields):
    answer = server.post(PATH, {**SHORT, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def stream(server, **fields):
    answer = server.post(PATH, {**SHORT, **fields, "stream": True})
    assert answer.status_code == 200, answer.text
    *events, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(event) for event in events]


def test_an_answer_has_all_that_clients_read(server):
    answer = ask(server, prompt="ab")

    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["prompt_tokens"] == 2
    assert answer["usage"]["completion_tokens"] == 6


def test_sixteen_tokens_come_if_nothing_is_said(server):
    answer = server.post(PATH, {"prompt": "ab", "ignore_eos": True}).json()
    assert answer["usage"]["completion_tokens"] == 16


def test_texts_ids_and_batches_are_the_same_prompts(server):
    ids = [server.post("/tokenize", {"prompt": text}).json()["tokens"] for text in ("ab", "xyz")]
    texts = [choice["text"] for choice in ask(server, prompt=["ab", "xyz"])["choices"]]

    assert [choice["text"] for choice in ask(server, prompt=ids)["choices"]] == texts
    assert ask(server, prompt=ids[0])["choices"][0]["text"] == texts[0]
    assert ask(server, prompt="xyz")["choices"][0]["text"] == texts[1]


def test_choices_of_a_batch_are_numbered_prompt_by_prompt(server):
    fields = {"prompt": ["ab", "cd"], "n": 3, "temperature": 1, "seed": 11}
    answer = ask(server, **fields)

    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert answer["usage"]["prompt_tokens"] == 4
    assert answer["usage"]["completion_tokens"] == 36
    alone = ask(server, **{**fields, "prompt": "cd"})["choices"]
    assert [choice["text"] for choice in alone] == [choice["text"] for choice in answer["choices"][3:]]


@pytest.mark.parametrize(
    "fields",
    [{}, {"echo": True}, {"echo": True, "logprobs": 2}, {"logprobs": 1}, {"n": 2, "temperature": 1, "seed": 3}],
    ids=["plain", "echo", "echo and logprobs", "logprobs", "two outputs"],
)
def test_a_stream_adds_up_to_the_whole(server, fields):
    whole = ask(server, prompt=["ab", "über"], **fields)["choices"]
    chunks = stream(server, prompt=["ab", "über"], **fields)

    for choice in whole:
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
        if choice["logprobs"]:
            for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                assert [x for part in parts for x in part["logprobs"][key]] == choice["logprobs"][key], key


def test_a_stream_tells_usage_if_asked(server):
    *_, last = stream(server, prompt=["ab", "cd"], stream_options={"include_usage": True})
    assert last["usage"]["total_tokens"] == 16


def test_echo_with_logprobs_scores_the_prompt_as_evaluations_do(server):
    """lm-eval's local-completions: the log-likelihood of a continuation, from one request with max_tokens 1."""
    context, continuation = "ab", "cde"
    fields = {"prompt": context + continuation, "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234}
    logprobs = ask(server, **fields)["choices"][0]["logprobs"]

    assert "".join(logprobs["tokens"][:5]) == "abcde"
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"][:5] == [0, 1, 2, 3, 4]
    scored = sum(logprobs["token_logprobs"][2:-1])
    alone = 0.0  # the same, token by token
    for i in range(2, 5):
        prompt = (context + continuation)[:i]
        next_id = server.post("/tokenize", {"prompt": (context + continuation)[i]}).json()["tokens"][0]
        top = ask(server, prompt=prompt, max_tokens=1, logprobs=20, allowed_token_ids=[next_id])
        alone += top["choices"][0]["logprobs"]["token_logprobs"][0]
    assert scored == pytest.approx(alone, abs=1e-3)
    for token, top in zip(logprobs["tokens"][1:], logprobs["top_logprobs"][1:], strict=True):
        assert token in top  # by which greedy positions are told


def test_no_token_at_all_can_be_asked_with_echo(server):
    answer = ask(server, prompt="abc", max_tokens=0, echo=True, logprobs=1)
    assert answer["choices"][0]["text"] == "abc"
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == 3
    assert answer["usage"]["completion_tokens"] == 0


def test_prompt_logprobs_and_ids_are_given_if_asked(server):
    (choice,) = ask(server, prompt="abc", prompt_logprobs=1, return_token_ids=True)["choices"]
    assert len(choice["prompt_logprobs"]) == 3
    assert len(choice["token_ids"]) == 6
    assert len(choice["prompt_token_ids"]) == 3


def test_a_suffix_and_several_computed_are_refused(server):
    assert server.post(PATH, {"prompt": "a", "suffix": "b"}).json()["error"]["param"] == "suffix"
    assert server.post(PATH, {"prompt": "a", "best_of": 4}).json()["error"]["param"] == "best_of"
    assert ask(server, prompt="a", suffix="", best_of=1)["choices"]


def test_ids_and_texts_go_back_and_forth(server):
    text = "héllo 😀"
    ids = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert ids["count"] == len(ids["tokens"]) == len(ids["token_strs"])
    assert ids["token_strs"] == ["h", "Ã", "©", "l", "l", "o", "Ġ", "ð", "Ł", "ĺ", "Ģ"]  # pieces, as in the vocabulary
    assert ids["max_model_len"] == 512
    assert server.post("/detokenize", {"tokens": ids["tokens"]}).json() == {"prompt": text}
