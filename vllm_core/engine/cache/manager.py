"""The cache manager: which pages each sequence has, in every cache group. Host bookkeeping only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from vllm_core.engine.cache.audit import check_cache
from vllm_core.engine.cache.copies import PendingCopies
from vllm_core.engine.cache.fence import Fence
from vllm_core.engine.cache.groups import CacheGroups
from vllm_core.engine.cache.hashing import ExtraKey
from vllm_core.engine.cache.longest import longest_sequence
from vllm_core.engine.cache.pool import PagePool
from vllm_core.engine.cache.registry import Registry
from vllm_core.engine.cache.sequence import Admission, CachedSequence, Growth, SeqId, Table
from vllm_core.engine.cache.stats import CacheStats
from vllm_core.interfaces.cache import CachePlan
from vllm_core.interfaces.steps import NULL_PAGE, PageCopy


class CacheManager:
    """The text of ``vllm_core.engine.cache`` says in which order a scheduler makes these calls."""

    def __init__(
        self, plan: CachePlan, num_pages: int, *, max_model_len: int, prefix_caching: bool = True, num_drafts: int = 0
    ) -> None:
        self.pool = PagePool(num_pages, len(plan.groups))
        self.fence = Fence(self.pool)
        self.copies = PendingCopies(self.pool, self.fence)
        self.groups = CacheGroups(plan, self.pool, max_tokens=max_model_len + num_drafts, num_drafts=num_drafts)
        self.prefix_caching = prefix_caching
        self.sequences = Registry(self.groups.unit)
        self._queries = self._hits = 0

    # ---- a sequence comes and goes

    def open(
        self,
        seq_id: SeqId,
        tokens: Sequence[int],
        *,
        salt: bytes = b"",
        extra_keys: Iterable[ExtraKey] = (),
        encoder_tokens: int = 0,
        encoder_key: bytes = b"",
        share_prefix: bool = True,
        read_prefix: bool = True,
    ) -> None:
        """Make a sequence known. It owns nothing yet.

        salt            Only sequences with the same salt share prefixes.
        extra_keys      Adapters and media that the cache's content depends on.
        encoder_tokens  Length of the encoder's output, for cross-attention.
        encoder_key     Identifies that output. Without it the sequence shares nothing.
        share_prefix    False: neither finds nor leaves cached prefixes. ``read_prefix`` False: only leaves them.
        """
        shares = self.prefix_caching and share_prefix and not (encoder_tokens and not encoder_key)
        seq = CachedSequence(tokens, salt, tuple(extra_keys), encoder_tokens, encoder_key, shares, reads=read_prefix)
        seq.chain = self.sequences.new_chain(seq)
        self.sequences.add(seq_id, seq)

    def admit(
        self, seq_id: SeqId, budget: int = 0, *, parent_id: SeqId | None = None, shared: int = 0, lookahead: int = 0
    ) -> Admission | None:
        """Start a waiting sequence: at least one of its tokens is left to compute.

        parent_id  A running sequence with the same salt and extra keys whose first ``shared`` tokens are the same:
                   what it has computed of them is shared, as far as it is there and more than a cached prefix gives.
        lookahead  Tokens behind its last one that get a place too, if the budget reaches that one.
        """
        seq = self.sequences[seq_id]
        limit = len(seq.tokens) - 1
        if seq.tables is not None or limit < 0:
            raise ValueError(f"sequence {seq_id!r} " + ("has no tokens" if limit < 0 else "was admitted already"))
        parent = None if parent_id is None else self.sequences.running(parent_id)
        own = 0 if parent is None else seq.learn_names(parent, min(parent.computed, shared, limit))
        reads = seq.chain is not None and seq.reads
        found = self.groups.longest_hit(seq.chain, limit) if reads else 0  # type: ignore[arg-type]
        if parent is not None and own > found and (tables := self._inherit(parent, own)) is not None:
            if parent.chain is None:
                seq.chain = None  # it would name what stands on entries that must not be found
            return self._place(seq_id, seq, tables, own, budget, lookahead)
        admission = self._place(seq_id, seq, self.groups.adopt(seq, found), found, budget, lookahead)
        if admission is not None and reads:
            self._queries, self._hits = self._queries + limit, self._hits + found
        return admission

    def fork(self, parent_id: SeqId, child_id: SeqId, tokens: Sequence[int], budget: int = 0) -> Admission | None:
        """Open and admit ``child_id``, whose ``tokens`` begin with all that its parent has computed.

        It continues where the host knows its parent to be, unless that state is gone or about to
        be overwritten (a recurrent state with a step in flight). None: the child is open and waits.
        """
        of = self.sequences.running(parent_id)
        child = CachedSequence(tokens, of.salt, of.extras, of.encoder_tokens, of.encoder_key, of.shares)
        child.chain = self.sequences.new_chain(child)
        self.sequences.add(child_id, child)
        return self.admit(child_id, budget, parent_id=parent_id, shared=len(tokens))

    def rollback(self, seq_id: SeqId, num_computed: int, budget: int = 0) -> Admission | None:
        """Make a sequence continue from ``num_computed`` entries at most, as a new ``RowInit`` says.

        None: too few free pages; the sequence has been released and waits for ``admit``.
        """
        seq = self.sequences.running(seq_id)
        if not 0 <= num_computed <= min(seq.computed, len(seq.tokens) - 1):
            raise ValueError(
                f"sequence {seq_id!r} cannot go back to {num_computed} computed tokens: "
                f"it has {seq.computed}, and one of its {len(seq.tokens)} tokens must be left to compute"
            )
        tables = self._inherit(seq, num_computed)
        self.release(seq_id)
        if seq.chain is not None:
            seq.chain.truncate(num_computed)
        if tables is None:
            return self.admit(seq_id, budget)
        return self._place(seq_id, seq, tables, num_computed, budget)

    def release(self, seq_id: SeqId) -> None:
        """Give up all pages; the sequence waits again."""
        seq = self.sequences[seq_id]
        if seq.tables is None:
            return
        self.copies.cancel(seq_id)
        for table in seq.tables:
            # The end of a prefix is of no use without its beginning: evict it first.
            self.fence.release([page for page in reversed(table.pages) if page != NULL_PAGE], seq.last_step)
        self.sequences.reset(seq)

    def close(self, seq_id: SeqId) -> None:
        """Give up all pages and forget the sequence."""
        self.release(seq_id)
        del self.sequences[seq_id]

    # ---- a sequence runs

    def reserve(self, seq_id: SeqId, num_tokens: int) -> list[Growth] | None:
        """A place for ``num_tokens`` tokens in all groups, or None and nothing is taken."""
        seq = self.sequences[seq_id]
        growths: list[Growth] | None = []
        if num_tokens > seq.room:
            growths = self.groups.grow(self.sequences.running(seq_id), num_tokens)
        if seq.nulls and growths is not None:
            growths, seq.nulls = seq.nulls + growths, []
        return growths

    def can_reserve(self, seq_id: SeqId, num_tokens: int) -> bool:
        seq = self.sequences.running(seq_id)
        return num_tokens <= seq.room or sum(self.groups.missing(seq, num_tokens)) <= self.pool.num_free

    def advance(self, seq_id: SeqId, num_computed: int) -> None:
        """The host knows that entries of the first ``num_computed`` tokens, and those ids, are there."""
        seq = self.sequences[seq_id]
        if seq.computed <= num_computed < seq.next_event:
            seq.computed = num_computed
            return
        self.sequences.running(seq_id)
        if not seq.computed <= num_computed <= min(seq.room, len(seq.tokens)):
            raise ValueError(
                f"sequence {seq_id!r} cannot have {num_computed} computed tokens: it had {seq.computed}, "
                f"{len(seq.tokens)} tokens are known and {seq.room} have a place"
            )
        seq.computed = num_computed
        self.fence.release(self.groups.learn(seq), seq.last_step)

    def trim(self, seq_id: SeqId, num_tokens: int) -> None:
        """Give back what was reserved beyond ``num_tokens``, which no step in flight may exceed."""
        seq = self.sequences.running(seq_id)
        if num_tokens < seq.computed:
            raise ValueError(f"sequence {seq_id!r} has {seq.computed} computed tokens, more than {num_tokens}")
        self.fence.release(self.groups.trim(seq, num_tokens), seq.last_step)

    # ---- steps

    def take_copies(self) -> list[PageCopy]:
        """Copies that the next step must make before anything else."""
        return self.copies.take()

    def launched(self, step: int, seq_ids: Iterable[SeqId]) -> None:
        """The step was launched with these sequences."""
        self.fence.launch(step)
        for seq_id in chain(seq_ids, self.copies.launched(step)):
            self.sequences[seq_id].last_step = step

    def retired(self, step: int) -> None:
        """All steps up to this one have ended on every device."""
        self.fence.retire(step)

    # ---- the whole

    @property
    def num_free(self) -> int:
        """Pages that can be taken now, those of cached prefixes included."""
        return self.pool.num_free

    @property
    def num_waiting(self) -> int:
        """Pages given up, but still in reach of launched steps (shared ones are counted too)."""
        return self.fence.num_waiting

    @property
    def usage(self) -> float:
        """Share of the pages that are not free, 0 to 1."""
        return 1 - self.pool.num_free / (self.pool.num_pages - 1)

    def most_pages(self, num_tokens: int, step_tokens: int, encoder_tokens: int = 0) -> int:
        """Pages that suffice for one sequence alone, with ``step_tokens`` in flight or being scheduled.

        A request for which this exceeds ``pool.num_pages - 1`` may never finish.
        """
        return sum(group.most(num_tokens, step_tokens, encoder_tokens) for group in self.groups.all)

    def longest_sequence(self, step_tokens: int, limit: int) -> int:
        """The most tokens, up to ``limit``, of a sequence that has all pages for itself."""
        return longest_sequence(lambda tokens: self.most_pages(tokens, step_tokens), self.pool.num_pages - 1, limit)

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes. What now runs leaves none behind."""
        self.sequences.begin_anew()
        self.pool.forget_all()

    def stats(self) -> CacheStats:
        return CacheStats(queries=self._queries, hits=self._hits, evictions=self.pool.evictions)

    def check(self) -> None:
        """Assert every invariant: no page is leaked, lost, or owned by whom it was not given to."""
        check_cache(self)

    def _inherit(self, seq: CachedSequence, length: int) -> list[Table] | None:
        tables = self.groups.inherit(seq, length, in_flight=seq.last_step > self.fence.retired)
        if tables is not None:
            self.copies.look_through(tables)
        return tables

    def _place(
        self, seq_id: SeqId, seq: CachedSequence, tables: list[Table], length: int, budget: int, lookahead: int = 0
    ) -> Admission | None:
        """Start a sequence from tables that hold ``length`` tokens; None undoes that."""
        seq.tables, seq.computed = tables, length
        end = length + budget if length + budget < len(seq.tokens) else len(seq.tokens) + lookahead
        if self.groups.grow(seq, min(end, self.groups.max_tokens)) is None:
            self.groups.disown(tables)
            self.sequences.reset(seq)
            return None
        self.groups.note_event(seq)
        for copy in self.groups.start_copies(tables, length):
            self.copies.add(seq_id, copy)
        filled = self.groups.encoder_cached(tables)
        return Admission(num_computed=length, pages=[list(table.pages) for table in tables], encoder_cached=filled)
