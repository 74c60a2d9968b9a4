"""What a collective computes: sums as in float64 and the same on every rank, or the ranks' tensors side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from vllm_core.testing.asked import Asked
from vllm_core.testing.collective_members import Members, parts_of
from vllm_core.testing.kernel_case import raw

USUAL = ((1, 64), (7, 576), (64, 128))
ODD = ((1,), (3,), (5, 7), (17,), (127,), (3, 1, 5), (1023,), (2, 577), (4099,))
MOST = 1 << 21  # elements, up to which the largest tensor that is taken is looked for


class CollectiveResults:
    """Each test has a group of ranks of its own."""

    op: ClassVar[str]
    tolerance: ClassVar[Mapping[str, float]]
    cannot: ClassVar[Mapping[str, str]]
    members: Any

    def test_results_are_right_and_the_same_on_every_rank(self, asked: Asked, world: int, dtype: str) -> None:
        """Tensors of usual sizes must be taken; odd ones, empty ones and parts of others unless ``cannot`` says why."""
        with self.members(asked, world, dtype) as group:
            for seed, shape in enumerate(USUAL):
                used = self._agrees(group, parts_of(shape, group.dtype, world, seed), f"{list(shape)}")
                assert used, f"{list(shape)} of {dtype} is not taken over {world} ranks: it would never be used"
            for what, shapes in (("odd sizes", ODD), ("empty", ((0,), (0, 64)))):
                taken = [
                    shape
                    for shape in shapes
                    if self._agrees(group, parts_of(shape, group.dtype, world), f"{list(shape)}")
                ]
                self._as_said(what, len(taken), len(shapes))
            parts = [x.t() for x in parts_of((6, 10), group.dtype, world)]
            wide = [x[:, 3:9] for x in parts_of((6, 10), group.dtype, world)]
            self._as_said("strided", sum(self._agrees(group, x, "strided") for x in (parts, wide)), 2)

    def test_the_largest_tensor_that_is_taken_is_right(self, asked: Asked, world: int) -> None:
        with self.members(asked, world) as group:
            fits, beyond = 1, MOST
            while beyond - fits > 1:
                middle = (fits + beyond) // 2
                if group.takes(torch.zeros(middle, dtype=group.dtype)):
                    fits = middle
                else:
                    beyond = middle
            for count in {fits, fits - 1}:
                if group.takes(torch.zeros(count, dtype=group.dtype)):
                    self._agrees(group, parts_of((count,), group.dtype, world), f"{count:,} numbers")

    def test_what_is_no_number_stays_so(self, asked: Asked, world: int) -> None:
        """And infinities, and sums too large for the dtype."""
        with self.members(asked, world) as group:
            odd = [torch.nan, torch.inf, -torch.inf, torch.finfo(group.dtype).max, 0.0, 1.0, 2.0, 3.0]
            parts = [torch.tensor(odd * 8, dtype=group.dtype) for _ in range(world)]
            if not group.takes(parts[0]):
                pytest.skip("64 numbers are not taken")
            want = torch.stack(parts).double().sum(0).to(group.dtype) if self.op == "all_reduce" else torch.cat(parts)
            for got in group.call(parts):
                assert raw(got.nan_to_num(7.0)) == raw(want.nan_to_num(7.0)), (
                    f"{got[:8].tolist()} instead of {want[:8].tolist()}"
                )

    def test_tensors_are_joined_along_any_dimension(self, asked: Asked, world: int) -> None:
        if self.op != "all_gather":
            pytest.skip("a sum has no dimension")
        with self.members(asked, world) as group:
            for dim in (0, 1, 2, -1, -2):
                parts = parts_of((3, 4, 8), group.dtype, world, seed=dim + 9)
                if group.takes(parts[0]):
                    for got in group.call(parts, dim):
                        assert torch.equal(got, torch.cat(parts, dim)), f"joined along {dim}, ranks' tensors are wrong"

    def test_what_a_rank_gave_is_its_own_again(self, asked: Asked, world: int) -> None:
        """Ranks overwrite it as soon as the call returns, whoever else still reads; and results stay as they are."""
        with self.members(asked, world) as group:
            calls = [parts_of((5, 64), group.dtype, world, seed) for seed in range(40)]

            def work(rank: int, member: Any) -> list[Tensor]:
                found = []
                for parts in calls:
                    x = group.placed(parts[rank], rank)
                    got = member(x, dim=0)
                    found.append(got.cpu().clone())
                    x.fill_(torch.nan)
                return found

            for rank, found in enumerate(group.together(work)):
                for number, got in enumerate(found):
                    wrong = self._differs(group, calls[number], got)
                    assert not wrong, f"call {number} on rank {rank}, whose ranks overwrite what they gave: {wrong}"

            def keep(rank: int, member: Any) -> list[bytes]:
                first = member(group.placed(calls[0][rank], rank), dim=0)
                kept = raw(first)
                for parts in calls[1:4]:
                    member(group.placed(parts[rank], rank), dim=0)
                return [kept, raw(first)]

            for kept, later in group.together(keep):
                assert kept == later, "a result is overwritten by later calls"

    def test_a_call_never_waits_for_the_device(self, asked: Asked, world: int) -> None:
        if asked.torch_device.type != "cuda":
            pytest.skip("needs a CUDA device: on a CPU every operation waits")
        with self.members(asked, world) as group:
            parts = parts_of((7, 576), group.dtype, world)
            group.call(parts)

            def work(rank: int, member: Any) -> None:
                x = group.placed(parts[rank], rank)
                torch.cuda.synchronize(rank)
                member(x, dim=0)

            torch.cuda.set_sync_debug_mode("error")
            try:
                group.together(work)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    def _agrees(self, group: Members, parts: Sequence[Tensor], what: str) -> bool:
        """Whether it is taken; fails if then it is wrong."""
        __tracebackhide__ = True
        if not group.takes(parts[0]):
            return False
        found = group.call(parts)
        for rank, got in enumerate(found):
            wrong = self._differs(group, parts, got)
            assert not wrong, f"{what} of {group.query.dtype} over {group.world} ranks: rank {rank} has {wrong}"
            assert raw(got) == raw(found[0]), f"{what} over {group.world} ranks: ranks 0 and {rank} have different bits"
        return True

    def _differs(self, group: Members, parts: Sequence[Tensor], got: Tensor) -> str:
        shape = parts[0].shape if self.op == "all_reduce" else torch.cat(list(parts)).shape
        if (got.dtype, got.shape) != (group.dtype, shape):
            return f"{got.dtype} {list(got.shape)}, should have {group.dtype} {list(shape)}"
        if self.op == "all_gather":
            return "" if torch.equal(got, torch.cat(list(parts))) else "other tensors than the ranks gave"
        exact = torch.stack([part.double() for part in parts])
        off = (got.double() - exact.sum(0)).abs()
        bad = ~(off <= self.tolerance[group.query.dtype] * exact.abs().sum(0) + 1e-30)
        return f"{int(bad.sum())} of {bad.numel()} sums that are not those of float64" if bad.any() else ""

    def _as_said(self, what: str, taken: int, of: int) -> None:
        if what in self.cannot:
            assert taken < of, f"`cannot` lists {what!r}, and all of it is taken: take it off the list"
        else:
            assert taken == of, (
                f"{of - taken} of {of} tensors of {what} are not taken, and go to another collective\n"
                f"  instead if that is right, cannot = {{{what!r}: why}}"
            )
