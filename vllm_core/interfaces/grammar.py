"""The contract of grammar backends: which tokens may come next. Works on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs
import numpy as np

from vllm_core.interfaces.tokenizer import Tokenizer


@attrs.frozen(kw_only=True)
class Vocabulary:
    """What a grammar must know of a tokenizer."""

    size: int  # of the logits; ids at and above the tokenizer's own size are never allowed
    token_bytes: Sequence[bytes]  # what each id adds to the text; b"" for special tokens
    stop_ids: tuple[int, ...]
    tokenizer: Tokenizer


class Grammar(Protocol):
    """The state of one request in a compiled grammar."""

    @property
    def finished(self) -> bool:
        """The grammar allows nothing more but a stop token."""

    def accept(self, ids: Sequence[int]) -> int:
        """Advance by ids; returns how many were allowed. State stays after the last allowed one."""

    def rollback(self, count: int) -> None:
        """Take back the last ``count`` accepted ids (rejected drafts). At least 32 are kept."""

    def fill(self, mask: np.ndarray) -> None:
        """Set the mask of the next id: int32 [ceil(V / 32)], bit i % 32 of word i // 32, 1: allowed."""

    def forced(self) -> Sequence[int]:
        """Ids that must follow whatever is sampled, () if there is a choice."""


class GrammarBackend(Protocol):
    """Made once an engine. ``compile`` runs in a thread pool, several at a time."""

    def __init__(self, vocabulary: Vocabulary) -> None: ...

    def compile(self, kind: str, specification: str) -> Grammar:
        """A new grammar in its first state; equal specifications may share what was compiled.

        ``ValueError`` says what in the specification is wrong or cannot be done, and where.
        """
