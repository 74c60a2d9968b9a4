"""Steps by hand for an executor that has started: rows with pages of their own, greedy, one after another."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vllm_core.interfaces.executor import Capacity
from vllm_core.interfaces.steps import RowInit, RowSampling, StepPlan

__all__ = ["ByHand", "HandRow"]


@attrs.define(eq=False)
class HandRow:
    """A row that runs: its known tokens, and how many of them are computed."""

    number: int
    ids: list[int]
    pages: list[list[int]]  # of each cache group, enough for all that will come
    computed: int = 0
    taken: bool = False


class ByHand:
    """``longest``: tokens of a sequence, for which each row gets pages at once."""

    def __init__(self, capacity: Capacity, longest: int, first_step: int = 0) -> None:
        self.capacity, self.longest, self.step = capacity, longest, first_step
        self._page = 1
        self.rows: list[HandRow] = []

    def add(self, ids: Sequence[int]) -> HandRow:
        pages = []
        for group in self.capacity.caches.groups:
            count = -(-self.longest // group.block_size)
            pages.append(list(range(self._page, self._page + count)))
            self._page += count
        assert self._page <= self.capacity.num_pages, "the kit needs more pages than the executor has"
        self.rows.append(HandRow(len(self.rows), list(ids), pages))
        return self.rows[-1]

    def plan(self, rows: Sequence[HandRow]) -> StepPlan:
        """The prompts of rows that have not run, the next token of others; all sample."""
        tokens = [len(row.ids) if not row.taken else 1 for row in rows]
        inits = [
            RowInit(
                row=row.number, token_ids=list(row.ids), num_computed=0, pages=row.pages, num_prompt=len(row.ids),
                sampling=RowSampling(temperature=0.0),
            )
            for row in rows
            if not row.taken
        ]  # fmt: skip
        for row, count in zip(rows, tokens, strict=True):
            row.taken = True
            row.computed += count
        made = StepPlan(
            step=self.step, inits=inits, growths=[], copies=[], rows=[row.number for row in rows], num_tokens=tokens,
            num_drafts=[0] * len(rows), samples=[True] * len(rows), kv_bounds=[row.computed for row in rows],
        )  # fmt: skip
        self.step += 1
        return made

    def impossible(self) -> StepPlan:
        """For a row that no executor has: it fails where the step is run, whatever the device."""
        made = StepPlan(
            step=self.step, inits=[], growths=[], copies=[], rows=[self.capacity.max_rows + 91], num_tokens=[1],
            num_drafts=[0], samples=[True], kv_bounds=[1],
        )  # fmt: skip
        self.step += 1
        return made

    def again(self, row: HandRow, ids: Sequence[int]) -> None:
        """The row is taken anew, with these tokens known."""
        row.ids, row.computed, row.taken = list(ids), 0, False
