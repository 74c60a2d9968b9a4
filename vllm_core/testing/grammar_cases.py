"""Specifications of every kind, texts that conform to them and texts that do not, and what tells the two apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from vllm_core.interfaces.grammar import GrammarSpec

__all__ = ["BAD", "CASES", "RUNAWAY", "GrammarCase"]


@attrs.frozen(kw_only=True)
class GrammarCase:
    """``right`` tells of any text whether it conforms; ``ends``: random walks through it come to an end."""

    spec: GrammarSpec
    good: tuple[str, ...]
    bad: tuple[str, ...]
    right: Callable[[str], bool]
    ends: bool = True


def _schema(schema: Any, good: tuple[str, ...], bad: tuple[str, ...], **more: Any) -> GrammarCase:
    spec = GrammarSpec(kind="json_schema", text=json.dumps(schema), **more)
    return GrammarCase(spec=spec, good=good, bad=bad, right=partial(_conforms, schema))


def _conforms(schema: Any, text: str) -> bool:
    import jsonschema

    try:
        jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _regex(pattern: str, good: tuple[str, ...], bad: tuple[str, ...]) -> GrammarCase:
    def right(text: str) -> bool:
        return re.fullmatch(pattern, text) is not None

    return GrammarCase(spec=GrammarSpec(kind="regex", text=pattern), good=good, bad=bad, right=right)


def _choice(*choices: str, bad: tuple[str, ...]) -> GrammarCase:
    spec = GrammarSpec(kind="choice", text=json.dumps(choices))
    return GrammarCase(spec=spec, good=choices, bad=bad, right=lambda text: text in choices)


def _tags(text: str) -> bool:
    """Free text in which every ``<f>`` begins an object that ``</f>`` ends."""
    parts = text.split("<f>")[1:]
    return all("</f>" in part and _is_object(part.partition("</f>")[0]) for part in parts)


_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["ab", "é", None, 12]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
_NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": -12, "maximum": 123}, "minItems": 1, "maxItems": 3}
_TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"a": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["a"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
_TAG = {
    "structures": [{"begin": "<f>", "schema": {"type": "object", "maxProperties": 0}, "end": "</f>"}],
    "triggers": ["<f"],
}

CASES: dict[str, GrammarCase] = {
    "an object": _schema(
        _PERSON,
        (
            '{"name": "ab", "age": 12}',
            '{"name":"日本","age":0,"tags":["é",null]}',
            '{\n  "name": "",\n  "age": 120 }',
        ),
        (
            "{}",
            '{"name": "ab"}',
            '{"name": "ab", "age": 121}',
            '{"name": "abcdefg", "age": 1}',
            '{"name": "ab", "age": 1,}',
        ),
    ),
    "an object on one line": _schema(
        _PERSON,
        ('{"name": "ab", "age": 12}',),
        ('{"name":"ab","age":12}', '{\n"name": "ab", "age": 12}'),
        any_whitespace=False,
    ),
    "any text": _schema(
        {"type": "string"}, ('""', '"é\\n\\"\\u00e9 <日本>"', '"\\\\"'), ('"', '"\n"', '"\\x"', "ab", '"a"b', '"\x18"')
    ),
    "texts of a few characters": _schema(
        {"type": "string", "minLength": 1, "maxLength": 3},
        ('"ab"', '"日本"', '"\\""', '"\\n\\\\a"'),
        ('""', '"abca"', '"\t"'),
    ),
    "a list of numbers": _schema(_NUMBERS, ("[1]", "[-1, 0,123]"), ("[]", "[1.5]", "[01]", "[124]", "[1,2,3,4]")),
    "a tree": _schema(_TREE, ('{"a": null}', '{"a":{"a":{"a":null}}}'), ("{}", '{"a": 1}', '{"a":{"a":null}')),
    "constants": _schema(
        {"enum": ["ab", 12, None, {"x": [1]}]}, ('"ab"', "12", "null", '{"x": [1]}'), ("13", '"b"', "{}")
    ),
    "any object": GrammarCase(
        spec=GrammarSpec(kind="json_object"),
        good=("{}", '{"a": [1, {"b": null}], "é": "\\n"}'),
        bad=("[]", "1", '"a"', '{"a": }', "{a: 1}"),
        right=_is_object,
    ),
    "digits": _regex("[0-9]{3}-[0-9]{4}", ("123-4567", "000-0000"), ("123-456", "1234567", "123-45678", "")),
    "alternatives": _regex("(yes|no)( (ab|c)+)?[.!]", ("yes.", "no!", "yes ababc."), ("yes", "maybe.", "no ab")),
    "characters of several bytes": _regex("(é|日本|[a-c])+x", ("éx", "日本ax", "abcéx"), ("日x", "x", "éd")),
    "the empty text": _regex("(ab)*", ("", "ab", "abab"), ("a", "aba")),
    "choices": _choice("yes", "no", "yes no", bad=("ye", "yesno", "maybe", "", "no ")),
    "choices that look like syntax": _choice(
        'a"b', "a\\b", "x\ny", "日本", "[1]|(2)*", "/a/", bad=('a"', "1", "xy", "日")
    ),
    "a grammar": GrammarCase(
        spec=GrammarSpec(kind="ebnf", text='root ::= "x=" number ("," number)*\nnumber ::= "-"? [0-9]+'),
        good=("x=1", "x=-12,0,123"),
        bad=("x=", "x=1,", "1", "x=a"),
        right=lambda text: re.fullmatch(r"x=-?[0-9]+(,-?[0-9]+)*", text) is not None,
    ),
    "a grammar that nests": GrammarCase(
        spec=GrammarSpec(kind="ebnf", text='root ::= "a" | "(" root ")"'),
        good=("a", "(a)", "(((a)))"),
        bad=("(a", "()", "a)", "((a)"),
        right=lambda text: re.fullmatch(r"\(*a\)*", text) is not None and text.count("(") == text.count(")"),
    ),
    "tags in free text": GrammarCase(
        spec=GrammarSpec(kind="structural_tag", text=json.dumps(_TAG)),
        good=("ab", "ab <f>{}</f>", "<f>{ }</f> yes <f>{}</f>"),
        bad=("<f>", "<f>{}", "<f>[]</f>", "ab <f>ab</f>"),
        right=_tags,
        ends=False,
    ),
}

BAD: dict[str, GrammarSpec] = {
    "an open group": GrammarSpec(kind="regex", text="(a"),
    "a repetition of nothing": GrammarSpec(kind="regex", text="*a"),
    "a type that is none": GrammarSpec(kind="json_schema", text='{"type": "objec"}'),
    "bounds that exclude each other": GrammarSpec(
        kind="json_schema", text='{"type": "array", "minItems": 3, "maxItems": 2}'
    ),
    "a reference to nothing": GrammarSpec(kind="json_schema", text='{"$ref": "#/$defs/none"}'),
    "what no backend can do": GrammarSpec(kind="json_schema", text='{"not": {"type": "integer"}}'),
    "a rule that is not there": GrammarSpec(kind="ebnf", text="root ::= other"),
    "no grammar": GrammarSpec(kind="ebnf", text="root ::= ((("),
    "a tag without a beginning": GrammarSpec(
        kind="structural_tag", text='{"structures": [{"end": "x"}], "triggers": ["<"]}'
    ),
    "a kind that nobody has": GrammarSpec(kind="poem", text="about rain"),
}

RUNAWAY: dict[str, GrammarSpec] = {
    "repetitions of repetitions": GrammarSpec(kind="regex", text="((a{0,100}){0,100}){0,100}"),
    "many repetitions": GrammarSpec(kind="regex", text="(a{1,300}){300}"),
    "stars of stars": GrammarSpec(kind="regex", text="(.*)*" * 30),
    "ten levels of repetitions": GrammarSpec(kind="regex", text="(" * 10 + "a" + "{1,9})" * 10),
    "deep groups": GrammarSpec(kind="regex", text="(" * 5000 + "a" + ")" * 5000),
    "many optional properties": GrammarSpec(
        kind="json_schema",
        text=json.dumps({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1500)}}),
    ),
    "deep lists": GrammarSpec(kind="json_schema", text='{"type":"array","items":' * 60 + "{}" + "}" * 60),
    "a schema that is itself": GrammarSpec(kind="json_schema", text='{"$ref": "#"}'),
    "a huge enumeration": GrammarSpec(
        kind="json_schema", text=json.dumps({"enum": [f"v {i * i}" for i in range(3000)]})
    ),
    "repetitions in a grammar": GrammarSpec(kind="ebnf", text='root ::= (("a"{1,300}){1,300}){1,300}'),
    "an ambiguous grammar": GrammarSpec(kind="ebnf", text='root ::= s\ns ::= s s | s s s | "a" | ""'),
}
"""What takes some compilers hours, or all of the memory."""
