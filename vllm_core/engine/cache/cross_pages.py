"""Pages of cross-attention: the encoder's output, written once, of known length."""

from __future__ import annotations

from hashlib import sha256
from math import inf
from struct import pack

from vllm_core.engine.cache.hashing import PrefixChain
from vllm_core.engine.cache.pool import PagePool
from vllm_core.engine.cache.sequence import CachedSequence, Table
from vllm_core.interfaces.cache import CacheGroup


class CrossPages:
    """Block i holds encoder positions ``[i * block_size, (i + 1) * block_size)``.

    All blocks are taken when the sequence starts. They are found again by the media's key, all
    or none, and do not limit how much of the decoder's prefix can be reused.
    """

    def __init__(self, group: CacheGroup, pool: PagePool) -> None:
        self.index = group.index
        self.block_size = group.block_size
        self._pool = pool

    def blocks(self, encoder_tokens: int) -> int:
        return -(-encoder_tokens // self.block_size)

    def most(self, num_tokens: int, step_tokens: int, encoder_tokens: int) -> int:
        return self.blocks(encoder_tokens)

    # A sequence starts ----------------------------------------------------------------

    def longest_hit(self, chain: PrefixChain, limit: int) -> int:
        return limit

    def adopt(self, seq: CachedSequence, length: int) -> Table:
        """The pages of the same media, if all of them can be found."""
        if seq.chain is None:
            return Table()
        pages = []
        for name in self._names(seq):
            page = self._pool.find(self.index, name)
            if page is None:
                return Table()
            pages.append(page)
        for page in pages:
            self._pool.share(page)
        return Table(pages, ready=True)

    def inherit(self, table: Table, computed: int, length: int, in_flight: bool) -> Table | None:
        """Share all pages, if they are known to be filled."""
        if not table.ready:
            return None
        for page in table.pages:
            self._pool.share(page)
        return Table(list(table.pages), ready=True)

    def start_page(self, table: Table, length: int) -> int:
        raise RuntimeError("cross-attention pages are never copied")

    # A sequence runs ------------------------------------------------------------------

    def missing(self, seq: CachedSequence, table: Table, num_tokens: int) -> int:
        return self.blocks(seq.encoder_tokens) - len(table.pages)

    def grow(self, seq: CachedSequence, table: Table, num_tokens: int, spare: int) -> tuple[int, list[int]]:
        first = len(table.pages)
        pages = self._pool.take(self.missing(seq, table, num_tokens))
        table.pages += pages
        return first, pages

    def room(self, seq: CachedSequence, table: Table) -> float:
        return inf

    def learn(self, seq: CachedSequence, table: Table, computed: int) -> tuple[int, int]:
        """A decoder token was computed, so the encoder has run: publish."""
        if not table.ready:
            table.ready = True
            if seq.chain is not None:
                for name, page in zip(self._names(seq), table.pages, strict=True):
                    self._pool.publish(self.index, name, page)
        return 0, 0

    def next_event(self, seq: CachedSequence, table: Table) -> float:
        return inf if table.ready else seq.computed + 1

    def trim(self, table: Table, num_tokens: int) -> list[int]:
        return []

    def _names(self, seq: CachedSequence) -> list[bytes]:
        root = pack("<QQ", seq.encoder_tokens, len(seq.salt)) + seq.salt + seq.encoder_key
        return [sha256(pack("<Q", i) + root).digest() for i in range(self.blocks(seq.encoder_tokens))]
