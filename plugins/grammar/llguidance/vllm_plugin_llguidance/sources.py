"""Specifications in llguidance's notations: its own JSON, and Lark."""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher, StructTag, grammar_from

from vllm_core.interfaces.grammar import GrammarSpec

__all__ = ["source_of"]

ANY_OBJECT = '{"type": "object"}'


def source_of(spec: GrammarSpec) -> str:
    """``ValueError`` names what the library cannot do."""
    if spec.kind in ("json_schema", "json_object"):
        text = spec.text if spec.kind == "json_schema" else ANY_OBJECT
        return LLMatcher.grammar_from_json_schema(text, overrides=_json_options(spec))
    if spec.kind == "regex":
        return LLMatcher.grammar_from_regex(spec.text)
    if spec.kind == "choice":
        choices = " | ".join(_literal(choice) for choice in json.loads(spec.text))
        return LLMatcher.grammar_from_lark(f"start: {choices}")
    if spec.kind == "ebnf":
        try:
            return grammar_from("grammar", spec.text)
        except RecursionError:
            raise ValueError("the grammar is nested too deeply") from None
    if spec.kind == "structural_tag":
        return _tags(spec)
    raise ValueError(f"llguidance has no {spec.kind}")


def _json_options(spec: GrammarSpec) -> Any:
    options: dict[str, Any] = {"json_allow_general_unicode_escapes": True, "whitespace_flexible": spec.any_whitespace}
    if spec.whitespace_pattern:
        options["whitespace_pattern"] = spec.whitespace_pattern
    elif not spec.any_whitespace:
        options |= {"item_separator": ", ", "key_separator": ": "}
    return options


def _literal(text: str) -> str:
    """A text as Lark writes it."""
    return json.dumps(text, ensure_ascii=True)


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
