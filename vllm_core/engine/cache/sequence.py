"""What the cache manager remembers of one sequence."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import attrs

from vllm_core.engine.cache.hashing import ExtraKey, PrefixChain
from vllm_core.interfaces.steps import NULL_PAGE

SeqId = Hashable


class Growth(NamedTuple):
    """New table entries of one sequence: ``PageGrowth(row, *growth)`` sends them to its row."""

    group: int
    first_block: int
    pages: list[int]  # NULL_PAGE where a page was given up


@attrs.frozen(kw_only=True)
class Admission:
    """Where a sequence starts, for ``RowInit``."""

    num_computed: int  # tokens whose cache entries are there
    pages: list[list[int]]  # per cache group, in block order
    encoder_cached: bool = False  # cross-attention pages are filled: the encoder need not run


@attrs.define(slots=True)
class Table:
    """A sequence's pages in one group. Entry i is the page of block i, or NULL_PAGE."""

    pages: list[int] = attrs.field(factory=list)
    seen: int = 0  # blocks up to here have got their names, as far as they get any
    first: int = 0  # blocks before this one have been given up
    source: int = NULL_PAGE  # an owned page whose content the start page needs: to be copied
    ready: bool = False  # cross-attention: the encoder's output is in the pages

    def give_up(self, first: int, count: int) -> list[int]:
        """Null ``count`` blocks from ``first`` on and return their pages, which are still owned."""
        pages = [page for page in self.pages[first : first + count] if page != NULL_PAGE]
        self.pages[first : first + count] = [NULL_PAGE] * count
        return pages


@attrs.define(slots=True, eq=False)
class CachedSequence:
    """``tables`` is None while the sequence waits; then it owns no page."""

    tokens: Sequence[int]  # the engine's own list
    salt: bytes
    extras: tuple[ExtraKey, ...]
    encoder_tokens: int
    encoder_key: bytes
    shares: bool  # finds and leaves cached prefixes
    reads: bool = attrs.field(default=True, kw_only=True)  # False: only leaves them
    chain: PrefixChain | None = None  # None: its blocks get no names
    tables: list[Table] | None = None
    computed: int = 0  # tokens whose entries the host knows to be there
    room: int = 0  # tokens up to here have a place in every group
    next_event: float = 0  # learning less than this many computed tokens changes nothing
    last_step: int = -1  # the newest step launched with it
    nulls: list[Growth] = attrs.field(factory=list)  # entries to be nulled on the device

    def learn_names(self, other: CachedSequence, length: int) -> int:
        """Take over the names of the first ``length`` tokens, which are the same there; returns the length."""
        if self.chain is not None and other.chain is not None:
            self.chain.learn(other.chain, length)
        return length
