"""What of JSON schemas XGrammar leaves out without a word. Such schemas are refused, and go to another backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_plugin_xgrammar.regex import check_pattern

__all__ = ["check_schema", "with_lengths"]

IGNORED = (
    "uniqueItems", "contains", "minContains", "maxContains", "not", "if", "then", "else", "dependentRequired",
    "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems", "additionalItems", "$dynamicRef",
    "$recursiveRef",
)  # fmt: skip
ONE_OF = ("$ref", "enum", "const", "anyOf", "oneOf", "allOf")  # of these it reads one, and nothing beside it
NOTES = frozenset({
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator",
    "nullable", "$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "contentEncoding", "contentMediaType",
})  # fmt: skip
OF_TYPE = {
    "minimum": "number", "maximum": "number", "exclusiveMinimum": "number", "exclusiveMaximum": "number",
    "multipleOf": "number", "minLength": "string", "maxLength": "string", "pattern": "string", "format": "string",
    "items": "array", "prefixItems": "array", "minItems": "array", "maxItems": "array", "required": "object",
    "patternProperties": "object", "additionalProperties": "object", "propertyNames": "object",
    "minProperties": "object", "maxProperties": "object",
}  # fmt: skip
FORMATS = frozenset({
    "email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid", "uri", "uri-reference",
    "uri-template", "json-pointer", "relative-json-pointer",
})  # fmt: skip


_CHARACTER = "[ !#-\\[\\]-\ud7ff\ue000-\U0010ffff]"
"""Of a text in JSON, without escapes. Ranges, because the library's "." begins characters that UTF-8 does not have."""


def check_schema(schema: Any) -> None:
    """``ValueError`` names the keyword and where it stands."""
    level = [("", schema)]
    while level:
        inner: list[tuple[str, Any]] = []
        for where, part in level:
            if isinstance(part, Mapping):
                _check(part, where, schema)
                inner += _parts(part, where)
        level = inner


