"""Page copies that the next step has to make: copy on write, and states copied from checkpoints."""

from __future__ import annotations

from vllm_core.engine.cache.fence import Fence
from vllm_core.engine.cache.pool import PagePool
from vllm_core.engine.cache.sequence import SeqId, Table
from vllm_core.interfaces.steps import PageCopy


class PendingCopies:
    """Owns the source of every copy until the step that makes it has retired."""

    def __init__(self, pool: PagePool, fence: Fence) -> None:
        self._pool = pool
        self._fence = fence
        self.planned: list[tuple[SeqId, PageCopy]] = []  # waiting for a step
        self.taken: list[tuple[SeqId, PageCopy]] = []  # part of a step that is not launched yet

    def add(self, seq_id: SeqId, copy: PageCopy) -> None:
        """``seq_id`` owns the target; the source passes into our hands."""
        self.planned.append((seq_id, copy))

    def look_through(self, tables: list[Table]) -> None:
        """Tables that begin with a page still to be filled begin with its original instead.

        So a step's copies do not depend on each other, and each can be cancelled alone.
        """
        originals = {copy.target: copy.source for _, copy in self.planned}
        for table in tables:
            original = originals.get(table.source)
            if original is not None:
                self._pool.share(original)
                self._pool.release([table.source])
                table.source = original

    def cancel(self, seq_id: SeqId) -> None:
        """The sequence gives up its pages before any step was launched with its copies."""
        if not self.planned:
            return
        self._pool.release([copy.source for owner, copy in self.planned if owner == seq_id])
        self.planned = [entry for entry in self.planned if entry[0] != seq_id]

    def take(self) -> list[PageCopy]:
        copies, self.planned = self.planned, []
        self.taken += copies
        return [copy for _, copy in copies]

    def launched(self, step: int) -> list[SeqId]:
        """The step makes the copies taken; the sequences that own their targets."""
        if self.planned:
            raise RuntimeError(f"step {step} was launched without {len(self.planned)} page copies: call take_copies()")
        copies, self.taken = self.taken, []
        self._fence.release([copy.source for _, copy in copies], step)
        return [seq_id for seq_id, _ in copies]

    def sources(self) -> list[int]:
        """Every page owned here, once per ownership."""
        return [copy.source for _, copy in self.planned + self.taken]
