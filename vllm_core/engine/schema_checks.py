"""JSON schemas before a grammar backend sees them: bounded, and without what leads out of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

__all__ = ["check_json", "close_objects"]

MAX_DEPTH = 128  # tables and lists in each other
MAX_VALUES = 1 << 14  # tables, lists, numbers and texts

_HOLD_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LIST_SCHEMAS = ("anyOf", "oneOf", "prefixItems")
_ARE_SCHEMAS = ("items", "additionalProperties", "contains", "if", "then", "else")
_SAYS = ("additionalProperties", "unevaluatedProperties", "patternProperties")


def check_json(name: str, text: str) -> None:
    """Refuse what is no table in JSON, or one so deep or so large that compilers of grammars break over it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"structured_outputs: {name} is no JSON: {error}") from None
    if not isinstance(found, dict) and not (name == "json" and isinstance(found, bool)):
        raise ValueError(f"structured_outputs: {name} must be a table, not {text:.80}")
    level: list[Any] = [found]
    depth = values = 0
    while level:
        depth, values = depth + 1, values + len(level)
        if depth > MAX_DEPTH or values > MAX_VALUES:
            raise ValueError(f"structured_outputs: {name} has more than {MAX_DEPTH} levels or {MAX_VALUES:,} values")
        for value in level:
            ref = value.get("$ref") if isinstance(value, dict) else None
            if isinstance(ref, str) and not ref.startswith("#"):
                raise ValueError(
                    f"structured_outputs: {name} refers to {ref!r:.80}, and nothing is fetched from elsewhere"
                )
        level = [inner for value in level for inner in _inside(value)]


def close_objects(schema: Any) -> Any:
    """The schema with ``additionalProperties: false`` where an object names properties and says nothing of others.

    Parts of ``allOf`` say together which there are, so they are left as they are.
    """
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    for key in _HOLD_SCHEMAS:
        if isinstance(schema.get(key), dict):
            closed[key] = {name: close_objects(part) for name, part in schema[key].items()}
    for key in _LIST_SCHEMAS:
        if isinstance(schema.get(key), list):
            closed[key] = [close_objects(part) for part in schema[key]]
    for key in _ARE_SCHEMAS:
        if key in schema:
            closed[key] = close_objects(schema[key])
    combined = {"$ref", "anyOf", "oneOf", "allOf", "if", "not", "propertyNames"} & set(schema)
    if isinstance(schema.get("properties"), dict) and not combined and not any(key in schema for key in _SAYS):
        closed["additionalProperties"] = False
    return closed


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
