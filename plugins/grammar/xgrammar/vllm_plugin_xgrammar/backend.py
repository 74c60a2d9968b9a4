"""``GrammarBackend`` over XGrammar. It compiles in a process apart: some specifications take it hours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xgrammar as xg

from vllm_core.interfaces.grammar import GrammarSpec, Vocabulary
from vllm_plugin_xgrammar.regex import check_regex
from vllm_plugin_xgrammar.schema import check_schema, with_lengths

__all__ = ["XGrammar", "XGrammarState"]


class XGrammar:
    """``export`` compiles, ``restore`` reads the result back; the library's own cache is off."""

    apart = True

    def __init__(self, vocabulary: Vocabulary, options: Mapping[str, Any]) -> None:
        self.vocabulary = vocabulary
        pieces = list(vocabulary.token_bytes)
        for token in vocabulary.stop_ids:
            pieces[token] = b""  # never text of an output
        self._info = xg.TokenizerInfo(
            pieces, xg.VocabType.RAW, vocab_size=vocabulary.size, stop_token_ids=list(vocabulary.stop_ids)
        )

    def compile(self, spec: GrammarSpec) -> XCompiled:
        """In this process and without a limit of time: for tests."""
        return XCompiled(self._compile(spec), self.vocabulary)

    def export(self, spec: GrammarSpec) -> bytes:
        return self._compile(spec).serialize_json().encode()

    def restore(self, data: bytes) -> XCompiled:
        return XCompiled(xg.CompiledGrammar.deserialize_json(data.decode(), self._info), self.vocabulary)

    def _compile(self, spec: GrammarSpec) -> xg.CompiledGrammar:
        compiler = xg.GrammarCompiler(self._info, max_threads=1, cache_enabled=False)
        try:
            return _compile(compiler, spec)
        except (RuntimeError, TypeError) as error:
            raise ValueError(_short(str(error))) from error


class XCompiled:
    def __init__(self, compiled: xg.CompiledGrammar, vocabulary: Vocabulary) -> None:
        self._compiled, self._vocabulary = compiled, vocabulary
        self.nbytes: int = compiled.memory_size_bytes

    def start(self) -> XGrammarState:
        return XGrammarState(xg.GrammarMatcher(self._compiled), self._vocabulary)


class XGrammarState:
    """``interfaces.grammar.Grammar``."""

    def __init__(self, matcher: xg.GrammarMatcher, vocabulary: Vocabulary) -> None:
        self._matcher, self._size = matcher, vocabulary.size

    @property
    def finished(self) -> bool:
        return self._matcher.is_terminated()

    def accept(self, ids: Sequence[int]) -> int:
        for i, token in enumerate(ids):
            if self._matcher.is_terminated() or not self._matcher.accept_token(token):
                return i
        return len(ids)

    def rollback(self, count: int) -> None:
        if count:
            self._matcher.rollback(count)

    def fill(self, mask: np.ndarray) -> None:
        self._matcher.fill_next_token_bitmask(mask.reshape(1, -1))
        if self._size % 32:
            mask[-1] &= np.int32((1 << (self._size % 32)) - 1)


def _compile(compiler: xg.GrammarCompiler, spec: GrammarSpec) -> xg.CompiledGrammar:
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
