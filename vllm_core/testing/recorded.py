"""A step that was recorded, padded and with its inputs in fixed tensors, computes what the step itself does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from vllm_core.interfaces.steps import StepPlan
from vllm_core.runner.static_step import FORWARD
from vllm_core.testing.case import Case
from vllm_core.testing.compare import assert_agree
from vllm_core.testing.served import Served

__all__ = ["Recorded"]


class Recorded:
    """Test of each variant, on devices where steps are recorded (CUDA graphs)."""

    def test_a_recorded_step_computes_what_the_step_itself_does(self, case: Case) -> None:
        """Decoding rows beside padding, and a chunk beside them; run op by op at the same size it has the same bits."""
        self.needs("graphs")  # type: ignore[attr-defined]
        served = case.idle()
        if served.runner.graphs is None:
            pytest.skip("needs a CUDA device, where steps are recorded as graphs")
        a, b, c = (served.row(case.prompt(n)) for n in (40, 24, 50))
        served.step([(a, 30), (b, 19), (c, 20)])
        recorded = 0
        for work in ([(a, 1), (b, 1), (c, 1)], [(c, 7), (a, 1)], [(b, 1)], [(a, 3), (c, 9), (b, 1)]):
            plan = served.plan(work)
            got = _replayed(served, plan, case.name)
            recorded += got is not None
            plain = served.logits(plan)
            served.advance(work)
            at = 0
            for row, tokens in work:
                if got is not None:
                    what = f"in a recorded step, {tokens} tokens from position {row.computed - tokens} on"
                    case.agree(got[at : at + tokens], row, what)
                    assert_agree(got[at : at + tokens], plain[at : at + tokens], case.tolerance, f"{case.name}, {what}")
                at += tokens
        assert recorded >= 2, f"{recorded} of 4 steps had a recorded size; that proves nothing"
        served.release(a, b, c)


def _replayed(served: Served, plan: StepPlan, name: str) -> Tensor | None:
    """Logits [T, vocab_size] from the recorded step of the plan's size; None if there is none. No row moves on."""
    runner = served.runner
    runner.rows.apply(plan)
    before = [page.clone() for page in runner.pages]  # a state moves on with every run
    with torch.inference_mode():
        step = runner.graphs.run(plan, FORWARD) if runner.graphs is not None else None
        if step is None or step.hidden is None:
            return None
        tokens = sum(plan.num_tokens)
        replayed = step.hidden[:tokens].clone()
        _restore(runner.pages, before)
        step.run()
        _restore(runner.pages, before)
        assert step.hidden is not None
        assert torch.equal(step.hidden[:tokens], replayed), (
            f"{name}: a recorded step of {step.size.rows} rows and {step.size.tokens} tokens has other bits than the"
            " same step run op by op: something in it is not recorded, or reads what has changed since"
        )
        return runner.model.logits(replayed)


def _restore(pages: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    for page, old in zip(pages, before, strict=True):
        page.copy_(old)
