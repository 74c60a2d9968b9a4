"""n > 1: samples of one prompt share its pages, draw their own noise, and end one by one."""

from __future__ import annotations

import pytest

from tests.engine.fake_device import FakeDevice, plain
from tests.engine.harness import check_books, make_engine, run
from tests.engine.test_core import Broken, Syllables
from vllm_core.engine.errors import RequestError
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.steps import NULL_PAGE

both_loops = pytest.mark.parametrize("overlapped", [True, False])
with_and_without_caching = pytest.mark.parametrize("caching", [True, False])


def params(n, max_tokens=6, **fields):
    return SamplingParams(n=n, max_tokens=max_tokens, seed=5, **fields)


def alone(prompt, i, max_tokens=6, **more):
    return plain(prompt, max_tokens, temperature=1.0, seed=5 + i, **more)


def tokens(output):
    return [sample.token_ids for sample in output.outputs]


def steps(engine, count):
    for _ in range(count):
        engine.step()
        check_books(engine)


@both_loops
@with_and_without_caching
def test_the_prompt_is_computed_once_and_its_whole_pages_are_shared(overlapped, caching):
    device = FakeDevice(num_pages=60, block_size=4, max_rows=8)
    engine = make_engine(device, overlapped=overlapped, caching=caching)
    prompt = list(range(1, 15))  # three pages and a half
    engine.add_request("a", prompt, params(5))
    most = 0
    while engine.has_work:
        outputs = engine.step()
        check_books(engine)
        tables = [request.cache.tables[0].pages for request in engine.core.roster.running]
        if len(tables) == 5:
            shared = set.intersection(*(set(table[:3]) for table in tables)) - {NULL_PAGE}
            assert len(shared) == 3
            assert len({table[3] for table in tables}) == 5  # what is written to is nobody else's
            most = max(most, len(set().union(*tables)))
    assert most == 3 + 5 * 2
    assert tokens(outputs[0]) == [alone(prompt, i) for i in range(5)]
    first = 14 + 4 * 1  # each other sample computes the prompt's last token, for its logits
    assert sum(sum(plan.num_tokens) for plan in device.plans) == first + 5 * 5
    assert device.copied == 4


def test_a_prompt_that_ends_with_its_page_is_not_copied():
    device = FakeDevice(block_size=4)
    engine = make_engine(device, caching=False)
    engine.add_request("a", [1] * 13, params(3))  # the thirteenth token is the one computed again
    assert tokens(run(engine)["a"]) == [alone([1] * 13, i) for i in range(3)]
    assert device.copied == 0


@both_loops
def test_sample_i_of_a_seeded_request_is_what_seed_plus_i_gets_alone_whatever_runs_beside_it(overlapped):
    engine = make_engine(FakeDevice(num_pages=30, block_size=2, max_rows=3, num_drafts=1), overlapped=overlapped)
    for name in range(4):
        engine.add_request(str(name), [1, 2, name], params(4))
    outputs = run(engine)
    for name in range(4):
        assert tokens(outputs[str(name)]) == [alone([1, 2, name], i) for i in range(4)]


def test_samples_without_a_seed_differ_and_are_the_same_again_in_a_new_engine():
    def draw():
        engine = make_engine(FakeDevice())
        engine.add_request("a", [1], SamplingParams(n=6, max_tokens=8))
        return tokens(run(engine)["a"])

    first = draw()
    assert len(set(map(tuple, first))) == 6
    assert draw() == first


@both_loops
def test_while_the_prompt_is_computed_the_other_samples_take_no_row_and_hold_nobody_up(overlapped):
    device = FakeDevice(num_pages=100, max_rows=8)
    engine = make_engine(device, budget=8, overlapped=overlapped)
    engine.add_request("a", [1] * 30, params(4))
    engine.add_request("b", [2] * 3, params(1))
    while len(engine.core.roster.running) < 2 and engine.has_work:
        engine.step()
        check_books(engine)
    assert [request.request_id for request in engine.core.roster.running] == ["a/0", "b"]
    outputs = run(engine)
    assert tokens(outputs["a"]) == [alone([1] * 30, i) for i in range(4)]


@with_and_without_caching
def test_more_samples_than_rows_run_one_after_the_other(caching):
    engine = make_engine(FakeDevice(num_pages=40, max_rows=2), caching=caching)
    engine.add_request("a", [3] * 9, params(7))
    assert tokens(run(engine)["a"]) == [alone([3] * 9, i) for i in range(7)]


@with_and_without_caching
def test_samples_of_one_token_end_before_others_begin(caching):
    engine = make_engine(FakeDevice(num_pages=40), caching=caching)
    engine.add_request("a", [3] * 9, params(4, max_tokens=1))
    assert tokens(run(engine)["a"]) == [alone([3] * 9, i, 1) for i in range(4)]


