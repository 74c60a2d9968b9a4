"""The parsers of a request: reasoning first, then calls; and what happens if one of them fails."""

from __future__ import annotations

import logging
import re

import pytest

from vllm_core.engine.chat_parsing import ChatParsing
from vllm_core.engine.outputs import CompletionOutput, ParsedDelta, RequestMetrics, RequestOutput, ToolCall
from vllm_core.engine.parsing import Made, OutputParser
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.reasoning_parser import ReasoningParse
from vllm_core.interfaces.tool_parser import ToolDelta, ToolParse


class UpToBar:
    """All up to "|" is reasoning; "^" and later are given at the end."""

    def __init__(self):
        self.over, self.held, self.prompt = False, "", None

    def prepare(self, options):
        return {**options, "skip_special_tokens": False}

    def starts_inside(self, prompt_ids):
        self.prompt = list(prompt_ids)
        self.over = 7 in self.prompt
        return not self.over

    def feed(self, text, ids):
        if "!" in text:
            raise ValueError("no exclamations")
        if self.held or "^" in text:
            text, _, held = text.partition("^") if not self.held else ("", "", text)
            self.held += held or "^"
        if self.over:
            return ReasoningParse(content=text)
        before, bar, after = text.partition("|")
        self.over = bool(bar)
        return ReasoningParse(reasoning=before, content=after)

    def finish(self):
        return ReasoningParse(content=self.held)


class Capitals:
    """A capital letter calls the tool of its name, digits are arguments, all else is content."""

    def __init__(self):
        self.index = -1
        self.ids = []

    def prepare(self, options):
        return options

    def feed(self, text, ids):
        self.ids += ids
        content, calls = "", []
        for c in text:
            if c == "?":
                raise RuntimeError("no questions")
            if c == "%":
                calls.append(ToolDelta(index=self.index + 1, arguments="1"))
            elif c.isupper():
                self.index += 1
                calls.append(ToolDelta(index=self.index, name=c))
            elif c.isdigit():
                calls.append(ToolDelta(index=self.index, arguments=c))
            else:
                content += c
        return ToolParse(content=content, calls=tuple(calls))

    def finish(self):
        return ToolParse(content=".")


TOOL, REASONING = Made(Capitals, 'tool parser "capitals" (x 1)'), Made(UpToBar, 'reasoning parser "bar" (y 2)')


def parsed(parser):
    return parser.reasoning, parser.content, [(call.name, call.arguments) for call in parser.tool_calls]


def test_reasoning_is_taken_out_first_and_calls_are_found_in_the_rest():
    parser = OutputParser(TOOL, REASONING)
    deltas = [parser.feed(piece, [i]) for i, piece in enumerate(["why A", "1?", "|so ", "B1", "2 on"])] + [
        parser.finish()
    ]
    assert parsed(parser) == ("why A1?", "so  on.", [("B", "12")])
    assert "".join(d.reasoning for d in deltas) == parser.reasoning
    assert "".join(d.content for d in deltas) == parser.content
    assert [call.arguments for d in deltas for call in d.calls] == ["", "1", "2"]
    assert not ParsedDelta()


def test_calls_get_an_id_with_their_first_part():
    parser = OutputParser(TOOL)
    first, second = parser.feed("A1B", ()).calls[0], parser.feed("2A", ()).calls
    assert re.fullmatch("call_[0-9a-f]{24}", first.id)
    assert [bool(part.id) for part in second] == [False, True]
    assert parser.tool_calls[0].id == first.id
    assert len({call.id for call in parser.tool_calls}) == 3


def test_without_parsers_all_is_content_and_reasoning_is_none():
    parser = OutputParser()
    assert parser.feed("a|B1").content == "a|B1"
    parser.finish()
    assert parsed(parser) == (None, "a|B1", [])


@pytest.mark.parametrize(
    "pieces", [["ab |c", "d A1 e? f"], ["ab |cd A1", " e", "? f"], list("ab |cd A1 e? f")], ids=str
)
def test_a_tool_parser_that_fails_leaves_the_reasoning_and_gives_all_else_as_content(pieces, caplog):
    parser = OutputParser(TOOL, REASONING, request_id="r7")
    deltas = [parser.feed(piece) for piece in pieces] + [parser.finish()]
    assert parsed(parser) == ("ab ", "cd A1 e? f", [])
    assert "".join(d.content for d in deltas).endswith("cd A1 e? f")  # calls were out: the text comes again, whole
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert (
        'request r7: tool parser "capitals" (x 1) failed (RuntimeError: no questions); its text is given'
        in record.message
    )


