"""What the process apart makes: it compiles, and exports what it has compiled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vllm_core.interfaces.grammar import GrammarSpec, Vocabulary
from vllm_plugin_xgrammar.bare import Library, load_bare
from vllm_plugin_xgrammar.regex import check_regex
from vllm_plugin_xgrammar.schema import check_schema, with_lengths

__all__ = ["XGrammarCompiler", "tokenizer_info"]


class XGrammarCompiler:
    """The library's own cache is off: the core has one."""

    def __init__(self, vocabulary: Vocabulary, options: Mapping[str, Any]) -> None:
        self._library = load_bare()
        self._info = tokenizer_info(self._library, vocabulary)

    def export(self, spec: GrammarSpec) -> bytes:
        return self.compile(spec).serialize_json().encode()

    def compile(self, spec: GrammarSpec) -> Any:
        """The library's ``CompiledGrammar``."""
        compiler = self._library.GrammarCompiler(self._info, max_threads=1, cache_enabled=False)
        try:
            return _compile(compiler, spec)
        except (RuntimeError, TypeError) as error:
            raise ValueError(_short(str(error))) from error


def tokenizer_info(library: Library | Any, vocabulary: Vocabulary) -> Any:
    pieces = list(vocabulary.token_bytes)
    for token in vocabulary.stop_ids:
        pieces[token] = b""  # never text of an output
    return library.TokenizerInfo(
        pieces, library.VocabType.RAW, vocab_size=vocabulary.size, stop_token_ids=list(vocabulary.stop_ids)
    )


def _compile(compiler: Any, spec: GrammarSpec) -> Any:
    if spec.kind in ("json_schema", "json_object"):
        if spec.whitespace_pattern:
            raise ValueError("xgrammar has no whitespace_pattern")
        text = '{"type": "object"}'
        if spec.kind == "json_schema":
            schema = json.loads(spec.text)
            check_schema(schema)
            text = json.dumps(with_lengths(schema))
        return compiler.compile_json_schema(text, any_whitespace=spec.any_whitespace, strict_mode=False)
    if spec.kind == "regex":
        check_regex(spec.text)
        return compiler.compile_regex(spec.text)
    if spec.kind == "choice":
        return compiler.compile_grammar("root ::= " + " | ".join(map(_literal, json.loads(spec.text))))
    if spec.kind == "ebnf":
        return compiler.compile_grammar(spec.text) if "::=" in spec.text else compiler.compile_lark(spec.text)
    if spec.kind == "structural_tag":
        return compiler.compile_structural_tag(_tags(json.loads(spec.text)))
    raise ValueError(f"xgrammar has no {spec.kind}")


def _literal(text: str) -> str:
    """A text in EBNF: every character that could mean something there by its number."""
    return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in text) + '"'


def _tags(told: dict[str, Any]) -> str:
    """The library's own form; vLLM's older one, {"structures": [...], "triggers": [...]}, is put into it."""
    if "structures" not in told:
        return json.dumps(told)
    tags = [
        {
            "begin": structure["begin"],
            "content": {"type": "json_schema", "json_schema": structure.get("schema", {})},
            "end": structure.get("end", ""),
        }
        for structure in told["structures"]
        if isinstance(structure, dict) and isinstance(structure.get("begin"), str)
    ]
    if not tags or len(tags) != len(told["structures"]):
        raise ValueError("a structure of a structural tag has begin (a text), schema (a table) and end (a text)")
    form = {"type": "triggered_tags", "triggers": told.get("triggers", []), "tags": tags}
    return json.dumps({"type": "structural_tag", "format": form})


def _short(error: str) -> str:
    """Without the place in the library's source."""
    return " ".join(error.partition(".cc:")[2].partition(" ")[2].split() or error.split())[:500]
