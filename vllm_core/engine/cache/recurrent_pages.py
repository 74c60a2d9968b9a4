"""Pages of recurrent states: a ring that the running sequence uses, and checkpoints for others."""

from __future__ import annotations

from math import inf

from vllm_core.engine.cache.hashing import PrefixChain
from vllm_core.engine.cache.pool import PagePool
from vllm_core.engine.cache.sequence import CachedSequence, Table
from vllm_core.interfaces.cache import CacheGroup
from vllm_core.interfaces.steps import NULL_PAGE


class RecurrentPages:
    """A page holds one state. With K drafts and checkpoints every B tokens, a row's table is

        entries 0 to K      the ring: the state after n tokens is in entry n mod (K + 1)
        entry K + 1 + m     the checkpoint after (m + 1) * B tokens, or NULL_PAGE

    So a step that starts with n computed tokens reads its first state from entry n mod (K + 1),
    writes the state after each of its last K + 1 tokens to the ring, and that after a multiple
    of B also to its checkpoint unless that is NULL_PAGE. Whatever number of drafts is accepted,
    the right state is in the ring, and no host has to say where.

    A checkpoint is published and given up as soon as the host knows that it was passed: it costs
    the running sequence nothing, and the pool may evict it. It is left out when no page is free.
    """

    def __init__(self, group: CacheGroup, pool: PagePool, num_drafts: int) -> None:
        self.index = group.index
        self.block_size = group.block_size
        self.ring = 1 + num_drafts
        self._pool = pool

    def most(self, num_tokens: int, step_tokens: int, encoder_tokens: int) -> int:
        """Pages that a sequence cannot do without."""
        return self.ring

    # A sequence starts ----------------------------------------------------------------

    def longest_hit(self, chain: PrefixChain, limit: int) -> int:
        """The largest length up to ``limit`` that has a checkpoint."""
        for length in range(limit // self.block_size * self.block_size, 0, -self.block_size):
            if self._pool.find(self.index, chain.at(length)) is not None:
                return length
        return 0

    def adopt(self, seq: CachedSequence, length: int) -> Table:
        """An empty ring, and the checkpoint at ``length``, a hit, to be copied into it."""
        table = self._empty(seq, length)
        if length:
            assert seq.chain is not None
            page = self._pool.find(self.index, seq.chain.at(length))
            assert page is not None
            self._pool.share(page)
            table.source = page
        return table

    def inherit(self, table: Table, computed: int, length: int, in_flight: bool) -> Table | None:
        """Copy another sequence's present state; there is no other, and a step in flight replaces it."""
        if in_flight or length != computed:
            return None
        blocks = min(length // self.block_size, len(table.pages) - self.ring)
        child = Table([NULL_PAGE] * (self.ring + blocks), seen=blocks, first=blocks)
        if length:
            child.source = table.pages[length % self.ring]
            self._pool.share(child.source)
        return child

    def start_page(self, table: Table, length: int) -> int:
        """The page that the state after ``length`` tokens is read from."""
        return table.pages[length % self.ring]

    # A sequence runs ------------------------------------------------------------------

    def missing(self, seq: CachedSequence, table: Table, num_tokens: int) -> int:
        return self.ring if table.pages[0] == NULL_PAGE else 0

    def grow(self, seq: CachedSequence, table: Table, num_tokens: int, spare: int) -> tuple[int, list[int]]:
        """Fill the ring if it is empty; take up to ``spare`` pages for checkpoints, the last ones first."""
        first = len(table.pages)
        if table.pages[0] == NULL_PAGE:
            table.pages[: self.ring] = self._pool.take(self.ring)
            first = 0
        if seq.chain is not None:
            blocks = num_tokens // self.block_size - (len(table.pages) - self.ring)
            if blocks > 0:
                pages = self._pool.take(min(blocks, spare))
                table.pages += [NULL_PAGE] * (blocks - len(pages)) + pages
        return first, table.pages[first:]

    def room(self, seq: CachedSequence, table: Table) -> float:
        if seq.chain is None:
            return inf
        return (len(table.pages) - self.ring + 1) * self.block_size - 1

    def learn(self, seq: CachedSequence, table: Table, computed: int) -> tuple[int, int]:
        """Publish checkpoints that were passed; which table entries (first, count) can be given up."""
        passed = min(computed // self.block_size, len(table.pages) - self.ring)
        if seq.chain is not None:
            for block in range(table.seen, passed):
                page = table.pages[self.ring + block]
                if page != NULL_PAGE:
                    self._pool.publish(self.index, seq.chain.at((block + 1) * self.block_size), page)
        gone, table.seen, table.first = table.first, max(table.seen, passed), max(table.first, passed)
        return self.ring + gone, table.first - gone

    def next_event(self, seq: CachedSequence, table: Table) -> float:
        left = seq.chain is not None or table.seen < len(table.pages) - self.ring
        return (table.seen + 1) * self.block_size if left else inf

    def trim(self, table: Table, num_tokens: int) -> list[int]:
        """Nothing: the device would go on to write to checkpoints that were cut off."""
        return []

    def _empty(self, seq: CachedSequence, length: int) -> Table:
        blocks = length // self.block_size
        return Table([NULL_PAGE] * (self.ring + blocks), seen=blocks, first=blocks)
