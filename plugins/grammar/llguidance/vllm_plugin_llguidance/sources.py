"""Specifications in llguidance's notation, which is Lark with JSON schemas in it."""

from __future__ import annotations

import json
from typing import Any

from llguidance import StructTag, regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from vllm_core.interfaces.grammar import GrammarSpec

__all__ = ["source_of"]

# Else what must follow is allowed in one tokenization only, and that would not be the model's own.
HEAD = '%llguidance {"no_forcing": true}\n'


def source_of(spec: GrammarSpec) -> str:
    """``ValueError`` names what the library cannot do."""
    makers = {
        "json_schema": lambda: f"start: %json {_schema(json.loads(spec.text), spec)}",
        "json_object": lambda: f"start: %json {_schema({'type': 'object'}, spec)}",
        "regex": lambda: f"start: /{regex_to_lark(spec.text, '')}/",
        "choice": lambda: "start: " + " | ".join(map(json.dumps, json.loads(spec.text))),
        "ebnf": lambda: _grammar(spec.text),
        "structural_tag": lambda: _tags(spec),
    }
    if spec.kind not in makers:
        raise ValueError(f"llguidance has no {spec.kind}")
    return HEAD + makers[spec.kind]()


def _grammar(text: str) -> str:
    """Lark as it is, GBNF put into it."""
    try:
        return any_to_lark(text)
    except RecursionError:
        raise ValueError("the grammar is nested too deeply") from None
    except Exception as error:  # the converter is a script of the library's, and raises what it likes
        raise ValueError(f"the grammar is neither Lark nor GBNF: {error}") from error


def _schema(schema: Any, spec: GrammarSpec) -> str:
    if not isinstance(schema, dict):
        schema = {} if schema else {"not": {}}
    return json.dumps({**schema, "x-guidance": _json_options(spec)})


def _json_options(spec: GrammarSpec) -> Any:
    options: dict[str, Any] = {"json_allow_general_unicode_escapes": True, "whitespace_flexible": spec.any_whitespace}
    if spec.whitespace_pattern:
        options["whitespace_pattern"] = spec.whitespace_pattern
    elif not spec.any_whitespace:
        options |= {"item_separator": ", ", "key_separator": ": "}
    return options


def _tags(spec: GrammarSpec) -> str:
    """vLLM's older form: {"structures": [{"begin", "schema", "end"}], "triggers": [...]}."""
    told = json.loads(spec.text)
    if "structures" not in told:
        raise ValueError(
            'llguidance reads structural tags as {"structures": [...], "triggers": [...]}, and these have "format"'
        )
    if set(told) - {"structures", "triggers", "type"}:
        raise ValueError(f"a structural tag has structures and triggers, and no {', '.join(sorted(told))}")
    triggers, tags = told.get("triggers"), []
    if not isinstance(triggers, list) or not all(isinstance(t, str) and t for t in triggers):
        raise ValueError("a structural tag needs a list of triggers, which are texts")
    if not isinstance(told["structures"], list) or not told["structures"]:
        raise ValueError("a structural tag needs a list of structures")
    for structure in told["structures"]:
        if not isinstance(structure, dict) or not isinstance(structure.get("begin"), str):
            raise ValueError("a structure of a structural tag has begin (a text), schema (a table) and end (a text)")
        begin, schema, end = structure["begin"], structure.get("schema", {}), structure.get("end", "")
        trigger = next((t for t in triggers if begin.startswith(t)), None)
        if trigger is None or not isinstance(schema, dict) or not isinstance(end, str):
            raise ValueError(f"no trigger begins the structure {begin!r:.80}, or its schema is no table")
        tags.append(
            StructTag(trigger=trigger, begin=begin, grammar={**schema, "x-guidance": _json_options(spec)}, end=end)
        )
    return StructTag.to_grammar(tags, assume_special=False)
