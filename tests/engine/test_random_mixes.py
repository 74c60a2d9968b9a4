"""Whatever the scheduler does, a request's tokens are those it gets alone, and nothing is left behind."""

from __future__ import annotations

import random
from collections import Counter

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.fake_device import FakeDevice
from tests.engine.harness import make_engine, run
from tests.engine.mixes import Ask, answer_all, check_answers, random_ask, random_mix, submit
from vllm_core.engine.errors import RequestError
from vllm_core.engine.policy import MostUrgentFirst


@pytest.mark.parametrize("block", range(6))
def test_any_mix_on_any_engine_gives_each_request_what_it_gets_alone(block):
    met = Counter()
    for number in range(block * 250, (block + 1) * 250):
        engine, answers = answer_all(*random_mix(number))
        check_answers(engine, answers)
        for ask, output in answers:
            met.update(sample.finish_reason for sample in output.outputs)
            met["preempted"] += output.metrics.num_preemptions > 0
            met["hit"] += output.num_cached_tokens > 0
            met["preempted among several samples"] += ask.n > 1 and output.metrics.num_preemptions > 0
        met["copied"] += engine.core.executor.copied > 0
        met["followed"] += engine.core.executor.lookahead > 0
    # The mixes would prove nothing about what they never meet.
    kinds = ("stop", "length", "abort", "preempted", "hit", "copied", "followed", "preempted among several samples")
    assert min(met[kind] for kind in kinds) >= 10, met


asks = st.lists(
    st.builds(
        Ask,
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=40).map(tuple),
        max_tokens=st.integers(1, 20),
        stop=st.lists(st.integers(0, 96), max_size=8).map(tuple),
        temperature=st.just(0.7),
        n=st.sampled_from([1, 1, 2, 4]),
        at=st.integers(0, 12),
        abort_at=st.none() | st.integers(0, 40),
        priority=st.integers(0, 2),
        salt=st.sampled_from(["", "a"]),
    ),
    min_size=1,
    max_size=12,
)


@given(asks=asks, number=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_chosen_requests_on_any_engine_get_what_they_get_alone(asks, number):
    _, device, engine = random_mix(number)
    check_answers(*answer_all(asks, device, engine))


@pytest.mark.parametrize("setting", [{"overlapped": False}, {"budget": 64}, {"caching": False}, {"depth": 3}])
def test_a_setting_that_is_about_speed_changes_no_token(setting):
    same = 0
    for number in range(60):
        asks, device, engine = random_mix(number)
        asks = [attrs.evolve(ask, abort_at=None) for ask in asks]
        runs = [answer_all(asks, device, {**engine, **changed}) for changed in ({}, setting)]
        (before, old), (after, new) = runs
        if before.core.roster.max_len == after.core.roster.max_len:  # windows: a larger step leaves room for less
            same += 1
            texts = [
                [[sample.token_ids for sample in output.outputs] for _, output in answers] for answers in (old, new)
            ]
            assert texts[0] == texts[1]
    assert same > 30


LOOPS = [{"overlapped": False}, {}, {"depth": 3}]


@pytest.mark.parametrize("drafts", [0, 1, 3])
@pytest.mark.parametrize("loop", LOOPS, ids=["plain", "overlapped", "deep"])
def test_a_request_can_be_aborted_at_every_point(loop, drafts):
    """Three requests in a cache too small for them; each is aborted before each step, in runs of their own."""
    asks = [
        Ask(prompt=(1,) * 7, max_tokens=7, temperature=0.7, n=3, seed=1, stream=True),
        Ask(prompt=(1,) * 6 + (2,), max_tokens=9),
        Ask(prompt=(1,) * 11, max_tokens=5, temperature=0.7, n=2, at=2, priority=-1),
    ]
    device = {"num_pages": 18, "block_size": 2, "max_rows": 4, "num_drafts": drafts}
    reasons = Counter()
    for caching in (True, False):
        for victim in range(3):
            for point in range(asks[victim].at + 1, 60):
                chosen = [attrs.evolve(ask, abort_at=point if i == victim else None) for i, ask in enumerate(asks)]
                options = {"budget": 6, "max_len": 24, "policy": MostUrgentFirst(), "caching": caching, **loop}
                engine, answers = answer_all(chosen, device, options)
                check_answers(engine, answers)
                reasons.update(sample.finish_reason for sample in answers[victim][1].outputs)
                if all(sample.finish_reason == "length" for sample in answers[victim][1].outputs):
                    break  # it had ended before
            else:
                raise AssertionError("the points end before the request does")
    assert reasons["abort"] > 60


@pytest.mark.parametrize("shard", range(4))
def test_ten_thousand_requests_pass_through_a_tiny_cache_without_a_leak(shard):
    """2,500 a shard, all through one engine; ``run`` checks at the end that nothing is left."""
    rng = random.Random(shard)
    drafts, window = [(0, None), (3, None), (1, 5), (0, 3)][shard]
    device = FakeDevice(num_pages=30, block_size=2, max_rows=6, num_drafts=drafts, window=window, follows=shard == 1)
    engine = make_engine(
        device, budget=12, max_len=40, overlapped=shard != 2, policy=MostUrgentFirst() if shard % 2 else None
    )
    asks: dict[str, Ask] = {}
    finished = Counter()

    def between(engine, i):
        while len(asks) < 2500 and len(engine.core.roster.requests) < 10:
            name, ask = str(len(asks)), random_ask(rng, longest=16, most_tokens=10)
            asks[name] = ask
            submit(engine, name, ask)
        if rng.random() < 0.1:
            engine.abort(str(rng.randint(max(0, len(asks) - 8), len(asks))))
        if rng.random() < 0.01:
            engine.core.cache.reset_prefix_cache()

    outputs = run(engine, between, most_steps=100_000, check_every=20)
    check_answers(engine, [(ask, outputs[name]) for name, ask in asks.items()])
    for output in outputs.values():
        finished["preempted"] += output.metrics.num_preemptions > 0
        finished["hit"] += output.num_cached_tokens > 0
        finished.update(sample.finish_reason for sample in output.outputs)
    assert len(outputs) == 2500
    assert min(finished[kind] for kind in ("preempted", "hit", "stop", "length", "abort")) > 50, finished
    assert engine.core.cache.stats().evictions > 100
    assert device.copied > 100


MALFORMED = [
    {"prompt": ()},
    {"prompt": (1, 97)},
    {"prompt": (1, -1)},
    {"prompt": (1,) * 40},
    {"prompt": "text"},
    {"priority": 1.5},
    {"priority": 2**40},
    {"salt": 7},
    {"salt": "x" * 2000},
    {"salt": "\ud800"},
    {"stop": (97,)},
]


@pytest.mark.parametrize("wrong", MALFORMED, ids=str)
@pytest.mark.parametrize("n", [1, 3])
def test_a_malformed_request_in_the_middle_of_a_batch_fails_alone(wrong, n):
    good = [Ask(prompt=(i,) * 5, max_tokens=6, temperature=0.7, n=2, at=i) for i in range(4)]
    bad = attrs.evolve(Ask(prompt=(1,) * 5, max_tokens=6, temperature=0.7, n=n), **wrong)
    engine = make_engine(FakeDevice(num_pages=40), max_len=40)

    def between(engine, i):
        if i < 4:
            submit(engine, str(i), good[i])
            with pytest.raises(RequestError, match="request bad: "):
                submit(engine, "bad", bad)

    outputs = run(engine, between)
    check_answers(engine, [(ask, outputs[str(i)]) for i, ask in enumerate(good)])
    assert "bad" not in outputs
