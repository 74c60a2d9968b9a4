"""What a kernel computes: the op's meaning in float64, for every size and dtype that it offers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from vllm_core.testing.asked import Asked
from vllm_core.testing.kernel_case import LAYOUTS, PROMISED, Call, OpCase, Want
from vllm_core.testing.kernel_run import REFUSALS, Made, Outcome

THREADS = 4


class KernelResults:
    """Each test makes its own kernels through the plugin's offer."""

    made: Any
    bound: Any
    each: Any
    served: Any

    def test_results_are_those_of_float64(self, asked: Asked, case: tuple[OpCase, str]) -> None:
        made = self.made(asked, *case)
        for tokens in made.case.tokens:
            call = made.a_call(tokens)
            self._right(made, made.run(call), f"{tokens} tokens")

    def test_rows_that_lie_elsewhere_are_read_or_refused(self, asked: Asked, op: str) -> None:
        """Parts of wider tensors are read where an op's contract promises it; other layouts may be refused."""
        for made in self.each(asked, op):
            promised = set(made.case.promised)
            for argument in sorted(promised | set(made.case.strided)):
                for how in LAYOUTS:
                    what = f"argument {argument} as {how}"
                    try:
                        outcome, refusal = made.run(made.a_call(7, seed=1), {argument: how}), None
                    except REFUSALS as error:
                        outcome, refusal = None, f"({type(error).__name__}: {error})"
                    if outcome is not None:
                        self._right(made, outcome, what)
                        continue
                    assert argument not in promised or how not in PROMISED, (
                        f"{made.case}: {what} is refused {refusal}, which the op's contract promises to callers"
                    )

    def test_no_row_shows_in_another(self, asked: Asked, op: str) -> None:
        """Rows of NaN beside a row leave it as it is."""
        for made in [made for made in self.each(asked, op) if made.case.rows]:
            call = made.a_call(7, seed=2)
            spoilt = [x.clone() if isinstance(x, torch.Tensor) else x for x in call.args]
            for i in made.case.rows:
                if spoilt[i].is_floating_point():
                    spoilt[i][::2] = torch.nan
            outcome = made.run(Call(args=tuple(spoilt), kwargs=call.kwargs, wants=call.wants, free=call.free))
            for number, (want, got) in enumerate(zip(call.wants, outcome.results, strict=True)):
                room = None if want.room is None else want.room[1::2]
                wrong = Want(value=want.value[1::2], room=room).differs(got[1::2], self._tolerance(made, want))
                assert not wrong, f"{made.case}: beside rows of NaN result {number} {wrong}"

    def test_a_row_is_the_same_in_any_batch_if_so_declared(self, asked: Asked, op: str) -> None:
        """Bit for bit, of offers with the capability "batch_invariant"."""
        found = [made for made in self.each(asked, op) if made.case.rows]
        kernels = [made for made in found if "batch_invariant" in made.offer.capabilities]
        if not kernels:
            pytest.skip('no offer declares "batch_invariant", or no row of this op has a result of its own')
        for made in kernels:
            tokens = max(made.case.tokens)
            whole = made.a_call(tokens, seed=3)
            together = made.run(whole).results
            for start, stop in ((0, 1), (tokens - 1, tokens), (tokens // 3, tokens // 2), (0, tokens // 2)):
                args = tuple(x[start:stop] if i in made.case.rows else x for i, x in enumerate(whole.args))
                alone = made.run(Call(args=args, kwargs=whole.kwargs)).results
                for number, (a, b) in enumerate(zip(alone, together, strict=True)):
                    assert torch.equal(a.nan_to_num(), b[start:stop].nan_to_num()), (
                        f"{made.case}: result {number} of rows {start} to {stop} alone has other bits than among"
                        f' {tokens} rows, and the offer declares "batch_invariant"'
                    )

    def test_kernels_are_made_and_called_in_several_threads(self, asked: Asked) -> None:
        """As an engine compiles what it needs: all at once."""

        def work(case: tuple[OpCase, str]) -> None:
            made = self.made(asked, *case)
            self._right(made, made.run(made.a_call(2, seed=4)), "in a thread of its own")

        with ThreadPoolExecutor(THREADS) as threads:
            for _ in threads.map(work, self.served()[::THREADS]):
                pass

    def _right(self, made: Made, outcome: Outcome, what: str) -> None:
        __tracebackhide__ = True
        wants, got = outcome.call.wants, outcome.results
        assert len(got) == len(wants), f"{made.case}, {what}: {len(got)} results, should be {len(wants)}"
        for number, (want, result) in enumerate(zip(wants, got, strict=True)):
            dtype = want.dtype or made.dtype
            assert result.dtype == dtype, f"{made.case}, {what}: result {number} is {result.dtype}, should be {dtype}"
            wrong = want.differs(result, self._tolerance(made, want))
            assert not wrong, f"{made.case} of {made.query.dtype}, {what}: result {number} {wrong}"
        for i, want in outcome.call.changes.items():
            wrong = want.differs(outcome.args[i], 0.0)
            assert not wrong, f"{made.case} of {made.query.dtype}, {what}: afterwards argument {i} {wrong}"

    def _tolerance(self, made: Made, want: Want) -> float:
        dtype = want.dtype if want.dtype is not None and want.dtype.is_floating_point else made.dtype
        return self.bound(str(dtype).removeprefix("torch."))
