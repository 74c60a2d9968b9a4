"""Pages of caches that grow with the sequence: full attention, sliding windows, latents."""

from __future__ import annotations

from math import inf

from vllm_core.engine.cache.hashing import PrefixChain
from vllm_core.engine.cache.pool import PagePool
from vllm_core.engine.cache.sequence import CachedSequence, Table
from vllm_core.interfaces.cache import CacheGroup, SlidingWindowCache
from vllm_core.interfaces.steps import NULL_PAGE


class TokenPages:
    """Block i holds tokens ``[i * block_size, (i + 1) * block_size)``.

    With a window of W tokens, the query at position p reads positions p - W + 1 to p, so blocks
    that end before ``computed - W + 1`` are never read again.
    """

    def __init__(self, group: CacheGroup, pool: PagePool) -> None:
        self.index = group.index
        self.block_size = group.block_size
        self.window = group.spec.window if isinstance(group.spec, SlidingWindowCache) else None
        self._pool = pool

    def first_needed(self, computed: int) -> int:
        """The first block that a query at position ``computed`` or later reads."""
        return 0 if self.window is None else max(0, computed - self.window + 1) // self.block_size

    def blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def most(self, num_tokens: int, step_tokens: int, encoder_tokens: int) -> int:
        """Pages that a sequence owns at most, when ``step_tokens`` are in flight or being scheduled."""
        if self.window is None:
            return self.blocks(num_tokens)
        return min(self.blocks(num_tokens), self.blocks(self.window - 1 + step_tokens) + 2)

    # A sequence starts ----------------------------------------------------------------

    def longest_hit(self, chain: PrefixChain, limit: int) -> int:
        """The largest length up to ``limit`` at which all blocks still needed can be found."""
        size = self.block_size
        if self.window is None:
            return size * len(self._pool.find_run(self.index, chain.every(size, limit)))
        end = limit // size  # blocks; the first end - 1 of a run that reaches back far enough
        while end > 0:
            block = end - 1
            first = self.first_needed(end * size)
            while block >= first and self._find(chain, (block + 1) * size) is not None:
                block -= 1
            if block < first:
                return end * size
            end = block
        return 0

    def adopt(self, seq: CachedSequence, length: int) -> Table:
        """A table whose blocks before ``length``, a hit, are found pages."""
        end, first = length // self.block_size, self.first_needed(length)
        table = Table([NULL_PAGE] * min(first, end), seen=end, first=min(first, end))
        if first < end:
            assert seq.chain is not None
            pages = self._pool.find_run(self.index, seq.chain.every(self.block_size, length)[first:])
            assert len(pages) == end - first
            for page in pages:
                self._pool.share(page)
            table.pages += pages
        return table

    def inherit(self, table: Table, computed: int, length: int, in_flight: bool) -> Table | None:
        """A table that shares the blocks of another sequence and copies its partial one."""
        first = self.first_needed(length)
        if table.first > first:
            return None  # the window at this length was given up already
        end = length // self.block_size
        first = min(first, end)
        child = Table([NULL_PAGE] * first + table.pages[first:end], seen=min(table.seen, end), first=first)
        if length % self.block_size:
            child.source = table.pages[end]
        for page in (*child.pages[first:], child.source):
            if page != NULL_PAGE:
                self._pool.share(page)
        return child

    def start_page(self, table: Table, length: int) -> int:
        """The page that the token at position ``length`` is written to."""
        return table.pages[length // self.block_size]

    # A sequence runs ------------------------------------------------------------------

    def missing(self, seq: CachedSequence, table: Table, num_tokens: int) -> int:
        """Pages that must be taken so that ``num_tokens`` tokens have a place."""
        return max(0, self.blocks(num_tokens) - len(table.pages))

    def grow(self, seq: CachedSequence, table: Table, num_tokens: int, spare: int) -> tuple[int, list[int]]:
        """Take the missing pages; the first new block and its pages."""
        first = len(table.pages)
        pages = self._pool.take(self.missing(seq, table, num_tokens))
        table.pages += pages
        return first, pages

    def room(self, seq: CachedSequence, table: Table) -> float:
        return len(table.pages) * self.block_size

    def learn(self, seq: CachedSequence, table: Table, computed: int) -> tuple[int, int]:
        """Publish blocks that became full; which blocks (first, count) can be given up."""
        full = computed // self.block_size
        if seq.chain is not None:
            for block in range(max(table.seen, table.first), full):
                self._pool.publish(self.index, seq.chain.at((block + 1) * self.block_size), table.pages[block])
        table.seen = full
        gone, table.first = table.first, max(table.first, self.first_needed(computed))
        return gone, table.first - gone

    def next_event(self, seq: CachedSequence, table: Table) -> float:
        if self.window is None:
            return inf if seq.chain is None else (table.seen + 1) * self.block_size
        return (table.seen + 1) * self.block_size  # windows are looked at when a block is full, too

    def trim(self, table: Table, num_tokens: int) -> list[int]:
        """Cut off blocks reserved beyond ``num_tokens``; their pages are still owned."""
        keep = self.blocks(num_tokens)
        pages = table.pages[keep:]
        del table.pages[keep:]
        return pages

    def _find(self, chain: PrefixChain, length: int) -> int | None:
        return self._pool.find(self.index, chain.at(length))
