"""A logits processor in whole engines: every token is the reference's, however the engine came by it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch

from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.testing.kit import Conformance
from vllm_core.testing.reference import Reference
from vllm_core.testing.speculating import Ask, Ran, Speculating, assert_empty, run

__all__ = ["LogitsTokens", "PlainEngines"]

TOKENS = 12  # of each output
LONGEST = 40  # tokens of a prompt and its output
CLOSE = 1e-4  # of the range of logits: two tokens that are nearer to each other are as likely


class PlainEngines(Speculating):
    """Engines without drafts on one checkpoint; ``changed`` are settings that all of them have."""

    def __init__(self, folder: Any, device: str, vocab_size: int, changed: Mapping[str, Any]) -> None:
        super().__init__(folder, "", {}, device, vocab_size)
        self.changed = dict(changed)

    def settings(self, drafts: int, **changed: Any) -> Any:
        return super().settings(drafts, **{**self.changed, **changed})


class LogitsTokens(Conformance):
    """A part of ``LogitsProcessorConformance``."""

    requests: ClassVar[Mapping[str, Mapping[str, Any]]]
    wrong: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    speculative: ClassVar[Mapping[str, Any]] = {}

    def expected(self, logits: Any, params: Mapping[str, Any], prompt: list[int], output: list[int]) -> Any:
        raise NotImplementedError

    def asks(self, vocab: int, **params: Any) -> list[Ask]:
        """Each of ``requests`` beside one that asks for nothing."""
        dice, asks = random.Random(0), list[Ask]()
        for extra in [None, *self.requests.values()]:
            prompt = tuple(dice.randrange(min(vocab, 12)) for _ in range(dice.randint(1, 12)))
            given = {"max_tokens": TOKENS, "ignore_eos": True, "seed": len(asks), **params}
            asks.append(Ask(prompt, SamplingParams(**given, extra_args=dict(extra) if extra else None)))
        return asks

    def settings_of_engines(self, engines: Speculating) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {
            "the plain loop": {"async_scheduling": False},
            "prompts cut, requests preempted": engines.tight(0, LONGEST),
        }
        if self.speculative:
            found["verifying drafts"] = {"speculative_config": dict(self.speculative)}
        return found

    def test_greedy_tokens_are_the_largest_of_the_expected_logits(self, served: tuple[Reference, PlainEngines]) -> None:
        reference, engines = served
        asks = self.asks(reference.vocab_size, temperature=0.0)
        ran = engines.ran(0, asks)
        self.assert_greedy(reference, asks, ran)

    def assert_greedy(self, reference: Reference, asks: Sequence[Ask], ran: Ran) -> None:
        __tracebackhide__ = True
        for ask, ids in zip(asks, ran.tokens, strict=True):
            params = ask.params.extra_args or {}
            logits = reference.logits([*ask.prompt, *ids])
            for i, token in enumerate(ids):
                line = logits[len(ask.prompt) - 1 + i]
                changed = self.expected(line.clone(), params, list(ask.prompt), list(ids[:i])) if params else line
                changed = torch.as_tensor(changed)
                if changed.max() > float("-inf"):  # else nothing could be drawn, and the engine leaves it out
                    line = changed
                least = line.max() - CLOSE * (line[line.isfinite()].max() - line[line.isfinite()].min())
                assert line[token] >= least, (
                    f"a request with extra_args={params or None}: token {i} of its output is {token}, with"
                    f" {line[token]:g} after `expected`; token {int(line.argmax())} has {line.max():g}"
                )

    def test_tokens_do_not_depend_on_how_the_engine_runs(self, served: tuple[Reference, PlainEngines]) -> None:
        """Seeded ones: together and alone, in the overlapped loop and the plain one, preempted, behind drafts."""
        reference, engines = served
        asks = self.asks(reference.vocab_size, temperature=0.8)
        together = engines.ran(0, asks).tokens
        ways = self.settings_of_engines(engines)
        found = {name: engines.ran(0, asks, **settings).tokens for name, settings in ways.items()}
        with engines.engine(0) as engine:
            found["each alone"] = [run(engine, [ask]).tokens[0] for ask in asks]
            assert_empty(engine)
        for way, tokens in found.items():
            for ask, got, want in zip(asks, tokens, together, strict=True):
                assert got == want, f"extra_args={ask.params.extra_args}, {way}: {got} instead of {want}"

    def test_wrong_parameters_fail_their_request_only(self, served: tuple[Reference, PlainEngines]) -> None:
        if not self.wrong:
            pytest.skip("there are no wrong parameters")
        _, engines = served
        params = SamplingParams(temperature=0.0, max_tokens=2, extra_args=dict(next(iter(self.wrong.values()))))
        with engines.engine(0) as engine:
            good = Ask((1, 2), SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True))
            with pytest.raises(ValueError, match="logits processor"):
                engine.add_request("wrong", [1, 2], params)
            assert run(engine, [good]).tokens[0]
            assert_empty(engine)
