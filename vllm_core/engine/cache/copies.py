"""Page copies that the next step has to make: copy on write, and states copied from checkpoints."""

from __future__ import annotations

from vllm_core.engine.cache.fence import Fence
from vllm_core.engine.cache.pool import PagePool
from vllm_core.engine.cache.sequence import SeqId
from vllm_core.interfaces.steps import PageCopy


class PendingCopies:
    """Owns the source of every copy until the step that makes it has retired."""

    def __init__(self, pool: PagePool, fence: Fence) -> None:
        self._pool = pool
        self._fence = fence
        self.planned: list[tuple[SeqId, PageCopy]] = []  # waiting for a step
        self.taken: list[PageCopy] = []  # part of a step that is not launched yet

    def add(self, seq_id: SeqId, copy: PageCopy) -> None:
        """``seq_id`` owns the target; the source passes into our hands."""
        self.planned.append((seq_id, copy))

    def cancel(self, seq_id: SeqId) -> None:
        """The sequence gives up its pages before any step was launched with its copies."""
        if not self.planned:
            return
        self._pool.release([copy.source for owner, copy in self.planned if owner == seq_id])
        self.planned = [entry for entry in self.planned if entry[0] != seq_id]

    def take(self) -> list[PageCopy]:
        copies = [copy for _, copy in self.planned]
        self.taken += copies
        self.planned = []
        return copies

    def launched(self, step: int) -> None:
        if self.planned:
            raise RuntimeError(f"step {step} was launched without {len(self.planned)} page copies: call take_copies()")
        if self.taken:
            self._fence.release([copy.source for copy in self.taken], step)
            self.taken = []

    def sources(self) -> list[int]:
        """Every page owned here, once per ownership."""
        return [copy.source for _, copy in self.planned] + [copy.source for copy in self.taken]
