"""Bodies that nobody has thought of are read, or refused with a 400: nothing else comes out."""

from __future__ import annotations

import copy

from hypothesis import given, settings
from hypothesis import strategies as st
from vllm_plugin_server.body import to_record
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.messages.chat import as_chat as from_messages
from vllm_plugin_server.messages.wire import MessagesRequest
from vllm_plugin_server.responses.chat import as_chat as from_responses
from vllm_plugin_server.responses.wire import ResponsesRequest

FUNCTION = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
RESPONSES = {
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "y"}]},
        {"type": "message", "role": "assistant", "content": "z", "status": "completed", "id": "msg_1"},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "item_reference", "id": "msg_1"},
    ],
    "instructions": "Be kind.",
    "tools": [FUNCTION],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 2,
    "chat_template_kwargs": {"enable_thinking": False},
}
MESSAGES = {
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "y", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "tool_use", "id": "t", "name": "add", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "2", "is_error": False}]},
    ],
    "tools": [{"name": "add", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 5},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
}
KEPT = {"role": "assistant", "content": "kept", "type": "message"}
WORDS = ["type", "role", "content", "text", "message", "function_call", "reasoning", "tool_use", "tool_result", "", "x"]
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.sampled_from(WORDS)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value):
    """Every (container, key) in it."""
    found = []
    todo = [value]
    while todo:
        here = todo.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here))
        for key in keys:
            found.append((here, key))
            if isinstance(here[key], dict | list):
                todo.append(here[key])
    return found


def mutated(data, body):
    body = copy.deepcopy(body)
    for _ in range(data.draw(st.integers(1, 3))):
        here, key = data.draw(st.sampled_from(places(body)))
        what = data.draw(st.sampled_from(["put", "drop", "add", "double"]))
        if what == "put":
            here[key] = data.draw(VALUES)
        elif what == "drop":
            del here[key]
        elif isinstance(here, list):
            here.append(copy.deepcopy(here[key]) if what == "double" else data.draw(VALUES))
        else:
            here[data.draw(st.sampled_from(WORDS) | st.text(max_size=3))] = data.draw(VALUES)
        if not places(body):
            break
    return body


def test_the_bodies_that_are_changed_here_are_good():
    made = from_responses(to_record(RESPONSES, ResponsesRequest), list, lambda _: KEPT, False)
    assert [m.role for m in made.chat.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert [m.role for m in messages_of(MESSAGES).messages] == ["system", "user", "assistant", "tool"]


def messages_of(body):
    chat, _ = from_messages(to_record(body, MessagesRequest), False)
    return chat


def refusal(read):
    """What ``read()`` raises; anything but an ``ApiError`` goes on."""
    try:
        read()
    except ApiError as error:
        return error
    return None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_body_of_responses_is_read_or_a_400(data):
    body = mutated(data, RESPONSES)
    error = refusal(lambda: from_responses(to_record(body, ResponsesRequest), list, lambda _: KEPT, False))
    assert error is None or (error.status == 400 and len(error.message) < 2000)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_body_of_messages_is_read_or_a_400(data):
    body = mutated(data, MESSAGES)
    error = refusal(lambda: messages_of(body))
    assert error is None or (error.status == 400 and len(error.message) < 2000)
