"""All cache groups together: what a sequence needs in every one of them, or in none."""

from __future__ import annotations

from math import gcd, inf

from vllm_core.engine.cache.cross_pages import CrossPages
from vllm_core.engine.cache.hashing import PrefixChain
from vllm_core.engine.cache.pool import PagePool
from vllm_core.engine.cache.recurrent_pages import RecurrentPages
from vllm_core.engine.cache.sequence import CachedSequence, Growth, Table
from vllm_core.engine.cache.token_pages import TokenPages
from vllm_core.interfaces.cache import CacheGroup, CachePlan, CrossAttentionCache, RecurrentCache
from vllm_core.interfaces.steps import NULL_PAGE, PageCopy

GroupPages = TokenPages | RecurrentPages | CrossPages


def group_pages(group: CacheGroup, pool: PagePool, num_drafts: int) -> GroupPages:
    """The bookkeeping of a group, by the kind of its caches."""
    if isinstance(group.spec, RecurrentCache):
        return RecurrentPages(group, pool, num_drafts)
    if isinstance(group.spec, CrossAttentionCache):
        return CrossPages(group, pool)
    return TokenPages(group, pool)


def pages_of_sequence(
    plan: CachePlan, num_tokens: int, *, step_tokens: int, num_drafts: int = 0, encoder_tokens: int = 0
) -> int:
    """Pages that suffice for one sequence alone, with ``step_tokens`` in flight or being scheduled."""
    pool = PagePool(2, len(plan.groups))
    groups = [group_pages(group, pool, num_drafts) for group in plan.groups]
    return sum(group.most(num_tokens, step_tokens, encoder_tokens) for group in groups)


class CacheGroups:
    """One object per group, by kind. Methods take or give up pages in all groups at once."""

    def __init__(self, plan: CachePlan, pool: PagePool, *, max_tokens: int, num_drafts: int) -> None:
        self._pool = pool
        self.max_tokens = max_tokens
        self.all: list[GroupPages] = [group_pages(group, pool, num_drafts) for group in plan.groups]
        # Full attention first when looking for a prefix: it stops at the first miss and bounds the rest.
        self._searched = sorted(self.all, key=lambda g: not (isinstance(g, TokenPages) and g.window is None))
        self.unit = gcd(*(g.block_size for g in self.all if not isinstance(g, CrossPages))) or 1
        """Tokens between two names of a prefix."""

    def longest_hit(self, chain: PrefixChain, limit: int) -> int:
        """The longest prefix up to ``limit`` tokens from which every group can continue."""
        if all(isinstance(group, CrossPages) for group in self.all):
            return 0  # nothing of the sequence itself is kept
        length, agreed, i = limit, 0, 0
        while length and agreed < len(self._searched):
            found = self._searched[i % len(self._searched)].longest_hit(chain, length)
            agreed = agreed + 1 if found == length else 1
            length = found
            i += 1
        return length

    def adopt(self, seq: CachedSequence, length: int) -> list[Table]:
        """Tables for a sequence that continues from a hit."""
        return [group.adopt(seq, length) for group in self.all]

    def inherit(self, seq: CachedSequence, length: int, in_flight: bool) -> list[Table] | None:
        """Tables that share the first ``length`` tokens of a running sequence, or None."""
        assert seq.tables is not None
        tables: list[Table] = []
        for group, table in zip(self.all, seq.tables, strict=True):
            child = group.inherit(table, seq.computed, length, in_flight)
            if child is None:
                self.disown(tables)
                return None
            tables.append(child)
        return tables

    def disown(self, tables: list[Table]) -> None:
        """Undo ``adopt`` or ``inherit``: no step was launched with these tables."""
        for table in tables:
            pages = [*reversed(table.pages), table.source]
            self._pool.release(page for page in pages if page != NULL_PAGE)

    def missing(self, seq: CachedSequence, num_tokens: int) -> list[int]:
        """Pages that each group has to take so that ``num_tokens`` tokens have a place."""
        assert seq.tables is not None
        if num_tokens > self.max_tokens:
            raise ValueError(
                f"{num_tokens} tokens do not fit into a block table for {self.max_tokens} (max_model_len and drafts)"
            )
        return [group.missing(seq, table, num_tokens) for group, table in zip(self.all, seq.tables, strict=True)]

    def grow(self, seq: CachedSequence, num_tokens: int) -> list[Growth] | None:
        """Take the missing pages, or None and nothing was taken."""
        missing = self.missing(seq, num_tokens)
        spare = self._pool.num_free - sum(missing)  # may go into checkpoints
        if spare < 0:
            return None
        assert seq.tables is not None
        growths = []
        for group, table, least in zip(self.all, seq.tables, missing, strict=True):
            free = self._pool.num_free
            first, pages = group.grow(seq, table, num_tokens, spare)
            spare -= free - self._pool.num_free - least
            if pages:
                growths.append(Growth(group.index, first, list(pages)))
        self.note_room(seq)
        return growths

    def learn(self, seq: CachedSequence) -> list[int]:
        """Use ``seq.computed``: publish, note what is to be nulled, return the pages given up."""
        assert seq.tables is not None
        gone: list[int] = []
        for group, table in zip(self.all, seq.tables, strict=True):
            first, count = group.learn(seq, table, seq.computed)
            if count:
                gone += table.give_up(first, count)
                seq.nulls.append(Growth(group.index, first, [NULL_PAGE] * count))
        self.note_event(seq)
        return gone

    def trim(self, seq: CachedSequence, num_tokens: int) -> list[int]:
        """Cut off what was reserved beyond ``num_tokens``; the pages are still owned."""
        assert seq.tables is not None
        gone = [p for group, table in zip(self.all, seq.tables, strict=True) for p in group.trim(table, num_tokens)]
        self.note_room(seq)
        self.note_event(seq)
        return gone[::-1]

    def start_copies(self, tables: list[Table], length: int) -> list[PageCopy]:
        """Copies that tables which begin with a page of somebody else need; they take over its ownership."""
        copies = []
        for group, table in zip(self.all, tables, strict=True):
            if table.source != NULL_PAGE:
                copies.append(PageCopy(group.index, table.source, group.start_page(table, length)))
                table.source = NULL_PAGE
        return copies

    def encoder_cached(self, tables: list[Table]) -> bool:
        """Whether there are cross-attention pages and all are filled."""
        ready = [table.ready for group, table in zip(self.all, tables, strict=True) if isinstance(group, CrossPages)]
        return bool(ready) and all(ready)

    def note_room(self, seq: CachedSequence) -> None:
        """When the next ``reserve`` has something to do."""
        assert seq.tables is not None
        rooms = [group.room(seq, table) for group, table in zip(self.all, seq.tables, strict=True)]
        seq.room = int(min([self.max_tokens, *rooms]))

    def note_event(self, seq: CachedSequence) -> None:
        """When the next ``advance`` has something to do."""
        assert seq.tables is not None
        events = [group.next_event(seq, table) for group, table in zip(self.all, seq.tables, strict=True)]
        seq.next_event = min(events, default=inf)