def with_lengths(schema: Any) -> Any:
    """The schema with patterns in the place of ``minLength`` and ``maxLength``.

    For these the library would allow line breaks and other characters that no text in JSON has. The pattern allows no
    escapes, so ``\\n`` and ``\\"`` are left out of such texts; check_schema has seen that there is no other pattern.
    """
    if isinstance(schema, list):
        return [with_lengths(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {
        key: value if key in ("enum", "const", "default", "examples", "required") else with_lengths(value)
        for key, value in schema.items()
        if not (key in ("minLength", "maxLength") and isinstance(value, int))
    }
    if len(found) < len(schema):
        least, most = schema.get("minLength", 0), schema.get("maxLength", "")
        found["pattern"] = f"^{_CHARACTER}{{{least},{most}}}$"
    return found


def _parts(schema: Mapping[str, Any], where: str) -> list[tuple[str, Any]]:
    """The schemas in a schema."""
    found = [
        (f"{where}/{key}", schema[key]) for key in ("items", "additionalProperties", "propertyNames") if key in schema
    ]
    if isinstance(schema.get("propertyNames"), Mapping):  # names are texts
        found = [(at, {"type": "string", **part} if part is schema["propertyNames"] else part) for at, part in found]
    for key in ("properties", "patternProperties", "$defs", "definitions"):
        if isinstance(schema.get(key), Mapping):
            found += [(f"{where}/{key}/{name}", part) for name, part in schema[key].items()]
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if isinstance(schema.get(key), list):
            found += [(f"{where}/{key}/{i}", part) for i, part in enumerate(schema[key])]
    return found


def _check(schema: Mapping[str, Any], where: str, whole: Any) -> None:
    def refuse(what: str) -> ValueError:
        return ValueError(f"xgrammar cannot do this at {where or '/'}: {what}")

    for key in IGNORED:
        if key in schema and not (key == "uniqueItems" and schema[key] is False):
            raise refuse(key)
    alone = [key for key in ONE_OF if key in schema]
    kind = schema.get("type")
    if alone:
        others = set(schema) - NOTES - {alone[0]}
        if alone[0] in ("enum", "const") and "type" in others:
            values = schema["enum"] if alone[0] == "enum" else [schema["const"]]
            if isinstance(values, list) and all(_is_of(value, kind) for value in values):
                others.discard("type")
        if others:
            raise refuse(f"{alone[0]} beside {', '.join(sorted(others))}")
        ref = schema.get("$ref")
        if ref is not None and not (isinstance(ref, str) and (ref == "#" or ref.startswith("#/"))):
            raise refuse(f"$ref {ref!r:.80}, which is no path in this schema")
        if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1:
            raise refuse("allOf of several")
        if isinstance(schema.get("oneOf"), list) and not _disjoint(schema["oneOf"], whole):
            raise refuse("oneOf of schemas that one value may fit both of")
        return
    if kind is None and "properties" not in schema:
        for key in OF_TYPE:
            if key in schema:
                raise refuse(f"{key} without a type")
    _check_values(schema, kind, refuse)


def _check_values(schema: Mapping[str, Any], kind: Any, refuse: Any) -> None:
    of_text = [k for k in ("pattern", "format") if k in schema]
    of_text += ["minLength or maxLength"] if "minLength" in schema or "maxLength" in schema else []
    if len(of_text) > 1:
        raise refuse(" beside ".join(of_text))
    if "format" in schema and schema["format"] not in FORMATS:
        raise refuse(f"format {schema['format']!r:.80}")
    if "multipleOf" in schema and (kind != "integer" or _type_of(schema["multipleOf"]) != "integer"):
        raise refuse("multipleOf of numbers that are not whole")
    patterns = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    if isinstance(schema.get("patternProperties"), Mapping):
        patterns += schema["patternProperties"]
        if schema.get("additionalProperties") is not False or {"minProperties", "maxProperties"} & set(schema):
            raise refuse("patternProperties unless additionalProperties is false, and with a number of properties")
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise refuse(str(error)) from None
    names = schema.get("properties")
    lacking = [k for k in schema.get("required") or () if not isinstance(names, Mapping) or k not in names]
    if lacking:
        raise refuse(f"required {lacking[0]!r:.80}, which is not among the properties")


def _is_of(value: Any, kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    mine = _type_of(value)
    return mine in kinds or (mine == "integer" and "number" in kinds)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    names = {float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _disjoint(branches: list[Any], whole: Any) -> bool:
    """Whether it can be seen that no value fits two of them: other types, or a property with other constants."""
    known = [_resolved(branch, whole) for branch in branches]
    return all(_differ(a, b) for i, a in enumerate(known) for b in known[:i])


def _resolved(schema: Any, whole: Any) -> Mapping[str, Any]:
    for _ in range(16):
        if not isinstance(schema, Mapping) or not str(schema.get("$ref", "")).startswith("#/"):
            break
        found = whole
        for part in schema["$ref"][2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        schema = found
    return schema if isinstance(schema, Mapping) else {}


def _differ(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    kinds = [_types(schema) for schema in (a, b)]
    if kinds[0] and kinds[1] and not kinds[0] & kinds[1]:
        return True
    values = [_constants(schema) for schema in (a, b)]
    if values[0] is not None and values[1] is not None and not any(v in values[1] for v in values[0]):
        return True
    if kinds != [{"object"}, {"object"}]:
        return False
    for name in set(a.get("required") or ()) & set(b.get("required") or ()):
        told = [_constants((schema.get("properties") or {}).get(name)) for schema in (a, b)]
        if told[0] is not None and told[1] is not None and not any(v in told[1] for v in told[0]):
            return True
    return False


def _types(schema: Mapping[str, Any]) -> set[str]:
    kind = schema.get("type")
    if kind is None:
        values = _constants(schema)
        kinds = {_type_of(value) for value in values} if values else set()
    else:
        kinds = set(kind) if isinstance(kind, list) else {kind}
    return kinds | {"integer"} if "number" in kinds else kinds


def _constants(schema: Any) -> list[Any] | None:
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None
