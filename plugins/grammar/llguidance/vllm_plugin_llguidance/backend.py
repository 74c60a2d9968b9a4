"""``GrammarBackend`` over llguidance, whose own limits end what would run away: no process apart is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from vllm_core.interfaces.grammar import GrammarSpec, Vocabulary
from vllm_plugin_llguidance.sources import source_of
from vllm_plugin_llguidance.tokens import Tokens

__all__ = ["LLGrammar", "LLGuidance"]

LIMITS = {
    "initial_lexer_fuel": 1_000_000,  # about 20 ms
    "step_lexer_fuel": 200_000,  # about 15 ms
    "step_max_items": 50_000,  # about 3 ms
    "max_items_in_row": 2_000,
    "max_lexer_states": 50_000,  # 1 to 2 KiB each
    "max_grammar_size": 250_000,
}
"""The library's defaults, less memory. Times as its documentation has them."""


class LLGuidance:
    """Compiles in the thread that asks; the library gives the interpreter's lock back meanwhile."""

    apart = False

    def __init__(self, vocabulary: Vocabulary, options: Mapping[str, Any]) -> None:
        self.vocabulary = vocabulary
        self._tokenizer = LLTokenizer(Tokens(vocabulary), vocabulary.size, list(vocabulary.stop_ids))
        self._limits = LLParserLimits(verbose_errors=False, **LIMITS)

    def compile(self, spec: GrammarSpec) -> LLCompiled:
        matcher = LLMatcher(self._tokenizer, source_of(spec), log_level=0, limits=self._limits)
        if matcher.is_error():
            raise ValueError(_short(matcher.get_error()))
        return LLCompiled(matcher, self.vocabulary)

    def restore(self, data: bytes) -> LLCompiled:
        raise NotImplementedError("it compiles where it is used")


class LLCompiled:
    """A matcher in its first state, which is copied for every output."""

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def start(self) -> LLGrammar:
        return LLGrammar(self._matcher.deep_copy(), self._vocabulary)


class LLGrammar:
    """The library counts a stop token as consumed where the text may end; this remembers it instead."""

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary) -> None:
        self._matcher = matcher
        self._stops = frozenset(vocabulary.stop_ids)
        self._words = vocabulary.words
        self._only_stops = np.zeros(self._words, dtype=np.uint32)
        for token in vocabulary.stop_ids:
            self._only_stops[token // 32] |= np.uint32(1 << (token % 32))
        self._over = False

    @property
    def finished(self) -> bool:
        return self._over

    def accept(self, ids: Sequence[int]) -> int:
        for i, token in enumerate(ids):
            if self._over:
                return i
            if token in self._stops:
                if not self._matcher.is_accepting():
                    return i
                self._over = True
            elif self._matcher.try_consume_tokens([token]) != 1:
                self._check()
                return i
        return len(ids)

    def rollback(self, count: int) -> None:
        if count and self._over:
            self._over, count = False, count - 1
        if count and not self._matcher.rollback(count):
            self._check()

    def fill(self, mask: np.ndarray) -> None:
        bits = mask.view(np.uint32)
        if self._matcher.is_stopped() and not self._matcher.is_error():
            bits[:] = self._only_stops
            return
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._check()
        # The library has one end of text; all of them mean the same here.
        bits &= ~self._only_stops
        if self._matcher.is_accepting():
            bits |= self._only_stops

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ValueError(f"llguidance gave up: {_short(self._matcher.get_error())}")


def _short(error: str) -> str:
    return " ".join(error.replace("<non-verbose/>", "").split())[:500]
