"""The items of a response, and the events that tell of them, come from one place and agree."""

from __future__ import annotations

from itertools import count

import pytest
from openai import omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from vllm_plugin_server.responses.output import OutputItems

from vllm_core.serving import ParsedDelta, ToolDelta

EVENT = TypeAdapter(ResponseStreamEvent)
PIECES = [
    ParsedDelta(reasoning="Let me "),
    ParsedDelta(reasoning="see."),
    ParsedDelta(content="It "),
    ParsedDelta(content="is", calls=(ToolDelta(index=0, name="add", id="call_1"),)),
    ParsedDelta(calls=(ToolDelta(index=0, arguments='{"a":'), ToolDelta(index=0, arguments="1}"))),
    ParsedDelta(calls=(ToolDelta(index=1, name="now", id="call_2", arguments="{}"),)),
]


def items(**options):
    numbers = count()
    return OutputItems(lambda prefix: f"{prefix}_{next(numbers)}", **options)


def play(pieces, status="completed", **options):
    output = items(**options)
    events = [event for piece in pieces for event in output.add(piece)] + output.close(status)
    return output.items, [{**event, "sequence_number": i} for i, event in enumerate(events)]


def test_reasoning_text_and_calls_become_items_in_their_order():
    made, _ = play(PIECES)
    assert [item["type"] for item in made] == ["reasoning", "message", "function_call", "function_call"]
    assert made[0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert made[1]["content"][0]["text"] == "It is"
    assert [(item["name"], item["arguments"], item["call_id"]) for item in made[2:]] == [
        ("add", '{"a":1}', "call_1"),
        ("now", "{}", "call_2"),
    ]
    assert {item["status"] for item in made} == {"completed"}


def test_the_events_of_one_text_are_openais_in_their_order():
    _, events = play([ParsedDelta(content="Hel"), ParsedDelta(content="lo")])
    assert [event["type"] for event in events] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert events[0]["item"]["content"] == []
    assert events[4]["text"] == events[5]["part"]["text"] == events[6]["item"]["content"][0]["text"] == "Hello"


def test_a_call_is_told_of_before_its_arguments_are_whole():
    _, events = play(PIECES[3:5])
    of_call = [event for event in events if event.get("output_index") == 1]
    assert [event["type"].removeprefix("response.") for event in of_call] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert of_call[0]["item"]["arguments"] == ""
    assert of_call[0]["item"]["name"] == "add"


def test_the_deltas_of_each_item_join_to_what_is_done():
    made, events = play(PIECES)
    for index, item in enumerate(made):
        said = "".join(e["delta"] for e in events if e["type"].endswith(".delta") and e["output_index"] == index)
        assert said == (item.get("arguments") or item["content"][0]["text"])


def test_every_event_is_one_that_the_client_knows():
    _, events = play(PIECES)
    for event in events:
        assert EVENT.validate_python(event).type == event["type"]


def test_the_clients_own_bookkeeping_accepts_the_stream():
    made, events = play(PIECES)
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": []}
    response |= {"parallel_tool_calls": True, "tool_choice": "auto", "status": "in_progress"}
    state = ResponseStreamState(input_tools=[], text_format=omit)
    whole = {**response, "status": "completed", "output": made}
    begin = {"type": "response.created", "sequence_number": 0, "response": response}
    end = {"type": "response.completed", "sequence_number": 99, "response": whole}
    for event in [begin, *events, end]:
        state.handle_event(construct_type_unchecked(type_=ResponseStreamEvent, value=event))
    assert state._completed_response.output_text == "It is"


def test_an_output_that_was_cut_leaves_its_last_item_incomplete():
    made, events = play(PIECES[:3], status="incomplete")
    assert [item["status"] for item in made] == ["completed", "incomplete"]
    assert events[-1]["item"] == made[-1]


def test_a_model_that_says_nothing_gives_an_empty_message():
    made, events = play([])
    assert [item["content"][0]["text"] for item in made] == [""]
    assert events[0]["type"] == "response.output_item.added"


def test_reasoning_can_be_left_out():
    made, events = play(PIECES, reasoning=False)
    assert made[0]["type"] == "message"
    assert not [event for event in events if "reasoning" in event["type"]]


def test_without_parallel_calls_only_the_first_is_given():
    made, _ = play(PIECES, one_call=True)
    assert [item["name"] for item in made if item["type"] == "function_call"] == ["add"]


def test_text_after_a_call_is_a_message_of_its_own():
    made, _ = play([*PIECES, ParsedDelta(content="Done.")])
    assert [item["type"] for item in made][-2:] == ["function_call", "message"]


def test_log_probabilities_come_with_their_text_and_again_at_its_end():
    entry = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    output = items()
    events = output.add(ParsedDelta(content="Hi"), [entry]) + output.close()
    delta = next(event for event in events if event["type"].endswith("text.delta"))
    assert delta["logprobs"] == [{"token": "Hi", "logprob": -0.5, "top_logprobs": []}]
    assert output.items[0]["content"][0]["logprobs"] == [entry]


@pytest.mark.parametrize("cut", range(1, len(PIECES)))
def test_however_the_pieces_are_joined_the_items_are_the_same(cut):
    def joined(pieces):
        return ParsedDelta(
            reasoning="".join(p.reasoning for p in pieces),
            content="".join(p.content for p in pieces),
            calls=tuple(call for p in pieces for call in p.calls),
        )

    made, _ = play([joined(PIECES[:cut]), joined(PIECES[cut:])])
    assert made == play(PIECES)[0]
