"""Anthropic's messages become a chat, and what parsers find becomes content blocks and events."""

from __future__ import annotations

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.messages.conversation import Conversation
from vllm_plugin_server.messages.output import Blocks
from vllm_plugin_server.typed_items import Reader, tool_input

from vllm_core.serving import ParsedDelta, ToolDelta

EVENT = TypeAdapter(RawMessageStreamEvent)
USE = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "2"}
PIECES = [
    ParsedDelta(reasoning="Hm, "),
    ParsedDelta(reasoning="yes."),
    ParsedDelta(content="It "),
    ParsedDelta(content="is", calls=(ToolDelta(index=0, name="add", id="call_1"),)),
    ParsedDelta(calls=(ToolDelta(index=0, arguments='{"a":'), ToolDelta(index=0, arguments="1}"))),
    ParsedDelta(calls=(ToolDelta(index=1, name="now", id="call_2"),)),
]


def text(value):
    return {"type": "text", "text": value}


def chat(*messages, system=None):
    conversation = Conversation(Reader())
    conversation.instruct(system)
    conversation.add(list(messages))
    return conversation


def refusal(*messages, system=None):
    with pytest.raises(ApiError) as found:
        chat(*messages, system=system)
    assert found.value.status == 400
    return found.value


def play(pieces, **options):
    blocks = Blocks(**options)
    return blocks, [event for piece in pieces for event in blocks.add(piece)] + blocks.close()


# ---- messages to a chat


def test_the_system_text_comes_first_without_clients_billing_headers():
    system = [text("x-anthropic-billing-header: cc_version=1; cch=ab12"), text("Be kind.")]
    assert chat({"role": "user", "content": "Hi"}, system=system).messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


def test_thinking_text_and_uses_of_tools_are_one_message_and_results_their_own():
    said = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, text("Wait."), USE]
    found = chat(
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": [RESULT, text("And now?")]},
    ).messages
    assert found[1] == {
        "role": "assistant",
        "content": "Wait.",
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}],
    }
    assert found[2:] == [
        {"role": "tool", "tool_call_id": "toolu_1", "content": "2"},
        {"role": "user", "content": "And now?"},
    ]


def test_roles_that_claude_code_made_up_are_users():
    assert [m["role"] for m in chat({"role": "ctx", "content": "x"}, {"role": "msg", "content": "y"}).messages] == [
        "user",
        "user",
    ]


def test_a_result_of_several_texts_or_none_is_granted():
    several = {**RESULT, "content": [text("a"), text("b")]}
    none = {"type": "tool_result", "tool_use_id": "toolu_1"}
    found = chat({"role": "user", "content": [several, none]}).messages
    assert found[0]["content"] == [text("a"), text("b")]
    assert found[1]["content"] == ""


def test_an_assistants_message_at_the_end_is_gone_on_with_unless_it_uses_a_tool():
    assert chat({"role": "user", "content": "x"}, {"role": "assistant", "content": "On"}).continues
    assert not chat({"role": "user", "content": "x"}, {"role": "assistant", "content": [USE]}).continues
    assert not chat({"role": "assistant", "content": "On"}, {"role": "user", "content": "x"}).continues


def test_what_has_no_effect_is_named():
    conversation = Conversation(Reader())
    block = {**text("x"), "cache_control": {"type": "ephemeral"}}
    conversation.add([{"role": "user", "content": [block, {**RESULT, "is_error": True}]}])
    assert conversation._reader.idle == {"cache_control", "is_error"}


@pytest.mark.parametrize(
    ("message", "param", "word"),
    [
        (
            {"role": "user", "content": [{"type": "image", "source": {}}]},
            "messages[0].content[0].type",
            "images",
        ),
        ({"role": "user", "content": [USE]}, "messages[0].content[0].type", "tool_use"),
        ({"role": "assistant", "content": [RESULT]}, "messages[0].content[0].type", "tool_result"),
        ({"role": "user", "content": [{"type": "txt", "text": "x"}]}, "messages[0].content[0].type", "did you mean"),
        (
            {"role": "user", "content": [{"type": "text", "txt": "x"}]},
            "messages[0].content[0].txt",
            "did you mean 'text'",
        ),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "messages[0].content[0].text", "whole number"),
        ({"role": "usr", "content": "x"}, "messages[0].role", "did you mean 'user'?"),
        ({"role": "user"}, "messages[0].content", "missing"),
        ({"role": "user", "content": None}, "messages[0].content", "null"),
        ({"role": "assistant", "content": [{**USE, "input": "x"}]}, "messages[0].content[0].input", "an object"),
        ({"role": "user", "content": [{**RESULT, "content": [USE]}]}, "messages[0].content[0].content[0].type", "use"),
        ("x", "messages[0]", "object"),
    ],
)
def test_a_wrong_message_is_refused_where_it_is_wrong(message, param, word):
    error = refusal(message)
    assert error.param == param
    assert word in error.message


def test_a_conversation_has_messages():
    assert refusal().param == "messages"


# ---- pieces to blocks


def test_blocks_follow_one_another_and_each_says_what_it_is():
    blocks, events = play(PIECES)
    assert [block["type"] for block in blocks.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"] == [
        "thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert blocks.content[2] == {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1}}
    assert blocks.content[3]["input"] == {}


def test_the_client_puts_the_stream_together_to_the_same_blocks():
    blocks, events = play(PIECES)
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m"}
    message["usage"] = {"input_tokens": 1, "output_tokens": 0}
    snapshot, buffers = None, {}
    for event in [{"type": "message_start", "message": message}, *events]:
        known = EVENT.validate_python(event)
        snapshot = accumulate_event(event=known, current_snapshot=snapshot, json_bufs=buffers)
    found = [block.to_dict() for block in snapshot.content]
    assert [{**block, "parsed_output": None} for block in found] == [
        {**block, "parsed_output": None} for block in blocks.content
    ]


def test_thinking_can_be_kept_back():
    blocks, events = play(PIECES, show_thinking=False)
    assert blocks.content[0]["thinking"] == ""
    assert not [event for event in events if event.get("delta", {}).get("type") == "thinking_delta"]


def test_without_parallel_use_only_the_first_tool_is_given():
    blocks, _ = play(PIECES, one_call=True)
    assert [block["name"] for block in blocks.content if block["type"] == "tool_use"] == ["add"]


def test_an_answer_without_text_has_no_blocks():
    blocks, events = play([])
    assert (blocks.content, events) == ([], [])


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", '"x"', '{"a": NaN}', '{"a": "\\ud800"}', "[" * 5000])
def test_arguments_that_are_no_object_are_wrapped(arguments):
    assert tool_input(arguments) == {"INVALID_JSON": arguments}
