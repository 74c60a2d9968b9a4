"""The policy ``priority``: who is urgent runs first, and in the place of who is not."""

from __future__ import annotations

import pytest

from tests.engine.fake_device import FakeDevice, plain
from tests.engine.harness import check_books, make_engine, run
from tests.engine.mixes import Ask, answer_all, check_answers, random_mix
from vllm_core.engine.policy import MostUrgentFirst
from vllm_core.engine.sampling_params import SamplingParams

both_loops = pytest.mark.parametrize("overlapped", [True, False])


def urgent_first(device, **settings):
    return make_engine(device, policy=MostUrgentFirst(), **settings)


def ask(engine, name, prompt, max_tokens, priority=0):
    engine.add_request(name, prompt, SamplingParams(temperature=0, max_tokens=max_tokens), priority=priority)


def steps(engine, count):
    for _ in range(count):
        engine.step()
        check_books(engine)


def running(engine):
    return [request.request_id for request in engine.core.roster.running]


def preemptions(outputs):
    return {name: output.metrics.num_preemptions for name, output in outputs.items()}


@both_loops
def test_smaller_numbers_run_first_and_then_who_came_first(overlapped):
    engine = urgent_first(FakeDevice(max_rows=1), overlapped=overlapped)
    for name, priority in (("c", 1), ("d", 2), ("a", -1), ("e", 2), ("b", 0)):
        ask(engine, name, [1], 3, priority)
    assert list(run(engine)) == ["a", "b", "c", "d", "e"]


@both_loops
def test_who_is_urgent_takes_the_row_of_who_is_least_urgent(overlapped):
    engine = urgent_first(FakeDevice(max_rows=2), overlapped=overlapped)
    ask(engine, "low", [1, 2], 20, 5)
    ask(engine, "lowest", [3, 4], 20, 9)
    steps(engine, 4)
    ask(engine, "urgent", [5, 6], 4, 1)
    steps(engine, 3)
    assert running(engine) == ["urgent", "low"]
    outputs = run(engine)
    assert preemptions(outputs) == {"urgent": 0, "low": 0, "lowest": 1}
    assert outputs["lowest"].outputs[0].token_ids == plain([3, 4], 20)


@both_loops
def test_who_is_urgent_takes_as_many_pages_as_it_needs_and_no_more(overlapped):
    engine = urgent_first(FakeDevice(num_pages=33, block_size=2, max_rows=8), overlapped=overlapped, budget=16)
    for i in range(3):
        ask(engine, str(i), [i + 1] * 12, 8, 5)  # ten pages each at the end
    steps(engine, 6)
    assert len(running(engine)) == 3
    ask(engine, "urgent", [9] * 12, 3, 0)
    outputs = run(engine)
    assert preemptions(outputs) == {"urgent": 0, "0": 0, "1": 0, "2": 1}
    assert list(outputs).index("urgent") < list(outputs).index("2")
    assert all(outputs[str(i)].outputs[0].token_ids == plain([i + 1] * 12, 8) for i in range(3))


@both_loops
def test_nobody_gives_way_to_its_equal(overlapped):
    engine = urgent_first(FakeDevice(max_rows=1), overlapped=overlapped)
    ask(engine, "first", [1], 12, 3)
    steps(engine, 3)
    ask(engine, "second", [2], 3, 3)
    outputs = run(engine)
    assert preemptions(outputs) == {"first": 0, "second": 0}
    assert list(outputs) == ["first", "second"]


@both_loops
def test_nobody_gives_way_in_vain(overlapped):
    engine = urgent_first(FakeDevice(num_pages=33, block_size=2, max_rows=4), overlapped=overlapped, budget=8)
    ask(engine, "most", [1] * 40, 8, 0)  # 24 of 32 pages
    steps(engine, 7)
    ask(engine, "least", [2] * 4, 6, 9)
    steps(engine, 2)
    ask(engine, "long", [3] * 36, 2, 5)  # does not fit beside the first, whoever else goes
    outputs = run(engine)
    assert preemptions(outputs) == {"most": 0, "least": 0, "long": 0}
    assert list(outputs)[-1] == "long"


