"""A sampler in whole engines: every token is the one that its request's seed picks."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.ops.noise import uniform
from vllm_core.testing.kit import Conformance
from vllm_core.testing.logits_tokens import LONGEST, TOKENS, PlainEngines
from vllm_core.testing.reference import Reference
from vllm_core.testing.sampler_lines import SamplerLine, picked
from vllm_core.testing.speculating import Ask, Ran, assert_empty, run

__all__ = ["SamplerTokens"]

CLOSE = 1e-3  # of probability: what float32 logits of two programs may differ by
ASKED = (
    SamplerLine(temperature=0.0),
    SamplerLine(temperature=1.0),
    SamplerLine(temperature=1.4, top_k=5),
    SamplerLine(temperature=0.8, top_p=0.8),
    SamplerLine(temperature=1.2, min_p=0.1),
)


class SamplerTokens(Conformance):
    """A part of ``SamplerConformance``."""

    def expected(self, logits: Tensor, line: SamplerLine) -> Tensor:
        raise NotImplementedError

    def asks(self, vocab: int) -> list[Ask]:
        dice, asks = random.Random(0), list[Ask]()
        for seed, line in enumerate(ASKED * 2):
            prompt = tuple(dice.randrange(vocab) for _ in range(dice.randint(1, 12)))
            given = {"temperature": line.temperature, "top_k": line.top_k, "top_p": line.top_p, "min_p": line.min_p}
            asks.append(Ask(prompt, SamplingParams(seed=seed, max_tokens=TOKENS, ignore_eos=True, **given)))
        return asks

    def test_a_seed_picks_the_same_tokens_however_the_engine_runs(self, served: tuple[Reference, PlainEngines]) -> None:
        """Together and alone, in the overlapped loop and the plain one, preempted or not."""
        reference, engines = served
        asks = self.asks(reference.vocab_size)
        with engines.engine(0) as engine:
            together = run(engine, asks)
            alone = [run(engine, [ask]).tokens[0] for ask in asks]
            assert_empty(engine)
        if "the token that noise picks" not in self.cannot:
            self.assert_picked(reference, asks, together)
        ways = {
            "alone": alone,
            "in the plain loop": engines.ran(0, asks, async_scheduling=False).tokens,
            "preempted": engines.ran(0, asks, **engines.tight(0, LONGEST)).tokens,
        }
        for way, tokens in ways.items():
            for ask, got, want in zip(asks, tokens, together.tokens, strict=True):
                assert got == want, f"seed {ask.params.seed}, {way}: {got} instead of {want}"

    def assert_picked(self, reference: Reference, asks: Sequence[Ask], ran: Ran) -> None:
        __tracebackhide__ = True
        for seed, (ask, ids) in enumerate(zip(asks, ran.tokens, strict=True)):
            logits = reference.logits([*ask.prompt, *ids]).double()
            for i, token in enumerate(ids):
                line = ASKED[seed % len(ASKED)]
                p = self.expected(logits[len(ask.prompt) - 1 + i], line)
                noise = float(uniform(torch.tensor([seed]), torch.tensor([len(ask.prompt) + i])))
                end = float(p[: token + 1].sum())
                if not end - float(p[token]) - CLOSE <= noise <= end + CLOSE:
                    raise AssertionError(
                        f"seed {seed} ({line}), token {i} of the output: noise {noise:.4f} picks {picked(p, noise)[0]},"
                        f" and {token} was drawn"
                    )
