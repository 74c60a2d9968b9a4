"""Hermes' format: the kit, and what is special to it."""

from __future__ import annotations

import json

import pytest
from vllm_plugin_hermes_tools.parser import HermesToolParser

from vllm_core.testing import ToolParserConformance
from vllm_core.testing.tool_parser import ToolExample

# How the chat templates of Qwen2.5 and of Hermes 2 Pro describe the format, abridged.
QWEN = r"""{{- "<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>" }}"""
HERMES = """'<tool_call>\\n{"arguments": <args-dict>, "name": <function-name>}\\n</tool_call>'"""
CODER = r"""{{- '<tool_call>\n<function=example_function_name>\n<parameter=example>' }}"""
GLM = "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>"


class TestHermes(ToolParserConformance):
    parser = "hermes"
    markers = ("<tool_call>", "</tool_call>")
    markup = "type function parameters"
    templates = (QWEN, HERMES)
    other_templates = (CODER, GLM, "[TOOL_CALLS]")
    examples = {
        "arguments first": ToolExample(
            '<tool_call>\n{"arguments": {"city": "Rome"}, "name": "get_weather"}\n</tool_call>',
            [("get_weather", {"city": "Rome"})],
        ),
        "a thought before": ToolExample(
            'I ask the <b>service</b>.\n<tool_call>{"name":"get_weather","arguments":{"city":"Rome"}}</tool_call>',
            [("get_weather", {"city": "Rome"})],
            "I ask the <b>service</b>.\n",
        ),
        "several in one pair of tags": ToolExample(
            '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>',
            [("add", {"a": 1}), ("add", {"a": 2})],
        ),
        "the end tag is missing": ToolExample('<tool_call>{"name": "add", "arguments": {"a": 1}}', [("add", {"a": 1})]),
        "the last brace is missing": ToolExample(
            '<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>', [("add", {"a": 1})]
        ),
        "arguments as a string of JSON": ToolExample(
            r'<tool_call>{"name": "add", "arguments": "{\"a\": 1}"}</tool_call>', [("add", {"a": 1})]
        ),
        "null": ToolExample('<tool_call>{"name": "list_files", "arguments": null}</tool_call>', [("list_files", {})]),
        "no arguments at all": ToolExample('<tool_call>{"name": "list_files"}</tool_call>', [("list_files", {})]),
        "parameters": ToolExample(
            '<tool_call>{"type": "function", "name": "add", "parameters": {"a": 1}}</tool_call>', [("add", {"a": 1})]
        ),
        "a line break in a string": ToolExample(
            '<tool_call>{"name": "write", "arguments": {"text": "one\ntwo"}}</tool_call>',
            [("write", {"text": "one\ntwo"})],
        ),
        "a backslash that escapes nothing": ToolExample(
            r'<tool_call>{"name": "write", "arguments": {"text": "\d+ \user"}}</tool_call>',
            [("write", {"text": r"\d+ \user"})],
        ),
    }

    def write(self, calls):
        return "\n".join(
            f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'
            for name, arguments in calls
        )


def parse(text):
    found = HermesToolParser(None, []).parse(text)
    return found.content, [(call.name, call.arguments) for call in found.calls]


@pytest.mark.parametrize(
    "text",
    [
        "Write <tool_call> before the call.",
        "<tool_call></tool_call>",
        '<tool_call>{"city": "Rome"}</tool_call>',
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "add", "argments": {"a": 1}}</tool_call>',
        "<tool_call>{'name': 'add', 'arguments': {}}</tool_call>",
        '<tool_call>{"name": "add"',
        "</tool_call>",
    ],
)
def test_what_is_no_call_stays_content_as_it_is(text):
    assert parse(text) == (text, [])


def test_a_call_that_breaks_off_keeps_what_was_there():
    assert parse('<tool_call>{"name": "write", "arguments": {"text": "one tw') == ("", [("write", '{"text": "one tw')])


def test_after_a_mistake_in_the_arguments_the_rest_is_content_and_later_calls_count():
    text = (
        '<tool_call>{"name": "add", "arguments": {"a": oops}}</tool_call> <tool_call>{"name": "list_files"}</tool_call>'
    )
    assert parse(text) == ("oops}} ", [("add", '{"a": '), ("list_files", "{}")])


def test_a_quotation_mark_that_is_missing_does_not_swallow_the_next_call():
    text = '<tool_call>{"name": "add</tool_call>\n<tool_call>{"name": "list_files"}</tool_call>'
    assert parse(text) == ('<tool_call>{"name": "add</tool_call>\n', [("list_files", "{}")])
