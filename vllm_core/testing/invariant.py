"""Under --batch-invariant a row's logits have the same bits whatever runs beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vllm_core.plugins import NoOffer
from vllm_core.testing.case import Case
from vllm_core.testing.served import Served

__all__ = ["Invariant"]

TOKENS, CHUNKS = 40, (30, 1, 9)


class Invariant:
    """Test of the base variant, where the engine finds kernels, a backend and a sampler that declare it."""

    def test_under_batch_invariant_others_in_the_batch_change_no_bit(self, base: Case) -> None:
        """What a model computes beside its layers must keep what these promise."""
        self.needs("batch invariance")  # type: ignore[attr-defined]
        assert base.reference  # the checkpoint is written
        on = {"batch_invariant": True}
        try:
            served = Served(base.folder, dtype=base.dtype, device=base.device, block_size=base.block_size, settings=on)
        except NoOffer as error:
            why = " ".join(str(error.facts.get("why", [error.title])[0]).split())
            pytest.skip(f"--batch-invariant finds no kernels for this device: {why}")
        alone = _logits(base, served, ())
        base.agree_on(served, base.prompt(TOKENS), "with --batch-invariant")
        for others in ((7,), (33, 1, 16)):
            got = _logits(base, served, others)
            bad = (got != alone).any(-1).nonzero().flatten().tolist()
            assert not bad, (
                f"{base.name}: under --batch-invariant the logits at {len(bad)} of {TOKENS} positions have other bits"
                f" beside {len(others)} other rows, first at position {bad[0]}\n"
                "  instead compute each row from that row alone; or say in cannot = {'batch invariance': ...} why not"
            )


def _logits(case: Case, served: Served, others: tuple[int, ...]) -> Tensor:
    """[TOKENS, vocab_size] of a prompt in chunks; in its first steps beside prompts of ``others`` tokens."""
    row = served.row(case.prompt(TOKENS))
    beside = [served.row(case.prompt(tokens, seed=3 + i)) for i, tokens in enumerate(others)]
    found = []
    for step, tokens in enumerate(CHUNKS):
        work = [(other, len(other.ids)) for other in beside] if step == 0 else []
        found.append(served.step([*work, (row, tokens)])[-1])
    served.release(row, *beside)
    return torch.cat(found)
