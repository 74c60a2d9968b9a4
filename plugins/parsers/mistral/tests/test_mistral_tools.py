"""Mistral's formats: the kit on each of them, and what is special to them."""

from __future__ import annotations

import json
import re

import pytest
from vllm_plugin_mistral_tools.parser import MistralToolParser

from vllm_core.testing import ToolParserConformance
from vllm_core.testing.tool_parser import ToolExample

TEMPLATE = """{{- "[TOOL_CALLS][" }}{%- for tool_call in message.tool_calls %}"""
MARKERS = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")


class TestArrays(ToolParserConformance):
    """Tokenizers up to version 7."""

    parser = "mistral"
    markers = MARKERS
    templates = (TEMPLATE,)
    other_templates = ("<tool_call>",)
    examples = {
        "a space after the marker": ToolExample(
            '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 3.5, "b": 4}}]', [("add", {"a": 3.5, "b": 4})]
        ),
        "arguments first": ToolExample(
            '[TOOL_CALLS][{"arguments": {"city": "Rome"}, "name": "get_weather"}]', [("get_weather", {"city": "Rome"})]
        ),
        "a thought before": ToolExample(
            'I look. [TOOL_CALLS][{"name": "list_files", "arguments": {}}]', [("list_files", {})], "I look. "
        ),
        "one object without an array": ToolExample(
            '[TOOL_CALLS]{"name": "add", "arguments": {"a": 1}}', [("add", {"a": 1})]
        ),
        "the last bracket is missing": ToolExample('[TOOL_CALLS][{"name": "list_files"}', [("list_files", {})]),
    }

    def write(self, calls):
        objects = (f'{{"name": {json.dumps(name)}, "arguments": {arguments}}}' for name, arguments in calls)
        return f"[TOOL_CALLS][{', '.join(objects)}]"


class TestNames(ToolParserConformance):
    """Tokenizers from version 11 on."""

    parser = "mistral"
    markers = MARKERS
    examples = {
        "no marker before the arguments": ToolExample('[TOOL_CALLS]add{"a": 3, "b": 4}', [("add", {"a": 3, "b": 4})]),
        "an id": ToolExample('[TOOL_CALLS]add[CALL_ID]Ab3dEf6h9[ARGS]{"a": 1}', [("add", {"a": 1})]),
        "names with signs": ToolExample('[TOOL_CALLS]web.search-2_x[ARGS]{"q": "?"}', [("web.search-2_x", {"q": "?"})]),
    }
    markup = "Ab3dEf6h9"

    def write(self, calls):
        return "".join(f"[TOOL_CALLS]{name}[ARGS]{arguments}" for name, arguments in calls)


def parse(text):
    found = MistralToolParser(None, []).parse(text)
    return found.content, [(call.name, call.arguments) for call in found.calls]


@pytest.mark.parametrize(
    "text",
    [
        "Write [TOOL_CALLS] before the call.",
        "[TOOL_CALLS]",
        "[TOOL_CALLS][]",
        '[TOOL_CALLS][{"city": "Rome"}]',
        "[TOOL_CALLS][ARGS]{}",
        "[TOOL_CALLS]add[ARGS]",
        "[TOOL_CALLS]add or {so}",
        '[ARGS]{"a": 1}',
    ],
)
def test_what_is_no_call_stays_content_as_it_is(text):
    assert parse(text) == (text, [])


def test_a_marker_that_nothing_follows_does_not_hide_the_next():
    assert parse('[TOOL_CALLS] [TOOL_CALLS]add[ARGS]{"a": 1}') == ("[TOOL_CALLS] ", [("add", '{"a": 1}')])


def test_ids_are_nine_letters_and_digits_and_the_models_own_if_it_gave_one():
    text = "[TOOL_CALLS]a[CALL_ID]Ab3dEf6h9[ARGS]{}[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]a[CALL_ID]call_1[ARGS]{}"
    ids = [call.id for call in MistralToolParser(None, []).parse(text).calls]
    assert ids[0] == "Ab3dEf6h9"
    assert all(re.fullmatch("[0-9A-Za-z]{9}", id) for id in ids)
    assert len(set(ids)) == 3


def test_a_call_that_breaks_off_keeps_what_was_there():
    assert parse('[TOOL_CALLS]add[ARGS]{"a": [1, 2') == ("", [("add", '{"a": [1, 2')])
