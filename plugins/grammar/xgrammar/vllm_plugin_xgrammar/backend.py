"""``GrammarBackend`` over XGrammar. It compiles in a process apart: some specifications take it hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vllm_core.interfaces.grammar import GrammarSpec, Vocabulary
from vllm_plugin_xgrammar.compiler import XGrammarCompiler, tokenizer_info

__all__ = ["XGrammar", "XGrammarState"]


class XGrammar:
    """``restore`` reads what the process apart has compiled. The library is imported with the first instance: its
    package brings torch and transformers.
    """

    apart = True
    compiler = "vllm_plugin_xgrammar.compiler:XGrammarCompiler"

    def __init__(self, vocabulary: Vocabulary, options: Mapping[str, Any]) -> None:
        import xgrammar as xg

        self.vocabulary, self._options, self._xg = vocabulary, options, xg
        self._info = tokenizer_info(xg, vocabulary)

    def compile(self, spec: GrammarSpec) -> XCompiled:
        """In this process and without a limit of time: for tests."""
        return self._compiled(XGrammarCompiler(self.vocabulary, self._options).compile(spec))

    def restore(self, data: bytes) -> XCompiled:
        return self._compiled(self._xg.CompiledGrammar.deserialize_json(data.decode(), self._info))

    def _compiled(self, compiled: Any) -> XCompiled:
        return XCompiled(compiled, self._xg.GrammarMatcher, self.vocabulary)


class XCompiled:
    """compiled, matcher   the library's ``CompiledGrammar`` and ``GrammarMatcher``"""

    def __init__(self, compiled: Any, matcher: Any, vocabulary: Vocabulary) -> None:
        self._compiled, self._matcher, self._vocabulary = compiled, matcher, vocabulary
        self.nbytes: int = compiled.memory_size_bytes

    def start(self) -> XGrammarState:
        return XGrammarState(self._matcher(self._compiled), self._vocabulary)


class XGrammarState:
    """``interfaces.grammar.Grammar``."""

    def __init__(self, matcher: Any, vocabulary: Vocabulary) -> None:
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
