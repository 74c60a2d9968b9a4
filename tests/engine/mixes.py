"""Random request mixes on random small engines, by number, so that one that failed can be run again."""

from __future__ import annotations

import random

import attrs

from tests.engine.fake_device import VOCAB, FakeDevice, plain
from tests.engine.harness import make_engine, run
from vllm_core.engine.errors import RequestError
from vllm_core.engine.local import LocalEngine
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.policy import MostUrgentFirst
from vllm_core.engine.sampling_params import SamplingParams


@attrs.frozen
class Ask:
    prompt: tuple[int, ...]
    max_tokens: int
    stop: tuple[int, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    at: int = 0  # step before which it arrives
    abort_at: int | None = None
    priority: int = 0
    n: int = 1
    salt: str = ""
    stream: bool = False

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(
            n=self.n,
            max_tokens=self.max_tokens,
            stop_token_ids=self.stop,
            temperature=self.temperature,
            seed=self.seed,
        )

    def answers(self, max_len: int) -> list[list[int]]:
        """What each sample gets alone."""
        return [
            plain(self.prompt, self.max_tokens, self.stop, max_len, self.temperature, self.seed + i)
            for i in range(self.n)
        ]


class LastComeFirstServed:
    def key(self, request):
        return (-request.order,)


def random_ask(rng: random.Random, longest: int = 40, most_tokens: int = 20) -> Ask:
    """A prompt of up to ``longest`` tokens; prefixes are shared by chance."""
    temperature = rng.choice([0.0, 0.7])
    return Ask(
        prompt=tuple(rng.randint(0, 1) for _ in range(rng.randint(1, longest))),
        max_tokens=rng.randint(1, most_tokens),
        stop=tuple(rng.randint(0, VOCAB - 1) for _ in range(rng.randint(0, 6))),
        temperature=temperature,
        n=rng.choice([1, 1, 2, 3, 5]) if temperature else 1,
        salt=rng.choice(["", "", "a", "b"]),
        stream=rng.random() < 0.5,
        seed=rng.randint(0, 3),
        at=rng.randint(0, 20),
        abort_at=rng.choice([None, None, None, rng.randint(0, 40)]),
        priority=rng.randint(0, 3),
    )


def random_mix(number: int) -> tuple[list[Ask], dict, dict]:
    """(requests, arguments of FakeDevice, arguments of make_engine)"""
    rng = random.Random(number)
    asks = [random_ask(rng) for _ in range(rng.randint(1, 14))]
    device = {
        "block_size": rng.choice([1, 2, 4, 5]),
        "num_pages": rng.randint(12, 70),
        "max_rows": rng.randint(1, 8),
        "num_drafts": rng.choice([0, 0, 1, 3]),
        "accept": rng.choice([0.0, 0.5, 1.0]),
        "window": rng.choice([None, None, 3, 8]),
        "slow": rng.random() < 0.7,
        "seed": number,
    }
    options = {
        "budget": rng.randint(4, 40),
        "overlapped": rng.random() < 0.8,
        "caching": rng.random() < 0.7,
        "max_len": rng.randint(45, 64),
        "depth": rng.choice([2, 2, 3, 4]),
        "policy": rng.choice([None, LastComeFirstServed(), MostUrgentFirst()]),
    }
    device["follows"] = rng.random() < 0.5
    return asks, device, options


def submit(engine: LocalEngine, name: str, ask: Ask) -> None:
    engine.add_request(
        name, list(ask.prompt), ask.params, priority=ask.priority, cache_salt=ask.salt, stream=ask.stream
    )


def answer_all(asks: list[Ask], device: dict, options: dict) -> tuple[LocalEngine, list[tuple[Ask, RequestOutput]]]:
    """Run a mix; (request, last output) of all that were taken in."""
    engine = make_engine(FakeDevice(**device), **options)
    arrived: set[int] = set()
    refused: set[int] = set()

    def between(engine, i):
        for name, ask in enumerate(asks):
            if name not in arrived and (ask.at <= i or not engine.has_work):
                arrived.add(name)
                try:
                    submit(engine, str(name), ask)
                except RequestError as error:
                    assert "must fit" in str(error)  # noqa: PT017
                    refused.add(name)
            elif i == ask.abort_at:
                engine.abort(str(name))

    outputs = run(engine, between)
    assert arrived == set(range(len(asks)))
    return engine, [(ask, outputs[str(name)]) for name, ask in enumerate(asks) if name not in refused]


def check_answers(engine: LocalEngine, answers: list[tuple[Ask, RequestOutput]]) -> None:
    """Each request got what it gets alone; an aborted one the beginning of that."""
    for ask, output in answers:
        assert output.prompt_token_ids == list(ask.prompt)
        assert output.finished
        assert [got.index for got in output.outputs] == list(range(ask.n))
        for expected, got in zip(ask.answers(engine.core.roster.max_len), output.outputs, strict=True):
            if got.finish_reason == "abort":
                assert got.token_ids == expected[: len(got.token_ids)]
                continue
            assert got.token_ids == expected, output.error
            stopped = expected[-1] in ask.stop
            assert got.finish_reason == ("stop" if stopped else "length")
            assert got.stop_reason == (expected[-1] if stopped else None)
