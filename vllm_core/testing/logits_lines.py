"""What a logits processor makes of lines of logits, against the author's reference of one line."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import Tensor

from vllm_core.testing.kit import Conformance
from vllm_core.testing.logits_trial import Line, Running, Trial, random_ids, random_logits
from vllm_core.testing.waits import assert_never_waits

__all__ = ["LogitsLines"]

OUTPUTS = (0, 1, 2, 5, 13)  # tokens of output before the line
PROMPTS = (1, 4, 9)  # tokens
GUESSES = 3
JUNK = (0, -1, 2**31 - 1)


class LogitsLines(Conformance):
    """A part of ``LogitsProcessorConformance``."""

    requests: ClassVar[Mapping[str, Mapping[str, Any]]]
    tolerance: ClassVar[float] = 1e-5

    def trial(self, max_rows: int) -> Trial:
        raise NotImplementedError

    def expected(self, logits: Tensor, params: Mapping[str, Any], prompt: list[int], output: list[int]) -> Any:
        raise NotImplementedError

    @property
    def vocab(self) -> int:
        raise NotImplementedError

    # ---- what is tried

    def running(self, guesses: int = 0) -> list[Running]:
        """Each of ``requests`` with outputs of several lengths."""
        dice, found = random.Random(0), list[Running]()
        for i, (name, params) in enumerate(self.requests.items()):
            for length in OUTPUTS:
                ids = [random_ids(n, self.vocab, dice) for n in (PROMPTS[i % len(PROMPTS)], length, guesses)]
                found.append(Running(f"{name} ({len(found)})", params, *ids))
        return found

    def begun(self, requests: Sequence[Running], max_rows: int = 0, seed: int = 0) -> Trial:
        """A fresh processor whose rows the requests have taken, in a scattered order."""
        trial = self.trial(max_rows or len(requests))
        rows = random.Random(seed).sample(range(trial.max_rows), len(requests))
        for request, row in zip(requests, rows, strict=True):
            trial.take(request, row)
        return trial

    def want(self, line: Line, logits: Tensor) -> Tensor:
        """The reference's answer, float32 [V]."""
        said = self.expected(logits.clone(), dict(line.request.params), list(line.request.prompt), line.output)
        want = torch.as_tensor(said, dtype=torch.float32)
        assert want.shape == logits.shape, f"`expected` gives {tuple(want.shape)}, not {tuple(logits.shape)}"
        return want

    def assert_right(self, lines: Sequence[Line], got: Tensor, logits: Tensor, how: str = "") -> None:
        __tracebackhide__ = True
        for line, mine, before in zip(lines, got, logits, strict=True):
            if line.sound:
                self.assert_same(mine, self.want(line, before), f"{line}{how}")

    def assert_same(self, got: Tensor, want: Tensor, what: str) -> None:
        __tracebackhide__ = True
        largest = want[want.isfinite()].abs().amax().item() if want.isfinite().any() else 0.0
        wrong = (got != want) & ~((got - want).abs() <= self.tolerance * (1 + largest))
        if wrong.any():
            first = int(wrong.nonzero()[0])
            raise AssertionError(
                f"{what}: {int(wrong.sum())} of {len(wrong)} tokens are not as expected;"
                f" token {first} gets {got[first]:g} and should get {want[first]:g}"
            )

    # ---- the tests

    def test_each_line_becomes_what_is_expected(self) -> None:
        requests = self.running()
        logits = random_logits(len(requests), self.vocab)
        got = self.begun(requests).apply(requests, logits)
        self.assert_right(Trial.lines(requests), got, logits)
        assert not torch.equal(got, logits), "no line was changed: give `requests` some that change logits"

    def test_a_line_depends_on_no_other_line(self) -> None:
        """Alone, among others in another order, and beside lines with logits a thousand times as large."""
        requests = self.running()
        logits = random_logits(len(requests), self.vocab)
        together = self.begun(requests).apply(requests, logits)
        order = random.Random(1).sample(range(len(requests)), len(requests))
        shuffled = [requests[i] for i in order]
        mixed = self.begun(shuffled, 2 * len(requests), 1).apply(shuffled, logits[order])
        beside = logits * torch.where(torch.arange(len(logits))[:, None] % 2 == 0, 1.0, 1000.0)
        loud = self.begun(requests).apply(requests, beside)
        for i, request in enumerate(requests):
            alone = self.begun([request]).apply([request], logits[i : i + 1])[0]
            self.assert_same(together[i], alone, f"{request.name}, in a batch and alone")
            self.assert_same(mixed[order.index(i)], alone, f"{request.name}, in another order and alone")
            if i % 2 == 0:
                self.assert_same(loud[i], alone, f"{request.name}, beside large logits and alone")

    def test_a_row_whose_drafts_are_verified_has_a_line_each(self) -> None:
        requests = self.running(GUESSES)
        logits = random_logits(len(Trial.lines(requests)), self.vocab)
        got = self.begun(requests).apply(requests, logits)
        self.assert_right(Trial.lines(requests), got, logits)

    def test_guesses_that_are_missing_disturb_no_other_line(self) -> None:
        """-1 stands for no guess; a line behind it may become anything, but must not raise."""
        requests = [
            attrs.evolve(request, guesses=[*request.guesses[: i % GUESSES], *[-1] * (GUESSES - i % GUESSES)])
            for i, request in enumerate(self.running(GUESSES))
        ]
        logits = random_logits(len(Trial.lines(requests)), self.vocab)
        got = self.begun(requests).apply(requests, logits)
        self.assert_right(Trial.lines(requests), got, logits, ", beside missing guesses")

    def test_what_stands_behind_a_lines_tokens_does_not_matter(self) -> None:
        requests = self.running(1)
        logits = random_logits(len(Trial.lines(requests)), self.vocab)
        for junk in JUNK:
            got = self.begun(requests).apply(requests, logits, junk)
            self.assert_right(Trial.lines(requests), got, logits, f", with {junk} in unused places")

    def test_a_row_that_is_taken_again_keeps_nothing(self) -> None:
        requests = self.running()
        for before, after in zip(requests, [*requests[-3:], *requests[:-3]], strict=True):
            trial, logits = self.trial(1), random_logits(1, self.vocab)
            trial.take(before, 0)
            trial.apply([before], logits)
            trial.take(after, 0)
            got = trial.apply([after], logits)
            self.assert_right(Trial.lines([after]), got, logits, f", in the row that {before.name} had")

    def test_a_preempted_request_goes_on_in_another_row(self) -> None:
        """Its outputs are found in the rows, or among ``ids``: steps are not counted."""
        for request in self.running():
            early = attrs.evolve(request, output=request.output[: len(request.output) // 2])
            trial, logits = self.trial(4), random_logits(1, self.vocab)
            for now, row in ((early, 3), (request, 1)):
                trial.take(now, row)
                got = trial.apply([now], logits)
                self.assert_right(Trial.lines([now]), got, logits, f", in row {row}")

    def test_a_step_changes_nothing_of_the_next(self) -> None:
        requests = self.running()
        trial, logits = self.begun(requests), random_logits(len(requests), self.vocab)
        first = trial.apply(requests, logits)
        trial.apply(requests[:2], random_logits(2, self.vocab, 1))
        again = trial.apply(requests, logits)
        for request, a, b in zip(requests, first, again, strict=True):
            self.assert_same(b, a, f"{request.name}, asked a second time")

    def test_what_was_ruled_out_stays_so(self) -> None:
        """A grammar or another processor came before: its -inf must not come back as a number."""
        self.needs("masked tokens")
        requests = self.running()
        trial = self.begun(requests)
        for share in (0.5, 0.95):
            logits = random_logits(len(requests), self.vocab)
            gone = torch.rand(logits.shape, generator=torch.Generator().manual_seed(2)) < share
            logits[gone] = float("-inf")
            back = gone & (trial.apply(requests, logits) > float("-inf"))
            for request, line in zip(requests, back, strict=True):
                assert not line.any(), f"{request.name}: token {int(line.nonzero()[0])} was ruled out, and may come now"

    def test_strange_logits_give_no_nan(self) -> None:
        """All ruled out but one, all of them, all alike, huge ones: ``apply`` is watched for NaN and infinity."""
        requests = self.running()
        trial, lines = self.begun(requests), len(requests)
        one = torch.full((lines, self.vocab), float("-inf"))
        one[:, self.vocab // 2] = 1.0
        for logits in (one, torch.full_like(one, float("-inf")), torch.zeros_like(one)):
            trial.apply(requests, logits)
        trial.apply(requests, random_logits(lines, self.vocab) * 1e4)

    def test_the_largest_logit_stays_where_it_was_if_it_says_so(self) -> None:
        requests = self.running()
        trial = self.begun(requests)
        if not trial.processor.keeps_argmax:
            pytest.skip("it does not say so: rows of temperature 0 come, too")
        for seed in range(5):
            logits = random_logits(len(requests), self.vocab, seed)
            moved = trial.apply(requests, logits).argmax(1) != logits.argmax(1)
            assert not moved.any(), (
                f"{requests[int(moved.nonzero()[0])].name}: keeps_argmax is True, and the likeliest token is another"
                " one now. Rows of temperature 0 would be left out wrongly: say keeps_argmax = False"
            )

    def test_a_step_never_waits_for_the_device(self) -> None:
        requests = self.running(1)
        trial = self.begun(requests)
        if trial.processor.needs_ids:
            pytest.skip("needs_ids: it reads ids on the host, and its rows' sampling waits for them")
        if trial.device.type == "cpu":
            self.needs("no waiting on a CPU")
        logits = random_logits(len(Trial.lines(requests)), self.vocab).to(trial.device)
        given = trial.step(requests)
        trial.processor.apply(logits.clone(), **given)  # what is made once is made here
        assert_never_waits("apply", lambda: trial.processor.apply(logits, **given))
