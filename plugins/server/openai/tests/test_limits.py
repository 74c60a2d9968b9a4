"""The limits table: each row that bounds a field is held on every route whose body has it."""

from __future__ import annotations

import msgspec
import pytest
from vllm_plugin_server.chat.wire import ChatRequest, Conversing
from vllm_plugin_server.completions.wire import CompletionRequest
from vllm_plugin_server.limits import LIMITS, bound
from vllm_plugin_server.tokens import DetokenizeRequest, TokenizeRequest

BODIES = {
    "/v1/chat/completions": (ChatRequest, {"messages": [{"role": "user", "content": "a"}]}),
    "/v1/completions": (CompletionRequest, {"prompt": "a"}),
    "/tokenize": (TokenizeRequest, {"prompt": "a"}),
    "/detokenize": (DetokenizeRequest, {"tokens": [1]}),
}
NUMBERS = [limit for limit in LIMITS.values() if limit.kind == "number" and limit.name != "token_id"]
LISTS = {
    "stop": ["a"], "stop_token_ids": [1], "bad_words": ["a"], "messages": [{"role": "user", "content": "a"}],
    "tools": [{"type": "function", "function": {"name": "f"}}],
}  # fmt: skip
TEXTS = {"model": "name", "user": "label", "cache_salt": "label", "chat_template": "chat_template"}


def fields_of(kind) -> set[str]:
    return {field.name for field in msgspec.structs.fields(kind)}


def refused(kind, good, **fields) -> bool:
    try:
        msgspec.convert({**good, **fields}, kind)
    except msgspec.ValidationError:
        return True
    return False


@pytest.mark.parametrize("path", BODIES)
def test_numbers_are_bounded_on_every_route_that_has_them(path):
    kind, good = BODIES[path]
    for limit in NUMBERS:
        if limit.name not in fields_of(kind) or (limit.name == "logprobs" and kind is ChatRequest):
            continue
        assert not refused(kind, good, **{limit.name: limit.most}), limit.name
        assert refused(kind, good, **{limit.name: limit.most + max(1, abs(limit.most) * 1e-3)}), limit.name
        if limit.least is not None:
            assert refused(kind, good, **{limit.name: limit.least - 1}), limit.name


@pytest.mark.parametrize("path", BODIES)
def test_lists_and_texts_are_bounded_on_every_route_that_has_them(path):
    kind, good = BODIES[path]
    checked = 0
    for name, one in LISTS.items():
        if name in fields_of(kind):
            most = int(LIMITS[name].most)
            assert not refused(kind, good, **{name: one * most}), name
            assert refused(kind, good, **{name: one * (most + 1)}), name
            checked += 1
    for name, row in TEXTS.items():
        if name in fields_of(kind):
            most = int(LIMITS[row].most)
            assert not refused(kind, good, **{name: "x" * most}), name
            assert refused(kind, good, **{name: "x" * (most + 1)}), name
            checked += 1
    assert checked


def test_every_number_and_list_of_a_body_has_a_bound():
    """A field added without one is found here."""
    unbounded = []
    for kind, _good in BODIES.values():
        for field in msgspec.inspect.type_info(kind).fields:
            kinds = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
            for one in kinds:
                if isinstance(one, msgspec.inspect.IntType | msgspec.inspect.FloatType) and one.le is None:
                    unbounded.append((kind.__name__, field.name))
                if isinstance(one, msgspec.inspect.ListType) and one.max_length is None:
                    unbounded.append((kind.__name__, field.name))
    assert not unbounded


def test_a_request_of_too_many_outputs_is_refused(server):
    answer = server.post("/v1/completions", {"prompt": ["a"] * 100, "n": 100, "temperature": 1})
    assert answer.status_code == 400
    assert "10000 outputs" in answer.json()["error"]["message"]


def test_a_name_without_a_row_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        bound("no such limit")
    assert fields_of(Conversing) <= fields_of(ChatRequest)


def test_what_calls_and_tools_hold_counts_as_text_before_a_template_writes_it(server):
    """A template that writes out megabytes of arguments took ten seconds, until it was ended."""
    long = "x" * 300_000
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "' + long + '"}'}}
    as_object = {**call, "function": {"name": "f", "arguments": {"a": long}}}
    tool = {"type": "function", "function": {"name": "f", "description": long}}
    user = {"role": "user", "content": "x"}
    for param, more in (
        ("messages", {"messages": [user, {"role": "assistant", "tool_calls": [call]}]}),
        ("messages", {"messages": [user, {"role": "assistant", "tool_calls": [as_object]}]}),
        ("tools", {"messages": [user], "tools": [tool]}),
    ):
        error = server.post("/v1/chat/completions", {"model": "tiny", **more}).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", param)
        assert "characters" in error["message"]