def test_before_any_call_only_the_rest_of_the_text_is_given(caplog):
    parser = OutputParser(TOOL)
    assert [parser.feed(piece).content for piece in ("ab ", "cd? e")] == ["ab ", "cd? e"]
    assert parser.feed(" more A1").content == " more A1"
    assert parsed(parser) == (None, "ab cd? e more A1", [])


@pytest.mark.parametrize("pieces", [["a", "b!", "c|d A"], ["ab!c|d A"], list("ab!c|d A")], ids=str)
def test_a_reasoning_parser_that_fails_leaves_the_text_unparsed(pieces, caplog):
    parser = OutputParser(TOOL, REASONING)
    deltas = [parser.feed(piece) for piece in pieces] + [parser.finish()]
    assert parsed(parser) == (None, "ab!c|d A", [])
    assert "".join(d.content for d in deltas) == "ab!c|d A"
    assert 'reasoning parser "bar" (y 2) failed' in caplog.text


def test_a_call_that_begins_without_a_name_is_the_parsers_fault(caplog):
    parser = OutputParser(TOOL)
    parser.feed("a%")
    assert parsed(parser) == (None, "a%", [])
    assert "call 0 began without a name" in caplog.text


def test_a_parser_that_cannot_be_made_fails_like_one_that_raises(caplog):
    def broken():
        raise KeyError("vocab")

    parser = OutputParser(Made(broken, "tool parser x"), REASONING)
    parser.feed("why|so A")
    assert parsed(parser) == ("why", "so A", [])
    assert "tool parser x failed (KeyError: 'vocab')" in caplog.text


# ---- the outputs of a chat


def output(*texts, request_id="0", finished=()):
    return RequestOutput(
        request_id=request_id,
        prompt="p",
        prompt_token_ids=[7] if request_id == "over" else [1, 2],
        outputs=[
            CompletionOutput(
                index=i, text=text, token_ids=list(range(len(text))), finish_reason="stop" if i in finished else None
            )
            for i, text in enumerate(texts)
        ],
        finished=len(finished) == len(texts),
        metrics=RequestMetrics(arrival_time=0.0),
    )


def read(parsing, *args, **kwargs):
    return parsing.read(output(*args, **kwargs)).outputs


def test_outputs_carry_what_was_parsed_and_what_of_it_is_new():
    parsing = ChatParsing(TOOL, REASONING)
    (one,) = read(parsing, "wh")
    assert (one.reasoning, one.reasoning_content, one.content, one.tool_calls) == ("wh", "wh", "", [])
    assert one.delta == ParsedDelta(reasoning="wh")
    (one,) = read(parsing, "why|so A1", finished=[0])
    assert (one.text, one.reasoning, one.content) == ("why|so A1", "why", "so .")
    assert [(c.name, c.arguments) for c in one.tool_calls] == [("A", "1")]
    assert isinstance(one.tool_calls[0], ToolCall)
    assert (one.delta.reasoning, one.delta.content) == ("y", "so .")


def test_samples_of_a_request_are_parsed_apart_and_finish_on_their_own():
    parsing = ChatParsing(None, REASONING)
    read(parsing, "a|b", "x")
    first, second = read(parsing, "a|b", "xy", finished=[0])
    assert (first.content, second.reasoning) == ("b", "xy")
    first, second = read(parsing, "a|b", "xyz|!", finished=[0, 1])
    assert (first.reasoning, first.content, first.delta) == ("a", "b", ParsedDelta())
    assert (second.reasoning, second.content) == (None, "xyz|!")


def test_conversations_of_one_call_are_parsed_apart_each_with_its_prompt():
    parsing = ChatParsing(None, REASONING)
    (one,) = read(parsing, "a", request_id="0")
    (other,) = read(parsing, "b", request_id="over")
    assert (one.reasoning, other.reasoning, other.content) == ("a", "", "b")


def test_prepare_changes_how_the_request_is_run():
    params = SamplingParams(max_tokens=5, stop="x", seed=3)
    changed = ChatParsing(TOOL, REASONING).prepare(params)
    assert changed.changed() == {**params.changed(), "skip_special_tokens": False}
    assert ChatParsing(TOOL, None).prepare(params) is not None
    assert params.skip_special_tokens


def test_a_prepare_that_fails_changes_nothing(caplog):
    class Wrong(Capitals):
        def prepare(self, options):
            return {"temprature": 1}

    params = SamplingParams(max_tokens=5)
    assert ChatParsing(Made(Wrong, "tool parser w"), None).prepare(params) == params
    assert "tool parser w failed (TypeError: SamplingParams has no field 'temprature'" in caplog.text
