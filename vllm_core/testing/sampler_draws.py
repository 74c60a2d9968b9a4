"""What a sampler draws, line by line, against sorting and running sums in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs
import pytest
import torch
from torch import Tensor

from vllm_core.interfaces.sampler import Sampler, SamplingTensors
from vllm_core.ops.noise import uniform
from vllm_core.testing.kit import Conformance
from vllm_core.testing.sampler_lines import SETTINGS, SamplerLine, chances, make_logits, picked, tensors
from vllm_core.testing.statistics import misfit
from vllm_core.testing.waits import assert_never_waits

__all__ = ["SamplerDraws"]

LINES = 24
DRAWS = 4000
VOCABULARIES = (1, 15, 129, 1000, 3001)  # tokens: below, at and above what kernels take at a time
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAST = 1 - 2.0**-48  # the largest number of noise


class SamplerDraws(Conformance):
    """A part of ``SamplerConformance``."""

    tolerance: ClassVar[float] = 1e-5

    def make(self, vocab: int) -> Sampler:
        raise NotImplementedError

    def invariant(self, vocab: int) -> bool:
        """Whether it says that a line's token is the same bit for bit whatever other lines there are."""
        raise NotImplementedError

    def place(self) -> str:
        """torch's name of the device."""
        raise NotImplementedError

    def expected(self, logits: Tensor, line: SamplerLine) -> Tensor:
        """Probabilities, float64 [V], of logits float64 [V] on the CPU. Override it for one that draws otherwise."""
        return chances(logits, line)

    # ---- tools of the tests

    def tensors(self, lines: Sequence[SamplerLine], noise: Tensor, loose: bool = False) -> SamplingTensors:
        return tensors(lines, noise, loose=loose, device=self.place())

    def draw(self, sampler: Sampler, logits: Tensor, params: SamplingTensors) -> Tensor:
        """int64 [N] on the CPU, checked for form; logits and parameters are as they were."""
        __tracebackhide__ = True
        given = logits.to(self.place())
        before, told = given.clone(), [t.clone() for t in _fields(params)]
        drawn = sampler(given, params)
        assert isinstance(drawn, Tensor), f"it gives {type(drawn).__name__}, not a tensor of ids"
        form = (tuple(drawn.shape), drawn.dtype)
        assert form == ((len(logits),), torch.int64), f"it gives {form[1]} {form[0]}, not int64 {(len(logits),)}"
        self.assert_untouched(given, before, params, told)
        outside = (drawn < 0) | (drawn >= logits.shape[1])
        assert not outside.any(), f"it draws id {int(drawn[outside][0])} of {logits.shape[1]} tokens"
        return drawn.cpu()

    @staticmethod
    def assert_untouched(given: Tensor, before: Tensor, params: SamplingTensors, told: Sequence[Tensor]) -> None:
        __tracebackhide__ = True
        assert torch.equal(given.nan_to_num(7.0), before.nan_to_num(7.0)), (
            "it changes the logits, which it may only read"
        )
        for field, now, then in zip(_FIELDS, _fields(params), told, strict=True):
            assert torch.equal(now, then), f"it changes {field}, which it may only read"

    def mixed(self) -> list[SamplerLine]:
        return [list(SETTINGS.values())[i % len(SETTINGS)] for i in range(LINES)]

    def batches(self) -> dict[str, list[SamplerLine]]:
        """Of lines alike, and of all kinds together."""
        return {**{name: [line] * LINES for name, line in SETTINGS.items()}, "mixed": self.mixed()}

    # ---- the tests

    @pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
    def test_probabilities_are_those_of_float64(self, dtype: torch.dtype) -> None:
        for vocab in VOCABULARIES:
            sampler = self.make(vocab)
            for name, lines in self.batches().items():
                logits = make_logits(LINES, vocab, dtype)
                given = logits.to(self.place())
                params = self.tensors(lines, noise(LINES))
                told = [t.clone() for t in _fields(params)]
                got = sampler.probs(given, params)
                form = (got.dtype, tuple(got.shape))
                assert form == (torch.float32, tuple(logits.shape)), f"probs gives {form[0]} {form[1]}, not float32"
                self.assert_untouched(given, logits.to(self.place()), params, told)
                for i, line in enumerate(lines):
                    off = (got[i].double().cpu() - self.expected(logits[i].double(), line)).abs()
                    assert off.max() <= self.tolerance, (
                        f"{name}, {vocab} tokens, line {i} ({_said(line)}): token {int(off.argmax())} has probability"
                        f" {got[i][off.argmax()]:.6f}, off by {off.max():.2g}"
                    )

    @pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
    def test_each_token_is_the_one_that_its_noise_picks(self, dtype: torch.dtype) -> None:
        """The first, in order of ids, whose cumulative probability exceeds the noise."""
        self.needs("the token that noise picks")
        for vocab in VOCABULARIES:
            sampler = self.make(vocab)
            for name, lines in self.batches().items():
                logits, u = make_logits(LINES, vocab, dtype), noise(LINES)
                u[0], u[1] = 0.0, LAST
                drawn = self.draw(sampler, logits, self.tensors(lines, u))
                for i, line in enumerate(lines):
                    p = self.expected(logits[i].double(), line)
                    token, close = picked(p, float(u[i]))
                    if close and line.temperature > 0:  # one of two neighbours, by rounding
                        assert p[drawn[i]] > 0, f"{name}: token {int(drawn[i])} has probability 0"
                        continue
                    assert int(drawn[i]) == token, (
                        f"{name}, {vocab} tokens, line {i} ({_said(line)}): noise {float(u[i]):.4f} picks"
                        f" token {token}, and {int(drawn[i])} was drawn"
                    )

    def test_draws_have_the_distribution(self) -> None:
        logits = make_logits(1, 15, torch.float32, seed=3)[0] / 2
        for name, line in SETTINGS.items():
            params = self.tensors([line] * DRAWS, noise(DRAWS))
            drawn = self.draw(self.make(15), logits.expand(DRAWS, -1).contiguous(), params)
            wrong = misfit(drawn, self.expected(logits.double(), line))
            assert not wrong, f"{name}: {wrong}"

    def test_a_line_depends_on_no_other_line(self) -> None:
        """Alone, among others in another order, and beside lines of which nothing is left."""
        lines, vocab = self.mixed(), 1000
        logits, u = make_logits(LINES, vocab, torch.float32), noise(LINES)
        sampler = self.make(vocab)
        together = self.draw(sampler, logits, self.tensors(lines, u))
        order = torch.randperm(LINES, generator=torch.Generator().manual_seed(1))
        mixed = self.draw(sampler, logits[order], self.tensors([lines[i] for i in order], u[order]))
        beside = logits.clone()
        beside[1::2] = float("-inf")
        empty = self.draw(sampler, beside, self.tensors(lines, u))
        for i, line in enumerate(lines):
            alone = int(self.draw(sampler, logits[i : i + 1], self.tensors([line], u[i : i + 1])))
            found = {"in a batch": together[i], "in another order": mixed[order.tolist().index(i)]}
            if i % 2 == 0:
                found["beside lines that are all -inf"] = empty[i]
            for how, token in found.items():
                near = not self.invariant(vocab) and picked(self.expected(logits[i].double(), line), float(u[i]))[1]
                assert int(token) == alone or near, (
                    f"line {i} ({_said(line)}): token {alone} alone and {int(token)} {how}"
                )

    def test_what_the_host_does_not_know_changes_nothing(self) -> None:
        """Facts such as ``any_top_p`` say what lines may ask for, not what they do."""
        vocab, u = 300, noise(LINES)
        logits, sampler = make_logits(LINES, vocab, torch.float32), self.make(vocab)
        for name, lines in self.batches().items():
            exact, loose = (self.tensors(lines, u, loose) for loose in (False, True))
            found = (self.draw(sampler, logits, exact), self.draw(sampler, logits, loose))
            assert torch.equal(*found), f"{name}: other tokens where the host says that lines may ask for anything"
            off = (sampler.probs(logits.to(self.place()), exact) - sampler.probs(logits.to(self.place()), loose)).abs()
            assert off.max() < self.tolerance, f"{name}: other probabilities where lines may ask for anything"

    def test_the_same_question_has_the_same_answer(self) -> None:
        """No state, and no noise but the one that is given."""
        lines, logits, u = self.mixed(), make_logits(LINES, 300, torch.float32), noise(LINES)
        sampler, other = self.make(300), self.make(300)
        first = self.draw(sampler, logits, self.tensors(lines, u))
        torch.manual_seed(1)
        before = torch.get_rng_state()
        self.draw(sampler, logits.flip(0), self.tensors(lines, noise(LINES, 1)))
        again = [self.draw(s, logits, self.tensors(lines, u)) for s in (sampler, other)]
        assert all(torch.equal(first, a) for a in again), "other tokens for the same logits, parameters and noise"
        assert torch.equal(before, torch.get_rng_state()), "it draws noise of its own: params.noise is all there is"

    def test_the_largest_logit_wins_at_temperature_zero_and_the_smallest_id_of_equal_ones(self) -> None:
        logits = torch.zeros(4, 300)
        logits[0, [40, 7, 299]] = 2.0
        logits[1, 1:] = float("-inf")
        logits[2, 150] = 1e-3
        lines = [SamplerLine(temperature=0.0)] * 3 + [SamplerLine(temperature=1e-30)]
        logits[3, 33] = 1.0
        drawn = self.draw(self.make(300), logits, self.tensors(lines, noise(4)))
        assert drawn.tolist() == [7, 0, 150, 33]

    def test_what_is_ruled_out_is_never_drawn(self) -> None:
        left = (7, 33)
        logits = torch.full((LINES, 40), float("-inf"))
        logits[:, left[0]], logits[:, left[1]] = 1.0, 1.5
        sampler = self.make(40)
        for name, lines in self.batches().items():
            for u in (
                noise(LINES),
                torch.zeros(LINES, dtype=torch.float64),
                torch.full((LINES,), LAST, dtype=torch.float64),
            ):
                params = self.tensors(lines, u)
                drawn = self.draw(sampler, logits, params)
                assert set(drawn.tolist()) <= set(left), f"{name}: {sorted(set(drawn.tolist()))} of {left} were drawn"
                p = sampler.probs(logits.to(self.place()), params).cpu()
                assert not p.isnan().any(), f"{name}: probs has NaN where logits are -inf"
                p[:, left] = 0
                assert not p.any(), f"{name}: a token that is -inf has probability {p.max():.2g}"

    def test_huge_logits_and_tiny_temperatures_overflow_nowhere(self) -> None:
        logits = make_logits(LINES, 300, torch.float32) * 1e4
        lines = [attrs.evolve(line, temperature=line.temperature * 1e-3) for line in self.mixed()]
        for some in (lines, self.mixed()):
            sampler, params = self.make(300), self.tensors(some, noise(LINES))
            assert self.draw(sampler, logits, params).tolist() == logits.argmax(1).tolist()
            assert not sampler.probs(logits.to(self.place()), params).isnan().any()

    def test_a_step_never_waits_for_the_device(self) -> None:
        if self.place() == "cpu":
            self.needs("no waiting on a CPU")
        for lines in self.batches().values():
            logits = make_logits(LINES, 300, torch.float32).to(self.place())
            params, sampler = self.tensors(lines, noise(LINES)), self.make(300)
            sampler(logits, params)  # what is made once is made here
            sampler.probs(logits, params)
            assert_never_waits("the sampler", lambda s=sampler, x=logits, p=params: s(x, p))  # type: ignore[misc]
            assert_never_waits("probs", lambda s=sampler, x=logits, p=params: s.probs(x, p))  # type: ignore[misc]


_FIELDS = ("temperature", "top_k", "top_p", "min_p", "noise")


def _fields(params: SamplingTensors) -> list[Tensor]:
    return [getattr(params, name) for name in _FIELDS]


def _said(line: SamplerLine) -> str:
    usual = SamplerLine()
    told = {k: v for k, v in attrs.asdict(line).items() if k == "temperature" or v != getattr(usual, k)}
    return ", ".join(f"{k} {v:g}" for k, v in told.items())


def noise(count: int, seed: int = 0) -> Tensor:
    """float64 [count], as the engine makes it of seeds and positions."""
    return uniform(torch.full((count,), seed), torch.arange(count))
