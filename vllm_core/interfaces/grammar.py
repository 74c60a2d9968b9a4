"""The contract of grammar backends: which tokens may come next. Works on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
import msgspec
import numpy as np

KINDS = ("json_schema", "json_object", "regex", "choice", "ebnf", "structural_tag")
"""What a specification can be."""


class GrammarSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an output must conform to. Equal ones share what was compiled.

    text   json_schema: the schema, as JSON; json_object: ""; regex: the expression, which the whole output
           matches; choice: a JSON list of texts; ebnf: a grammar in one of the backend's notations;
           structural_tag: JSON
    """

    kind: str
    text: str = ""
    fallback: bool = True  # whether a backend may be asked that is not the best one
    any_whitespace: bool = True  # False: JSON as ``json.dumps`` writes it, with a space behind comma and colon
    whitespace_pattern: str = ""  # regular expression of the white space in JSON; "": the backend's


@attrs.frozen(kw_only=True)
class Vocabulary:
    """What a grammar must know of a tokenizer. Plain data, so that it can be sent to another process."""

    size: int  # of the logits; may be more than the tokenizer has tokens
    token_bytes: Sequence[bytes]  # [size], what each id adds to the text; b"" for special tokens and unused ids
    stop_ids: tuple[int, ...]  # end a text
    special: Mapping[int, str] = attrs.field(factory=dict)  # special tokens by id, as the tokenizer writes them

    @property
    def words(self) -> int:
        """int32 numbers in a mask."""
        return -(-self.size // 32)


class Grammar(Protocol):
    """The state of one output in a compiled grammar. Used from one thread at a time."""

    @property
    def finished(self) -> bool:
        """A stop id was accepted; nothing may follow."""

    def accept(self, ids: Sequence[int]) -> int:
        """Advance by ids; returns how many were allowed. State stays after the last allowed one."""

    def rollback(self, count: int) -> None:
        """Take back the last ``count`` accepted ids (guesses); never more than 256 at once."""

    def fill(self, mask: np.ndarray) -> None:
        """Set the mask of the next id: int32 [ceil(V / 32)], bit i % 32 of word i // 32, 1: allowed.

        Every word is written. Stop ids are allowed where the text may end, and there only; ids without bytes and
        those at and above the tokenizer's size are not, unless the grammar names special tokens. Not asked once
        ``finished``.
        """


class CompiledGrammar(Protocol):
    """Shared by all requests with the same specification."""

    def start(self) -> Grammar:
        """A grammar in its first state. Called for every output, in the thread of the steps: it must be quick."""


class GrammarBackend(Protocol):
    """Made once an engine and used from several threads: ``Target(vocabulary, options)``, of the offer.

    ``apart``: whether it compiles in a process of its own, because its library cannot be held to a time limit.
    Then that process makes a ``GrammarCompiler``, and this one calls ``restore``. Otherwise ``compile`` is called, in
    a thread, and keeps a limit of its own that a step can wait for: it cannot be interrupted. Limits of time, and the
    cache of what was compiled, are the core's.

    A server makes the best backend of each kind, and all those processes, before a request needs them. Others are
    asked for ``apart`` and ``compiler`` only, so their module should not import much.
    """

    apart: bool
    compiler: str  # "module:Name" of the compiler, where it is ``apart``; left out: the class itself is one

    def __init__(self, vocabulary: Vocabulary, options: Mapping[str, Any]) -> None: ...

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        """``ValueError`` says what in the specification is wrong or cannot be done, and where."""

    def restore(self, data: bytes) -> CompiledGrammar:
        """What the other process exported. It is trusted as far as the library's own checks go."""


class GrammarCompiler(Protocol):
    """Of a backend that compiles apart, made there with the same arguments. What its module imports is waited for."""

    def __init__(self, vocabulary: Vocabulary, options: Mapping[str, Any]) -> None: ...

    def export(self, spec: GrammarSpec) -> bytes:
        """What ``restore`` needs. ``ValueError`` as in ``compile``."""
