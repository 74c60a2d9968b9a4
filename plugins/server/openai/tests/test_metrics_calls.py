"""What is counted of requests to the engine. Outputs are made by hand, so that every figure is known."""

import time
from types import SimpleNamespace as Bag

import pytest
from prometheus_client import CollectorRegistry, Histogram
from vllm_plugin_server.metrics import buckets
from vllm_plugin_server.metrics.calls import CallFigures
from vllm_plugin_server.metrics.tally import Tally
from vllm_plugin_server.observe import Call


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def figures(registry):
    return CallFigures(registry, "vllm:", "tiny", 100)


def call(prompt=10, **params):
    return Call("req-1-0", "/v1/completions", "tiny", prompt, Bag(**{"n": 1, "max_tokens": 16, **params}))


def output(*counts, reasons=None, cached=0, prompt=10, first=None, arrived=None):
    """What the engine says when its samples have so many tokens."""
    reasons = reasons or [None] * len(counts)
    arrived = time.time() - 1 if arrived is None else arrived
    metrics = Bag(
        arrival_time=arrived,
        first_token_time=first,
        engine=0,
        time_to_first_token=None if first is None else first - arrived,
    )
    samples = [Bag(token_ids=[7] * n, finish_reason=r) for n, r in zip(counts, reasons, strict=True)]
    return Bag(outputs=samples, metrics=metrics, prompt_token_ids=[1] * prompt, num_cached_tokens=cached)


def value(registry, name, **labels):
    return registry.get_sample_value(f"vllm:{name}", {"model_name": "tiny", "engine": "0", **labels})


def test_prompts_are_counted_when_their_first_token_comes(registry, figures):
    one = call()
    figures.began(one)
    assert value(registry, "prompt_tokens_total") == 0
    now = time.time()
    figures.output(one, output(1, cached=4, first=now, arrived=now - 0.03))
    figures.output(one, output(2, cached=4, first=now, arrived=now - 0.03))
    assert value(registry, "prompt_tokens_total") == 10
    assert value(registry, "prompt_tokens_cached_total") == 4
    assert value(registry, "time_to_first_token_seconds_count") == 1
    assert value(registry, "time_to_first_token_seconds_sum") == pytest.approx(0.03)


def test_each_sample_ends_for_its_own_reason(registry, figures):
    two = call(n=2)
    figures.began(two)
    last = output(3, 8, reasons=["stop", "length"])
    figures.output(two, last)
    figures.ended(two, "stop", last)
    assert value(registry, "request_success_total", finished_reason="stop") == 1
    assert value(registry, "request_success_total", finished_reason="length") == 1
    assert value(registry, "request_generation_tokens_sum") == 11
    assert value(registry, "request_max_num_generation_tokens_sum") == 8
    assert value(registry, "request_params_n_sum") == 2


def test_a_request_that_is_left_before_its_first_token_counts_as_aborted(registry, figures):
    left = call()
    figures.began(left)
    assert value(registry, "api_server_requests") == 1
    figures.ended(left, "abort", None)
    assert value(registry, "api_server_requests") == 0
    assert value(registry, "request_success_total", finished_reason="abort") == 1
    assert value(registry, "time_to_first_token_seconds_count") == 0
    assert value(registry, "request_prompt_tokens_sum") == 10


def test_a_clock_that_is_set_back_makes_no_negative_time(registry, figures):
    now = time.time()
    one = call()
    one.arrived = now + 60
    figures.began(one)
    last = output(3, reasons=["stop"], arrived=now + 60, first=now)
    figures.output(one, last)
    figures.ended(one, "stop", last)
    sums = [s for m in registry.collect() for s in m.samples if s.name.endswith("_sum")]
    assert sums
    assert all(s.value >= 0 for s in sums)


def test_a_tally_is_prometheus_own_histogram():
    registry, tally = CollectorRegistry(), Tally(buckets.GAP)
    histogram = Histogram("x", "", registry=registry, buckets=buckets.GAP)
    for amount in (0.0, 0.01, 0.0100001, 0.4, 80.0, 1000.0):
        tally.add(amount, 3)
        for _ in range(3):
            histogram.observe(amount)
    theirs = histogram.collect()[0].samples
    assert tally.rows() == [(s.labels["le"], s.value) for s in theirs if s.name == "x_bucket"]
    assert tally.total == pytest.approx(next(s.value for s in theirs if s.name == "x_sum"))


@pytest.mark.parametrize(("longest", "last"), [(1, 1), (99, 50), (100, 100), (2048, 2000)])
def test_buckets_of_tokens_end_where_requests_do(longest, last):
    assert buckets.tokens_up_to(longest)[-1] == last