@both_loops
def test_samples_that_outgrow_a_tiny_cache_are_preempted_and_keep_their_tokens(overlapped):
    engine = make_engine(FakeDevice(num_pages=17, block_size=2, max_rows=6), overlapped=overlapped, budget=32)
    engine.add_request("a", [1] * 9, params(5, max_tokens=12))
    output = run(engine)["a"]
    assert output.metrics.num_preemptions > 0
    assert tokens(output) == [alone([1] * 9, i, 12) for i in range(5)]


@both_loops
@pytest.mark.parametrize("before", range(1, 8))
def test_one_sample_that_is_aborted_leaves_the_others(overlapped, before):
    for victim in range(3):
        engine = make_engine(FakeDevice(num_pages=40), overlapped=overlapped, budget=8)
        engine.add_request("a", [1] * 20, params(3))
        steps(engine, before)
        engine.core.abort(f"a/{victim}")
        output = run(engine)["a"]
        for i, sample in enumerate(output.outputs):
            right = alone([1] * 20, i)
            assert sample.token_ids == (right[: len(sample.token_ids)] if i == victim else right)
            assert sample.finish_reason == ("abort" if i == victim else "length")


@both_loops
def test_the_end_of_a_request_ends_all_its_samples(overlapped):
    engine = make_engine(FakeDevice(num_pages=40), overlapped=overlapped)
    engine.add_request("a", [1] * 5, params(3, max_tokens=20))
    steps(engine, 5)
    engine.abort("a")
    output = run(engine)["a"]
    assert [sample.finish_reason for sample in output.outputs] == ["abort"] * 3


def test_a_sample_whose_text_cannot_be_made_fails_alone():
    right = [alone([1], i, 12) for i in range(3)]
    poison = next(token for token in right[1] if token not in [1, *right[0], *right[2]])
    engine = make_engine(FakeDevice(), tokenizer=Broken(poison))
    engine.add_request("a", [1], params(3, max_tokens=12), stream=True)
    output = run(engine)["a"]
    assert [sample.finish_reason for sample in output.outputs] == ["length", "error", "length"]
    assert "this token has no text" in output.error
    assert [tokens(output)[i] for i in (0, 2)] == [right[0], right[2]]


def test_a_stop_string_ends_its_sample_and_the_stream_shows_all_of_them():
    engine = make_engine(FakeDevice(), tokenizer=Syllables())
    texts = [Syllables().decode(alone([1], i, 20)) for i in range(4)]
    stop = texts[2][5:8]
    engine.add_request("a", [1], params(4, max_tokens=20, stop=[stop]), stream=True)
    seen = []
    while engine.has_work:
        seen += engine.step()
        check_books(engine)
    for text, sample in zip(texts, seen[-1].outputs, strict=True):
        assert sample.text == text.split(stop)[0]
        assert sample.stop_reason == (stop if stop in text else None)
    assert all(len(output.outputs) == 4 for output in seen)
    assert [output.finished for output in seen] == [False] * (len(seen) - 1) + [True]
    ends = [sum(sample.finished for sample in output.outputs) for output in seen]
    assert ends == sorted(ends)
    assert len(set(ends)) > 2  # one by one


def test_metrics_are_those_of_the_request_as_a_whole():
    engine = make_engine(FakeDevice(num_pages=60), overlapped=False)
    engine.add_request("before", [1] * 9, params(1))
    run(engine)
    engine.add_request("a", [1] * 9, params(3), arrival_time=17.0)
    output = run(engine)["a"]
    assert output.metrics.arrival_time == 17.0
    assert output.metrics.first_token_time <= output.metrics.finished_time
    assert output.num_cached_tokens == 8  # found by the first; what it shared with the others is no hit


def test_a_name_that_a_sample_would_take_is_refused_and_leaves_nothing():
    engine = make_engine(FakeDevice())
    engine.add_request("a/1", [7], params(1))
    with pytest.raises(RequestError, match="request a/1: a request with this id is running already"):
        engine.add_request("a", [1], params(3))
    outputs = run(engine)
    assert list(outputs) == ["a/1"]


def test_a_full_queue_refuses_requests_and_never_the_samples_of_one_that_it_took():
    engine = make_engine(FakeDevice(max_rows=2), max_waiting=1)
    engine.add_request("a", [1], params(8))
    engine.add_request("b", [2], params(1))
    engine.add_request("c", [3], params(2))
    with pytest.raises(RequestError, match=r"request d: the queue is full \(max_waiting_requests=1\)"):
        engine.add_request("d", [4], params(2))
    outputs = run(engine)
    assert {name: len(output.outputs) for name, output in outputs.items()} == {"a": 8, "b": 1, "c": 2}
    engine.add_request("d", [4], params(2))
    assert len(run(engine)["d"].outputs) == 2
