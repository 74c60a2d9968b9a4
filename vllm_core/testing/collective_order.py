"""What order does to a collective: of ranks, of calls, of rows in a batch."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest
import torch

from vllm_core.testing.asked import Asked
from vllm_core.testing.collective_members import Members, parts_of
from vllm_core.testing.kernel_case import raw

CALLS = 150
LATE = 0.01  # seconds by which a rank comes after the one before it


class CollectiveOrder:
    """Tests of calls one after the other."""

    op: ClassVar[str]
    members: Any

    def test_calls_one_after_the_other_do_not_mix(self, group: Members) -> None:
        def work(rank: int, member: Any) -> list[Any]:
            found = []
            for i in range(CALLS):
                numbers = torch.full((64 * (1 + i // 2 % 9),), float(i % 50 * (rank + 1)), dtype=group.dtype)
                found.append(set(member(group.placed(numbers, rank), dim=0).cpu().tolist()))
            return found

        world = group.world
        for rank, found in enumerate(group.together(work)):
            for i, got in enumerate(found):
                ones = [float(torch.tensor(i % 50 * (r + 1)).to(group.dtype)) for r in range(world)]
                want = {float(torch.tensor(sum(ones)).to(group.dtype))} if self.op == "all_reduce" else set(ones)
                assert got == want, f"call {i} gives rank {rank} {sorted(got)[:4]}, should give {sorted(want)}"

    def test_ranks_that_come_late_are_waited_for(self, group: Members) -> None:
        """Each rank in turn is the last."""

        def work(rank: int, member: Any) -> list[bytes]:
            found = []
            for turn in range(2 * group.world):
                x = group.placed(parts_of((3, 64), group.dtype, group.world, turn)[rank], rank)
                time.sleep(LATE * ((rank + turn) % group.world))
                found.append(raw(member(x, dim=0)))
            return found

        def at_once(rank: int, member: Any) -> list[bytes]:
            turns = range(2 * group.world)
            parts = [parts_of((3, 64), group.dtype, group.world, turn)[rank] for turn in turns]
            return [raw(member(group.placed(x, rank), dim=0)) for x in parts]

        found, want = group.together(work), group.together(at_once)
        assert found == want, "results differ from those of ranks that come together"

    def test_two_of_a_group_do_not_meet(self, group: Members) -> None:
        """An engine may make several, in the same order on every rank."""
        first, second = group.each, group.make()
        parts = [parts_of((3, 64), group.dtype, group.world, seed) for seed in (1, 2, 3)]

        def work(rank: int, _: Any) -> list[bytes]:
            order = (first, second, first)
            return [raw(each[rank](group.placed(x[rank], rank), dim=0)) for each, x in zip(order, parts, strict=True)]

        found = group.together(work)
        want = [raw(group.call(x)[0]) for x in parts]
        assert all(got == want for got in found), "calls of one collective reach another of the same group"

    def test_sums_are_torchs_in_the_order_of_ranks_if_so_declared(self, asked: Asked, world: int, dtype: str) -> None:
        """Larger tensors go to the next collective, and a token's sum may not depend on how many stand beside it.

        Bit for bit, of offers with the capability "batch_invariant": whoever sums, all do it in one order.
        """
        with self._invariant(asked, world, dtype) as group:
            for seed, shape in enumerate(((1, 64), (9, 257), (64, 128))):
                parts = parts_of(shape, group.dtype, world, seed)
                if group.takes(parts[0]):
                    want = group.in_order(parts)
                    for rank, got in enumerate(group.call(parts)):
                        assert raw(got) == raw(want), (
                            f"{list(shape)}: rank {rank} has other bits than torch.distributed in the order of ranks,"
                            ' and the offer declares "batch_invariant"'
                        )

    def test_a_rows_sum_is_the_same_in_any_batch_if_so_declared(self, asked: Asked, world: int, dtype: str) -> None:
        with self._invariant(asked, world, dtype) as group:
            parts = parts_of((64, 128), group.dtype, world, seed=5)
            whole = group.call(parts)[0]
            for start, stop in ((0, 1), (63, 64), (17, 40), (1, 64)):
                rows = [part[start:stop].contiguous() for part in parts]
                if group.takes(rows[0]):
                    assert raw(group.call(rows)[0]) == raw(whole[start:stop]), (
                        f"rows {start} to {stop} alone have other bits than among 64, and the offer declares"
                        ' "batch_invariant"'
                    )

    def _invariant(self, asked: Asked, world: int, dtype: str) -> Members:
        group: Members = self.members(asked, world, dtype)
        if self.op != "all_reduce" or "batch_invariant" not in group.offer.capabilities:
            group.close()
            pytest.skip('no sum, or the offer does not declare "batch_invariant"')
        return group
