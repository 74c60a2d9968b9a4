"""Calls of tools that a request forces."""

from __future__ import annotations

import json

import pytest

from vllm_core.engine.tool_choice import ForcedCalls, read_tool_choice

NODE = {
    "$defs": {"n": {"type": "integer"}},
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/n"}, "me": {"$ref": "#"}},
}
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "add", "parameters": NODE}},
    {"type": "function", "function": {"name": "now"}},
]  # fmt: skip


def named(name):
    return {"type": "function", "function": {"name": name}}


def test_without_a_choice_tools_may_be_called():
    assert read_tool_choice(None, TOOLS).mode == "auto"
    assert read_tool_choice(None, []).mode == "none"
    assert read_tool_choice("none", TOOLS).mode == "none"
    assert not read_tool_choice("auto", TOOLS).forced


@pytest.mark.parametrize(
    ("given", "tools", "said"),
    [
        ("requird", TOOLS, "did you mean 'required'"),
        ("required", [], "there are no tools"),
        (named("sub"), TOOLS, "names 'sub', and tools are look, add, now"),
        ({"type": "tool"}, TOOLS, "must look like"),
        (7, TOOLS, "must look like"),
        ("required", [TOOLS[0], TOOLS[0]], "two tools are called 'look'"),
        ("required", [{"name": "x"}], "tool 0 must look like"),
        ("required", [{"type": "function", "function": {"name": "x", "parameters": 3}}], "must be a JSON schema"),
    ],
)
def test_what_is_wrong_is_refused(given, tools, said):
    with pytest.raises(ValueError, match=said):
        read_tool_choice(given, tools)


def test_a_required_call_is_a_list_of_names_and_parameters_with_each_tool_s_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(read_tool_choice("required", TOOLS).format().specification)
    check = jsonschema.Draft202012Validator(schema)
    for good in (
        [{"name": "look", "parameters": {}}],
        [{"name": "add", "parameters": {"a": 1, "me": {"a": 2}}}, {"name": "now", "parameters": {"x": 1}}],
    ):
        check.validate(good)
    for bad in (
        [],
        {"name": "look", "parameters": {}},
        [{"name": "look"}],
        [{"name": "sub", "parameters": {}}],
        [{"name": "add", "parameters": {"a": "x"}}],
        [{"name": "add", "parameters": {"me": {"a": "x"}}}],
        [{"name": "look", "parameters": {}, "id": 1}],
    ):
        assert not check.is_valid(bad), bad


def test_a_named_call_is_its_arguments():
    assert json.loads(read_tool_choice(named("add"), TOOLS).format().specification) == NODE
    assert json.loads(read_tool_choice(named("now"), TOOLS).format().specification) == {"type": "object"}


TEXTS = {
    "look": ('  {"a": [1, "]"]}\n', [("look", '{"a": [1, "]"]}')], ""),
    "": (
        '[{"name": "look", "parameters": {}}, {"name": "add", "parameters": {"a": "}],"}}]',
        [("look", "{}"), ("add", '{"a": "}],"}')],
        "",
    ),
    "cut off": ('[{"name": "look", "parameters": {"a": 1', [("look", '{"a": 1')], ""),
    "no list": ("I will not.", [], "I will not."),
}


@pytest.mark.parametrize("case", TEXTS)
def test_calls_are_read_alike_whole_and_in_pieces_of_any_size(case):
    text, calls, content = TEXTS[case]
    name = case if case == "look" else ""
    whole = ForcedCalls(name).parse(text)
    assert [(call.name, call.arguments) for call in whole.calls] == calls
    assert whole.content == content
    for size in range(1, len(text)):
        parser, found, said = ForcedCalls(name), {}, ""
        for part in [*(parser.feed(text[i : i + size], ()) for i in range(0, len(text), size)), parser.finish()]:
            said += part.content
            for delta in part.calls:
                had = found.setdefault(delta.index, [delta.name, ""])
                had[1] += delta.arguments
        assert [tuple(call) for call in found.values()] == calls
        assert said == content
