"""Items of the Responses API become messages of a chat."""

from __future__ import annotations

import json

import pytest
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.responses.conversation import Conversation
from vllm_plugin_server.typed_items import Reader

CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}', "id": "fc_1"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "2"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}


def text(role, content):
    return {"role": role, "content": content}


def messages(*items, instructions=None, **options):
    conversation = Conversation(Reader(), **options)
    if instructions:
        conversation.instruct(instructions)
    conversation.add(items)
    return conversation.messages


def refusal(*items):
    with pytest.raises(ApiError) as found:
        messages(*items)
    assert found.value.status == 400
    return found.value


def test_messages_keep_their_roles_and_texts():
    assert messages(text("user", "Hi"), text("assistant", "Hello"), text("user", "Bye")) == [
        text("user", "Hi"),
        text("assistant", "Hello"),
        text("user", "Bye"),
    ]


def test_one_part_is_plain_text_and_several_stay_parts():
    part = {"type": "input_text", "text": "Hi"}
    assert messages(text("user", [part]))[0]["content"] == "Hi"
    assert messages(text("user", [part, part]))[0]["content"] == [{"type": "text", "text": "Hi"}] * 2


def test_what_the_model_did_in_one_turn_is_one_message():
    said = {"type": "message", **text("assistant", [{"type": "output_text", "text": "Wait.", "annotations": []}])}
    assert messages(text("user", "1+1?"), THOUGHT, said, CALL, {**CALL, "call_id": "c2"}, RESULT)[1:] == [
        {
            "role": "assistant",
            "content": "Wait.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {"id": i, "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
                for i in ("c1", "c2")
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]


def test_a_thought_after_a_call_begins_another_turn():
    found = messages(text("user", "x"), THOUGHT, CALL, THOUGHT, text("assistant", "y"))
    assert [m["role"] for m in found] == ["user", "assistant", "assistant"]
    assert found[2] == {"role": "assistant", "content": "y", "reasoning_content": "Hm."}


def test_two_messages_of_the_assistant_stay_two():
    assert len(messages(text("user", "x"), text("assistant", "a"), text("assistant", "b"))) == 3


def test_a_thought_without_its_text_is_told_by_its_summary():
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Short."}]}
    assert messages(text("user", "x"), summary)[1]["reasoning_content"] == "Short."


def test_an_encrypted_thought_changes_nothing_and_is_named():
    reader = Reader()
    conversation = Conversation(reader)
    conversation.add([text("user", "x"), {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}])
    assert len(conversation.messages) == 1
    assert reader.idle == {"encrypted_content"}


def test_instructions_and_a_system_message_that_follows_are_one():
    found = messages(text("developer", "Short."), text("user", "x"), instructions="Be kind.")
    assert found[0] == text("system", [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Short."}])
    assert len(found) == 2


def test_developers_speak_as_the_system():
    assert messages(text("user", "x"), text("developer", "y"))[1] == text("system", "y")


def test_a_call_that_was_cut_can_be_gone_on_from():
    cut = {**CALL, "arguments": '{"a', "status": "incomplete"}
    function = messages(text("user", "x"), cut)[1]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == {"INVALID_JSON": '{"a'}


def test_a_system_message_later_on_stays_where_it_is():
    assert [m["role"] for m in messages(text("user", "x"), text("system", "y"), text("user", "z"))] == [
        "user",
        "system",
        "user",
    ]


def test_a_reference_stands_for_the_item_that_is_kept():
    found = messages(text("user", "x"), {"type": "item_reference", "id": "fc_1"}, find={"fc_1": CALL}.get)
    assert found[1]["tool_calls"][0]["id"] == "c1"
    assert "not kept" in refusal({"type": "item_reference", "id": "fc_2"}).message


@pytest.mark.parametrize(("status", "expected"), [("incomplete", True), ("completed", False), (None, False)])
def test_an_unfinished_message_at_the_end_is_gone_on_with(status, expected):
    conversation = Conversation(Reader())
    conversation.add([text("user", "x"), {**text("assistant", "On"), "status": status}])
    assert conversation.continues is expected


@pytest.mark.parametrize("kind", ["input_image", "input_file", "input_audio"])
def test_media_are_refused_by_name(kind):
    error = refusal(text("user", [{"type": kind, "image_url": "https://example.org/x.png"}]))
    assert "not supported yet" in error.message
    assert error.param == "input[0].content[0].type"


@pytest.mark.parametrize("kind", ["web_search_call", "mcp_call", "computer_call_output", "custom_tool_call"])
def test_items_of_tools_that_others_run_are_refused_with_the_reason(kind):
    assert "run at OpenAI" in refusal({"type": kind}).message


@pytest.mark.parametrize(
    ("item", "param", "word"),
    [
        ({"type": "mesage", "role": "user", "content": "x"}, "input[0].type", "did you mean 'message'?"),
        ({"role": "user", "content": "x", "stauts": "completed"}, "input[0].stauts", "did you mean 'status'?"),
        ({"role": "usr", "content": "x"}, "input[0].role", "usr"),
        ({"role": "user", "content": 3}, "input[0].content", "whole number"),
        ({"role": "user", "content": [3]}, "input[0].content[0]", "object"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0]", "text"),
        ({"role": "user", "content": [{"type": "input_text", "text": None}]}, "input[0].content[0]", "text"),
        ({"role": "user", "content": [{"type": "input_text", "text": {}}]}, "input[0].content[0].text", "object"),
        ({"role": "user"}, "input[0].content", "missing"),
        ({**CALL, "arguments": {"a": 1}}, "input[0].arguments", "object"),
        ({**CALL, "name": ""}, "input[0].name", "length"),
        ({**CALL, "call_id": "x" * 5000}, "input[0].call_id", "length"),
        ({**RESULT, "output": [{"type": "input_image"}]}, "input[0].output[0].type", "images"),
        ({**THOUGHT, "content": [{"text": 1}]}, "input[0].content[0].text", "whole number"),
        ("Hi", "input[0]", "object"),
        (None, "input[0]", "object"),
        ({}, "input[0].type", "message"),
        ({"type": ["message"]}, "input[0].type", "message"),
    ],
)
def test_a_wrong_item_is_refused_where_it_is_wrong(item, param, word):
    error = refusal(item)
    assert error.param == param
    assert word in error.message


def test_lenient_servers_grant_unknown_names():
    conversation = Conversation(Reader(lenient=True))
    conversation.add([{"role": "user", "content": "x", "stauts": 1}])
    assert conversation.messages == [text("user", "x")]
