"""A model split over ranks computes what the reference does: pipeline stages, tensor ranks, and both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from vllm_core.distributed.layout import Layout
from vllm_core.interfaces.executor import Capacity
from vllm_core.interfaces.steps import StepPlan
from vllm_core.layers.shards import CannotSplit
from vllm_core.runner.runner import Runner
from vllm_core.testing.case import Case
from vllm_core.testing.rank_threads import make_runners
from vllm_core.testing.ranks import Ranks
from vllm_core.testing.served import Row, Served

__all__ = ["SPLITS", "RankModes", "SplitServed"]

SPLITS = {
    "two pipeline stages": Layout(pp=2),
    "two tensor ranks": Layout(tp=2),
    "two stages of two tensor ranks": Layout(tp=2, pp=2),
}
FIRST, *_, LAST = SPLITS


class SplitServed(Served):
    """The model over ranks, which are threads of this process with gloo between them."""

    def __init__(self, case: Case, layout: Layout) -> None:
        self.layout = layout
        assert case.reference  # the checkpoint is written
        split = {"tensor_parallel_size": layout.tp, "pipeline_parallel_size": layout.pp}
        super().__init__(case.folder, dtype=case.dtype, device=case.device, block_size=case.block_size, settings=split)

    def load(self) -> tuple[Sequence[Runner], Capacity]:
        self.ranks = Ranks(self.layout)
        try:
            made = make_runners(self.resolved.build, self.ranks)
        except BaseException:
            self.ranks.close()
            raise
        return [runner for runner, _ in made], made[self.layout.speaker][1]

    def logits(self, plan: StepPlan) -> Tensor:
        found = self.ranks.run(lambda rank, _: self.runners[rank].forward_logits(plan))
        last = found[self.layout.speaker :]
        assert all(torch.equal(one, last[0]) for one in last), "ranks of one stage have different logits"
        return last[0]

    def close(self) -> None:
        self.ranks.close()


class RankModes:
    """Test of the base variant over each of ``SPLITS``, and of each other variant over the last.

    A variant whose sizes do not allow so many ranks is compared over two stages, and skipped with the reason.
    """

    @classmethod
    def splits(cls, variants: Sequence[str], base: str) -> list[tuple[str, str]]:
        """(variant, split)"""
        return [(base, split) for split in SPLITS] + [(variant, LAST) for variant in variants]

    def test_split_over_ranks_it_computes_the_same(self, cases: Any, split: tuple[str, str]) -> None:
        """Chunks of a prompt, others' prompts beside it, a prefix in another's pages, single tokens."""
        name, how = split
        self.needs("ranks")  # type: ignore[attr-defined]
        case: Case = cases[name]
        try:
            _compare(case, how)
        except CannotSplit as error:
            agree = ""
            if how == LAST:
                _compare(case, FIRST)
                agree = f"; {FIRST} agree"
            pytest.skip(f"{name}, {how}: {error}{agree}")


def _compare(case: Case, how: str) -> None:
    served = SplitServed(case, SPLITS[how])
    try:
        _steps(case, served, how)
    finally:
        served.close()


def _steps(case: Case, served: SplitServed, how: str) -> None:
    a, b = (served.row(case.prompt(n, seed)) for n, seed in ((40, 0), (33, 1)))

    def step(*work: tuple[Row, int]) -> None:
        for (row, tokens), got in zip(work, served.step(work), strict=True):
            case.agree(got, row, f"over {how}, {tokens} tokens from position {row.computed - tokens} on")

    step((a, 32))
    shared = served.shareable(a)
    c = served.row(a.ids[:shared] + case.prompt(9, seed=2), prefix_of=a, shared=shared)
    step((b, 21), (a, 1), (c, 5))
    step((a, 1), (b, 11), (c, 4))
    step((b, 1), (a, 6))
    served.release(a, b, c)
