"""The sequences that a cache manager knows, and how their prefixes are named."""

from __future__ import annotations

from vllm_core.engine.cache.hashing import ExtraKey, PrefixChain
from vllm_core.engine.cache.sequence import CachedSequence, SeqId


class Registry(dict[SeqId, CachedSequence]):
    """Sequences by id."""

    def __init__(self, unit: int) -> None:
        super().__init__()
        self._unit = unit  # tokens between two names of a prefix

    def __missing__(self, seq_id: SeqId) -> CachedSequence:
        raise KeyError(f"sequence {seq_id!r} is not open: open() it first, and do not use it after close()")

    def running(self, seq_id: SeqId) -> CachedSequence:
        seq = self[seq_id]
        if seq.tables is None:
            raise ValueError(f"sequence {seq_id!r} has no pages: admit() it first (it is new or was released)")
        return seq

    def add(self, seq_id: SeqId, seq: CachedSequence) -> None:
        if seq_id in self:
            raise ValueError(f"sequence {seq_id!r} is open already")
        self[seq_id] = seq

    def new_chain(self, seq: CachedSequence) -> PrefixChain | None:
        if not seq.shares:
            return None
        # A decoder's cache depends on what the encoder said.
        media = (ExtraKey(b"encoder:" + seq.encoder_key),) if seq.encoder_tokens else ()
        return PrefixChain(self._unit, seq.tokens, salt=seq.salt, extras=seq.extras + media)

    def reset(self, seq: CachedSequence) -> None:
        """The sequence has no pages and waits."""
        seq.tables, seq.computed, seq.room, seq.next_event, seq.nulls = None, 0, 0, 0, []
        seq.chain = seq.chain or self.new_chain(seq)

    def begin_anew(self) -> None:
        """What now runs leaves no prefixes behind until it is admitted again."""
        for seq in self.values():
            seq.chain = self.new_chain(seq) if seq.tables is None else None
