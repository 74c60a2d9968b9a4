"""What compiles grammars, made when it is first needed: vocabulary, backends, and the processes of some."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from vllm_core.engine.choose_grammars import GrammarBackendChoice, GrammarChoices
from vllm_core.engine.grammar_apart import ApartCompiler, compiler_of, is_apart
from vllm_core.engine.vocabulary import vocabulary_of
from vllm_core.interfaces.grammar import Vocabulary
from vllm_core.plugin import load_target

__all__ = ["GrammarBackends"]

log = logging.getLogger(__name__)

Text = Any  # engine.build.Text


class GrammarBackends:
    """Safe from several threads: the second one waits until the first has made it."""

    def __init__(self) -> None:
        self._open_text: Callable[[], Text] | None = None
        self._vocab_size = 0
        self._text: Text = None
        self._vocabulary: Vocabulary | None = None
        self._backends: dict[str, Any] = {}  # by target
        self._apart: dict[str, ApartCompiler] = {}
        self._opening, self._making = threading.RLock(), threading.RLock()
        self._closed = False

    def opens(self, text: Callable[[], Text], vocab_size: int) -> None:
        """Where tokenizer and parsers come from when they are first needed. ``vocab_size``: of the logits."""
        self._open_text, self._vocab_size = text, vocab_size

    @property
    def text(self) -> Text:
        if self._text is None:
            with self._opening:
                if self._text is None:
                    if self._open_text is None:
                        raise ValueError("grammars need the tokenizer, and this engine was built without one")
                    self._text = self._open_text()
        return self._text

    @property
    def vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            text = self.text
            with self._opening:
                if self._vocabulary is None:
                    self._vocabulary = vocabulary_of(text.tokenizer, self._vocab_size, text.eos_token_ids)
        return self._vocabulary

    def backend(self, choice: GrammarBackendChoice) -> Any:
        """``interfaces.grammar.GrammarBackend``."""
        vocabulary = self.vocabulary
        with self._making:
            if choice.target not in self._backends:
                self._backends[choice.target] = load_target(choice.target)(vocabulary, dict(choice.options))
            return self._backends[choice.target]

    def compiler(self, choice: GrammarBackendChoice) -> ApartCompiler:
        """Of one that compiles apart. Its process has begun to start, and nobody has waited for it."""
        vocabulary = self.vocabulary
        with self._making:
            found = self._apart.get(choice.target)
            if found is None:
                found = ApartCompiler(compiler_of(choice.target), vocabulary, choice.options)
                self._apart[choice.target] = found
                threading.Thread(target=found.begin, daemon=True, name="vllm-core-grammar-start").start()
            return found

    def warm(self, choices: GrammarChoices, vocabulary: Vocabulary, reasons: bool) -> None:
        """Make what most requests need, and all processes. What fails is told again to the request that needs it."""
        with self._opening:
            self._vocabulary = self._vocabulary or vocabulary
        first = {backends[0].target for backends in choices.backends.values()}
        found = {choice.target: choice for backends in choices.backends.values() for choice in backends}
        for choice in found.values():
            try:
                if not self._closed and is_apart(choice.target):
                    self.compiler(choice)
                if not self._closed and choice.target in first:
                    self.backend(choice)
            except Exception as error:
                log.warning("%s cannot be used: %s: %s", choice.label, type(error).__name__, error)
        if reasons and not self._closed:
            _ = self.text

    def close(self) -> None:
        """End the processes. Safe to call twice."""
        self._closed = True
        for compiler in list(self._apart.values()):
            compiler.close()
