"""Guesses that a step verifies: their logits are right, and those that are rejected leave no trace."""

from __future__ import annotations

import pytest

from vllm_core.interfaces.cache import RecurrentCache
from vllm_core.testing.case import Case
from vllm_core.testing.compare import assert_agree
from vllm_core.testing.served import Row, Served

GUESSES = 3  # a step
ACCEPTED = (0, 3, 1, 2, 0)  # of the guesses of each step


class Drafted:
    """Test of each variant: steps as a draft proposer makes them, with guesses that the test knows to be wrong."""

    def test_rejected_guesses_leave_no_trace_and_accepted_ones_count(self, case: Case) -> None:
        """Keys and values of wrong guesses stay in the pages, behind the row's end, until they are overwritten."""
        served = case.idle()
        if any(isinstance(group.spec, RecurrentCache) for group in served.groups):
            pytest.skip("it has states, and the kit's engine keeps no earlier ones to go back to")
        row, other = served.row(case.prompt(60)), served.row(case.prompt(40, seed=1))
        right = {id(one): one.ids for one in (row, other)}
        served.step([(row, 21), (other, 13)])
        for accepted in ACCEPTED:
            work = [(row, accepted), (other, GUESSES - accepted)]
            for one, count in work:
                _guess(one, right[id(one)], count, case.reference.vocab_size)
            self._verify(case, served, work)
        for one in (row, other):
            _guess(one, right[id(one)], GUESSES, case.reference.vocab_size)
        for one, got in zip((row, other), served.step([(row, 4), (other, 4)]), strict=True):
            case.agree(got, one, f"after {len(ACCEPTED)} steps in which guesses were rejected")
        served.release(row, other)

    @staticmethod
    def _verify(case: Case, served: Served, work: list[tuple[Row, int]]) -> None:
        tokens = 1 + GUESSES
        logits = served.logits(served.plan([(row, tokens) for row, _ in work])).split(tokens)
        for (row, accepted), got in zip(work, logits, strict=True):
            want = case.want(row.ids)[row.computed : row.computed + tokens]
            what = f"{case.name}, position {row.computed} and {GUESSES} guesses behind it, {accepted} of them right"
            assert_agree(got, want, case.tolerance, what)
        # The row moves on by what was accepted; windows keep what the next token still sees.
        served.advance([(row, 1 + accepted) for row, accepted in work])


def _guess(row: Row, right: list[int], accepted: int, vocab_size: int) -> None:
    """The row's ids from now on: ``accepted`` right guesses, then wrong ones. Its pages stay as they are."""
    known = row.computed + 1 + accepted
    end = row.computed + 1 + GUESSES
    row.ids = right[:known] + [(token + 1 + i) % vocab_size for i, token in enumerate(right[known:end])]
    row.admitted = False  # the device row learns of the guesses as of a new request