@both_loops
def test_nobody_gives_way_for_pages_that_somebody_else_keeps(overlapped):
    engine = urgent_first(FakeDevice(num_pages=33, block_size=2, max_rows=4), overlapped=overlapped, budget=8)
    ask(engine, "most", [1] * 40, 8, 0)
    steps(engine, 7)
    ask(engine, "least", [1] * 40, 6, 9)  # shares nearly all of its pages
    steps(engine, 2)
    assert running(engine) == ["most", "least"]
    ask(engine, "long", [3] * 36, 2, 5)
    outputs = run(engine)
    assert preemptions(outputs) == {"most": 0, "least": 0, "long": 0}


def test_a_policy_that_preempts_is_asked_once_a_request():
    asked = []

    class Counting(MostUrgentFirst):
        def key(self, request):
            asked.append(request.request_id)
            return super().key(request)

    engine = make_engine(FakeDevice(max_rows=1), policy=Counting())
    ask(engine, "low", [1], 9, 1)
    steps(engine, 3)
    ask(engine, "urgent", [2], 3, 0)
    assert preemptions(run(engine)) == {"urgent": 0, "low": 1}
    assert asked == ["low", "urgent"]


@both_loops
def test_who_is_urgent_begins_before_a_long_prompt_goes_on(overlapped):
    device = FakeDevice(num_pages=300, max_rows=4)
    engine = urgent_first(device, overlapped=overlapped, budget=8, max_len=256)
    ask(engine, "long", [1] * 200, 2, 5)
    steps(engine, 3)
    ask(engine, "urgent", [2] * 8, 2, 0)
    before = len(device.plans)
    steps(engine, 1)
    assert device.plans[before].num_tokens == [8]
    assert list(run(engine)) == ["urgent", "long"]


@both_loops
def test_a_prompt_that_lacks_pages_gets_those_of_less_urgent_rows_that_decode(overlapped):
    engine = urgent_first(FakeDevice(num_pages=21, block_size=1, max_rows=2), overlapped=overlapped, budget=3)
    ask(engine, "low", [1] * 4, 15, 9)
    steps(engine, 3)
    ask(engine, "urgent", [2] * 10, 5, 0)  # there is room for all of it, but the other one grows meanwhile
    outputs = run(engine)
    assert list(outputs) == ["urgent", "low"]
    assert preemptions(outputs)["urgent"] == 0
    assert outputs["low"].outputs[0].token_ids == plain([1] * 4, 15)


def test_a_stream_of_urgent_requests_holds_the_others_up_only_while_it_lasts():
    engine = urgent_first(FakeDevice(max_rows=2, num_pages=40))
    ask(engine, "patient", [1] * 3, 6, 1)

    def between(engine, i):
        if i < 60:
            ask(engine, f"urgent {i}", [2 + i % 3], 4, 0)

    outputs = run(engine, between)
    assert list(outputs)[-1] == "patient"
    assert outputs["patient"].outputs[0].token_ids == plain([1] * 3, 6)
    assert preemptions(outputs)["patient"] <= 1  # it does not come back only to be sent away


def test_in_random_mixes_every_request_ends_and_the_most_urgent_one_is_never_preempted():
    preempted = 0
    for number in range(500):
        asks, device, settings = random_mix(number)
        urgent = Ask(prompt=(1,) * (1 + number % 9), max_tokens=12, at=number % 17, priority=-1)
        engine, answers = answer_all([*asks, urgent], device, settings | {"policy": MostUrgentFirst()})
        check_answers(engine, answers)
        counts = {ask: output.metrics.num_preemptions for ask, output in answers}
        assert counts.get(urgent, 0) == 0
        preempted += sum(counts.values())
    assert preempted > 300
