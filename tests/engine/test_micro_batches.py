"""Rows that decode take turns in a pipeline of several stages; prompts do not wait."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.engine.fake_device import FakeDevice, plain
from tests.engine.harness import check_books, make_engine, run
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.executor import StepOutOfMemory


def engine_with(prompts, stages, *, max_tokens=12, **options):
    device = FakeDevice(num_pages=200, max_rows=16, num_drafts=options.pop("num_drafts", 0))
    engine = make_engine(device, depth=stages + 1, **options)
    for i, prompt in enumerate(prompts):
        engine.add_request(str(i), prompt, SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True))
    return engine, device


def prompts_of(count, tokens=3):
    return [[i, *range(tokens - 1)] for i in range(count)]


def distances(device):
    """Steps between one in which a row samples and the next with it; how often, and how often of those that must wait.

    Nobody waits for what is known already, nor for others when there are none.
    """
    last, found, must = {}, Counter(), Counter()
    for plan in device.plans:
        known, in_flight = device.fetched_at[plan.step], plan.step - device.fetched_at[plan.step]
        for row, samples in zip(plan.rows, plan.samples, strict=True):
            if row in last:
                found[plan.step - last[row]] += 1
                must[plan.step - last[row]] += last[row] >= known and in_flight > 1
            if samples:
                last[row] = plan.step
    return found, +must


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_a_row_that_samples_runs_again_as_many_steps_later_as_there_are_stages(stages):
    engine, device = engine_with(prompts_of(8), stages, budget=6)
    outputs = run(engine)
    assert all(outputs[str(i)].outputs[0].token_ids == plain(p, 12) for i, p in enumerate(prompts_of(8)))
    found, must = distances(device)
    assert min(must) == stages
    assert must[stages] > found.total() / 2


def test_decoding_rows_are_shared_out_evenly_over_the_stages():
    engine, device = engine_with(prompts_of(7), 3, budget=64, max_tokens=40)
    run(engine)
    decoding = [plan for plan in device.plans if max(plan.num_tokens) == 1]
    assert {len(plan.rows) for plan in decoding[3:60]} == {1, 3}
    for one, two, three in zip(decoding[3:54:3], decoding[4:54:3], decoding[5:54:3], strict=False):
        assert sorted([*one.rows, *two.rows, *three.rows]) == sorted({*one.rows, *two.rows, *three.rows})
        assert len([*one.rows, *two.rows, *three.rows]) == 7


def test_as_many_steps_are_in_flight_as_there_are_stages_and_one_more():
    engine, device = engine_with(prompts_of(6), 3, max_tokens=30)
    most = 0

    def between(engine, i):
        nonlocal most
        most = max(most, len(engine.core.scheduler.flights))

    run(engine, between)
    assert most == 3  # and a fourth inside a step
    assert max(n - m for n, m in _launched_and_fetched(device)) == 4


def _launched_and_fetched(device):
    """Counts at each launch, told from the order in which results were fetched."""
    fetched = iter(device.fetched_at)
    return list(zip(range(1, len(device.launched) + 1), fetched, strict=False))


def test_chunks_of_one_prompt_follow_each_other_directly():
    engine, device = engine_with([list(range(40))], 4, budget=8, max_tokens=2)
    run(engine)
    assert [plan.num_tokens for plan in device.plans[:5]] == [[8]] * 5
    assert [plan.samples for plan in device.plans[:5]] == [[False]] * 4 + [[True]]
    assert len(device.fetched_at) >= 5
    assert device.fetched_at[3] == 0, "the fourth chunk was launched before the first had ended"


def test_a_lone_request_is_prepared_one_step_ahead_as_without_a_pipeline():
    engine, device = engine_with(prompts_of(1), 3)
    depth = []
    run(engine, lambda engine, i: depth.append(len(engine.core.scheduler.flights)))
    assert max(n - m for n, m in _launched_and_fetched(device)) == 2
    one, single = engine_with(prompts_of(1), 1)
    run(one)
    assert [plan.rows for plan in device.plans] == [plan.rows for plan in single.plans]


def test_one_step_at_a_time_needs_no_turns():
    engine, device = engine_with(prompts_of(4), 3, overlapped=False)
    run(engine)
    assert max(n - m for n, m in _launched_and_fetched(device)) == 1
    assert min(len(plan.rows) for plan in device.plans[1:-3]) >= 1


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_step_without_memory_is_computed_again_with_others_in_flight(stages):
    prompts = prompts_of(6)
    engine, device = engine_with(prompts, stages, max_tokens=10)
    launch, lost = device.launch, []

    def scarce(plan):
        if plan.step == 5:
            lost.append(plan.step)
            device.plans.append(plan)  # its number is used up
            device.wire.append(b"")
            raise StepOutOfMemory(plan.step, "none left")
        return launch(plan)

    device.launch = scarce
    outputs = run(engine)
    assert lost == [5]
    for i, prompt in enumerate(prompts):
        assert outputs[str(i)].outputs[0].token_ids == plain(prompt, 10)
    assert sum(output.metrics.num_preemptions for output in outputs.values()) > 0
    check_books(engine)
