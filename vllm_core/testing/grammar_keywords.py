"""Schemas of one or two keywords each, with texts that conform and texts that do not: heeded or refused, never ignored.

The file is longer than others because it is one table.
"""

from __future__ import annotations

from typing import Any

__all__ = ["KEYWORDS"]

KEYWORDS: tuple[tuple[dict[str, Any] | bool, tuple[str, ...], tuple[str, ...]], ...] = (
    ({"type": "object"}, ("{}", '{"a":1}'), ("[]",)),
    ({"type": "object", "properties": {"a": {"type": "integer"}}}, ("{}", '{"a":1}', '{"a":1,"b":2}'), ('{"a":"x"}',)),
    (
        {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
        ("{}", '{"a":1}'),
        ('{"a":1,"b":2}',),
    ),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["b"],
            "additionalProperties": False,
        },
        ('{"b":1}', '{"a":1,"b":1}', '{"b":1,"a":1}'),
        ('{"a":1}',),
    ),
    ({"type": "integer", "minimum": 3, "maximum": 17}, ("3", "17"), ("2", "18")),
    ({"type": "integer", "multipleOf": 3}, ("3",), ("4",)),
    ({"type": "number", "minimum": 0.5}, ("0.5", "3"), ("0.1", "-1")),
    ({"type": "number", "exclusiveMaximum": 5}, ("4.9",), ("5", "6")),
    ({"type": "number", "multipleOf": 0.5}, ("0.5",), ("0.3",)),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ('"ab"',), ('"a"', '"abcd"')),
    ({"type": "string", "pattern": "^a+$"}, ('"aa"',), ('"b"',)),
    ({"type": "string", "pattern": "a+"}, ('"aa"', '"xax"'), ('"b"',)),
    ({"type": "string", "pattern": "^a+$", "maxLength": 2}, ('"aa"',), ('"aaa"',)),
    (
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        ("[1]", "[1,2]"),
        ("[]", "[1,2,3]"),
    ),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, ("[1,2]",), ("[1,1]",)),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, ("[1]",), ('["a"]', "[1,2]")),
    ({"type": "array", "contains": {"type": "integer"}}, ('["a",1]',), ('["a"]',)),
    ({"type": "array", "contains": {"type": "integer"}, "minContains": 2}, ("[1,1]",), ("[1]",)),
    ({"enum": [1, "a", None, {"x": [1]}]}, ("1", '"a"', "null", '{"x":[1]}'), ("2",)),
    ({"const": "z"}, ('"z"',), ('"y"',)),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, ("1", "null"), ('"a"',)),
    ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, ("1", "null"), ('"a"',)),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ("1.5",), ("1",)),
    ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, ("3",), ("2",)),
    (
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
            ]
        },
        ('{"a":1,"b":2}',),
        ('{"a":1}',),
    ),
    ({"not": {"type": "integer"}}, ('"a"',), ("1",)),
    ({"type": "string", "not": {"const": "b"}}, ('"a"',), ('"b"',)),
    ({"if": {"type": "integer"}, "then": {"minimum": 3}, "else": {"type": "string"}}, ("3", '"a"'), ("2",)),
    (
        {"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
        ('{"xa":1}',),
        ('{"xa":"b"}', '{"y":1}'),
    ),
    ({"type": "object", "propertyNames": {"pattern": "^x"}}, ('{"xa":1}',), ('{"y":1}',)),
    ({"type": "object", "minProperties": 1, "maxProperties": 2}, ('{"xa":1}',), ("{}", '{"a":1,"b":2,"c":3}')),
    (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}},
            "dependentRequired": {"a": ["b"]},
            "additionalProperties": False,
        },
        ('{"a":1,"b":1}',),
        ('{"a":1}',),
    ),
    (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}},
            "dependentSchemas": {"a": {"required": ["b"]}},
            "additionalProperties": False,
        },
        ('{"a":1,"b":1}',),
        ('{"a":1}',),
    ),
    ({"type": ["integer", "null"]}, ("1", "null"), ('"a"',)),
    (
        {
            "$defs": {
                "n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "additionalProperties": False}
            },
            "$ref": "#/$defs/n",
        },
        ('{"c":{"c":{}}}',),
        ('{"c":1}',),
    ),
    ({"definitions": {"n": {"type": "integer"}}, "$ref": "#/definitions/n"}, ("1",), ('"a"',)),
    (False, (), ("1",)),
    ({"type": "string"}, ('"\\u00e9"', '"\\n"', '"é"'), ('"\n"', '"\\x"')),
    ({"type": "number"}, ("1e5", "-0.5", "0"), ("01", "1.", "+1")),
    ({"type": "integer"}, ("-3",), ("1.5", "01")),
    ({"type": "object", "unevaluatedProperties": False, "properties": {"a": {}}}, ('{"a":1}',), ('{"b":1}',)),
    ({"foo": 1, "type": "integer"}, ("1",), ('"a"',)),
    ({"type": "object", "required": ["z"]}, ('{"z":1}',), ("{}",)),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a", "z"],
            "additionalProperties": {"type": "integer"},
        },
        ('{"a":1,"z":1}',),
        ('{"a":1}',),
    ),
    ({"type": "integer", "exclusiveMinimum": 3}, ("4",), ("3",)),
    ({"type": "string", "enum": ["a"], "const": "a"}, ('"a"',), ('"b"',)),
    ({"properties": {"a": {"type": "integer"}}}, ('{"a":1}',), ('{"a":"x"}',)),
    ({"enum": []}, (), ("1",)),
    ({"type": "integer", "anyOf": [{"minimum": 3}, {"maximum": 1}]}, ("3", "1"), ("2", '"a"')),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
            "anyOf": [{"required": ["a"]}],
        },
        ('{"a":1}',),
        ("{}",),
    ),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "additionalProperties": False,
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        ('{"a":1}',),
        ("{}",),
    ),
    ({"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n", "minimum": 3}, ("3",), ("2",)),
    ({"enum": [1, "a"], "type": "string"}, ('"a"',), ("1",)),
    ({"enum": ["aa", "b"], "minLength": 2}, ('"aa"',), ('"b"',)),
    ({"const": 1, "type": "string"}, (), ("1",)),
    ({"type": ["string", "integer"], "minimum": 3, "minLength": 2}, ("3", '"ab"'), ("2", '"a"')),
    ({"type": "integer", "multipleOf": 3, "minimum": 4, "maximum": 20}, ("6", "18"), ("3", "21", "7")),
    ({"type": "integer", "multipleOf": 0.5}, ("6",), ("6.5",)),
    ({"type": "string", "format": "date", "minLength": 30}, (), ('"2020-01-01"',)),
    ({"type": "string", "format": "date", "pattern": "^2021.*$"}, ('"2021-01-01"',), ('"2020-01-01"',)),
    (
        {"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 1, "additionalProperties": False},
        ('{"a":1}',),
        ("{}",),
    ),
    (
        {"type": "object", "properties": {"a": {}, "b": {}}, "maxProperties": 1, "additionalProperties": False},
        ('{"a":1}',),
        ('{"a":1,"b":1}',),
    ),
    (
        {"type": "object", "patternProperties": {"^x[a-z]*$": {"type": "integer"}}, "additionalProperties": False},
        ('{"xa":1}', '{"x":1,"xb":2}'),
        ('{"xa":"b"}', '{"y":1}'),
    ),
    (
        {
            "type": "object",
            "patternProperties": {"^x[a-z]*$": {"type": "integer"}},
            "additionalProperties": {"type": "string"},
        },
        ('{"xa":1,"y":"a"}',),
        ('{"xa":"b"}', '{"y":1}'),
    ),
    (
        {
            "type": "object",
            "properties": {"y": {}},
            "patternProperties": {"^x[a-z]*$": {"type": "integer"}},
            "additionalProperties": False,
        },
        ('{"y":1,"xa":1}',),
        ('{"xa":"b"}', '{"z":1}'),
    ),
    ({"type": "object", "propertyNames": {"pattern": "^x.*$"}}, ('{"xa":1}',), ('{"y":1}',)),
    ({"type": "object", "propertyNames": {"enum": ["a"]}}, ('{"a":1}',), ('{"y":1}',)),
    ({"type": "object", "propertyNames": {"minLength": 2}}, ('{"aa":1}',), ('{"y":1}',)),
    (
        {"type": "object", "propertyNames": {"pattern": "^x.*$"}, "additionalProperties": {"type": "integer"}},
        ('{"xa":1}',),
        ('{"y":1}', '{"xa":"a"}'),
    ),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}},
        ("[1]", '[1,"a"]', "[]"),
        ('["a"]', "[1,2]"),
    ),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "integer"}], "items": False, "minItems": 2},
        ("[1,1]",),
        ("[1]", "[]"),
    ),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "integer"}], "maxItems": 1},
        ("[1]", "[]"),
        ("[1,1]",),
    ),
    (
        {"type": "object", "additionalProperties": {"type": "integer"}, "properties": {"a": {"type": "string"}}},
        ('{"a":"x","b":1}',),
        ('{"a":1}', '{"b":"x"}'),
    ),
    ({"type": "number", "minimum": 3, "maximum": 4.5}, ("3", "4.5", "3.25"), ("2.9", "4.6")),
    ({"type": "number", "minimum": 1000.0}, ("1000", "1e3"), ("999",)),
    ({"type": "integer", "minimum": 2.5}, ("3",), ("2",)),
    (
        {
            "anyOf": [
                {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False},
                {"type": "string"},
            ],
            "title": "x",
            "description": "y",
            "default": 3,
            "examples": [1],
        },
        ('{"a":1}', '"q"'),
        ('{"a":2}',),
    ),
    ({"type": "null"}, ("null",), ("1",)),
    ({"type": "string", "pattern": "^\\d{2}$"}, ('"12"',), ('"1a"',)),
    ({"type": "string", "pattern": "^(?:a|b)$"}, ('"a"',), ('"c"',)),
    ({"type": "string", "pattern": "^a|b$"}, ('"ax"', '"xb"'), ('"c"',)),
    ({"type": "string", "pattern": "^[\\w.]+@x$"}, ('"a@x"',), ('"@x"',)),
    ({"type": "string", "pattern": "^(?=a).*$"}, ('"ab"',), ('"b"',)),
    ({"type": "string", "pattern": "^(a)\\1$"}, ('"aa"',), ('"ab"',)),
    ({"type": "string", "pattern": '^"$'}, ('"\\""',), ('"a"',)),
    ({"type": "string", "pattern": "^.$"}, ('"é"', '"\\""'), ('"ab"',)),
    ({"type": "string", "pattern": "^[^a]*$"}, ('"bb"',), ('"a"', '"\\u0061"')),
    (
        {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"k": {"const": "a"}, "x": {"type": "integer"}},
                    "required": ["k", "x"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {"k": {"const": "b"}},
                    "required": ["k"],
                    "additionalProperties": False,
                },
            ]
        },
        ('{"k":"a","x":1}', '{"k":"b"}'),
        ('{"k":"a"}',),
    ),
    ({"$anchor": "q", "type": "object", "properties": {"c": {"$ref": "#q"}}}, ('{"c":{}}',), ('{"c":1}',)),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 2}, (), ("[1,2]", "[1,2,3]")),
    ({"nullable": True, "type": "integer"}, ("1",), ('"a"',)),
    ({"type": "object", "properties": {"a": False}, "required": []}, ("{}",), ('{"a":1}',)),
    ({"minimum": 3}, ("3", '"a"'), ("2",)),
    ({"required": ["a"]}, ('{"a":1}', "1"), ("{}",)),
)
"""(schema, right texts, wrong ones)"""
