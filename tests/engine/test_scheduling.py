"""What the scheduler does, one thing at a time. ``test_random_mixes`` has everything at once."""

from __future__ import annotations

import pytest

from tests.engine.fake_device import FakeDevice, plain
from tests.engine.harness import make_engine, run
from tests.engine.mixes import LastComeFirstServed
from vllm_core.engine.errors import RequestError
from vllm_core.engine.sampling_params import SamplingParams


def ask_many(engine, prompts, **params):
    for i, prompt in enumerate(prompts):
        engine.add_request(str(i), prompt, SamplingParams(temperature=0, **params))


def right(outputs, prompts, max_tokens):
    return all(outputs[str(i)].outputs[0].token_ids == plain(p, max_tokens) for i, p in enumerate(prompts))


@pytest.mark.parametrize("overlapped", [False, True])
def test_requests_that_outgrow_a_tiny_cache_are_preempted_and_get_the_same_tokens(overlapped):
    engine = make_engine(FakeDevice(num_pages=17, block_size=2, max_rows=4), overlapped=overlapped, budget=32)
    prompts = [[i] * 6 for i in range(4)]
    ask_many(engine, prompts, max_tokens=20)
    outputs = run(engine)
    assert right(outputs, prompts, 20)
    preempted = [outputs[str(i)].metrics.num_preemptions for i in range(4)]
    assert sum(preempted) > 0
    assert preempted[0] == 0  # the victim is the one that came last
    assert sum(preempted) <= 8  # and does not come back only to be preempted at once


def test_pages_on_their_way_back_are_waited_for_before_somebody_else_is_preempted():
    preempted = []
    for overlapped in (False, True):
        engine = make_engine(FakeDevice(num_pages=33, block_size=2, max_rows=8), overlapped=overlapped, budget=64)
        ask_many(engine, [[i] * 6 for i in range(8)], max_tokens=24)
        preempted.append(sum(output.metrics.num_preemptions for output in run(engine).values()))
    plain_loop, overlapped_loop = preempted
    assert overlapped_loop <= plain_loop + 2


def test_what_a_preempted_request_sampled_last_is_kept():
    device = FakeDevice(num_pages=17, block_size=2, max_rows=4)
    engine = make_engine(device, budget=32)
    ask_many(engine, [[i] * 6 for i in range(4)], max_tokens=20)
    outputs = run(engine)
    assert sum(output.metrics.num_preemptions for output in outputs.values()) > 0
    assert device.sampled == 4 * 20  # no token was drawn twice


def test_a_prompt_waits_until_all_of_it_has_room():
    engine = make_engine(FakeDevice(num_pages=13, block_size=2, max_rows=2), budget=6)
    engine.add_request("runs", [1] * 4, SamplingParams(temperature=0, max_tokens=10))
    engine.add_request("waits", [2] * 20, SamplingParams(temperature=0, max_tokens=2))
    outputs = run(engine)
    assert outputs["waits"].outputs[0].token_ids == plain([2] * 20, 2)
    assert outputs["waits"].metrics.num_preemptions == 0


def test_a_prompt_that_waits_for_room_starts_when_the_first_request_makes_it():
    device = FakeDevice(num_pages=17, block_size=2, max_rows=3)
    engine = make_engine(device, budget=32, overlapped=False)
    for name, prompt, max_tokens in (("short", [1] * 8, 2), ("long", [2] * 8, 8), ("waits", [3] * 16, 2)):
        engine.add_request(name, prompt, SamplingParams(temperature=0, max_tokens=max_tokens))
    outputs = run(engine)
    assert outputs["waits"].metrics.finished_time < outputs["long"].metrics.finished_time
    starts = [plan.step for plan in device.plans if plan.inits]
    assert starts == [0, 2]


@pytest.mark.parametrize("overlapped", [False, True])
def test_a_shared_beginning_is_computed_once(overlapped):
    device = FakeDevice(num_pages=200, block_size=4, max_rows=4)
    engine = make_engine(device, overlapped=overlapped, budget=64)
    prompts = [[7] * 33 + [i] for i in range(4)]
    ask_many(engine, prompts[:1], max_tokens=3)
    assert right(run(engine), prompts[:1], 3)
    before = sum(sum(p.num_tokens) for p in device.plans)
    ask_many(engine, prompts, max_tokens=3)
    outputs = run(engine)
    assert right(outputs, prompts, 3)
    assert [outputs[str(i)].num_cached_tokens for i in range(4)] == [32] * 4
    assert sum(sum(p.num_tokens) for p in device.plans) - before <= 4 * (2 + 3)


def test_a_long_prompt_is_computed_in_chunks_beside_rows_that_decode():
    device = FakeDevice(num_pages=200, max_rows=2)
    engine = make_engine(device, budget=8, overlapped=False, max_len=128)
    prompts = [[1], [2] * 60]
    ask_many(engine, prompts, max_tokens=20)
    assert right(run(engine), prompts, 20)
    mixed = [p for p in device.plans if len(p.rows) == 2 and not all(p.samples)]
    assert len(mixed) >= 7  # 60 tokens by 7, beside one token of the other row
    assert all(sorted(p.num_tokens) == [1, 7] for p in mixed[1:-1])
    assert all(sum(p.num_tokens) <= 8 for p in device.plans)


def test_the_overlapped_loop_launches_a_step_before_it_fetches_the_last_one():
    device = FakeDevice(max_rows=2)
    engine = make_engine(device)
    seen = []
    launch = device.launch
    device.launch = lambda plan: (seen.append(len(device.launched) - len(device.fetched)), launch(plan))[1]
    ask_many(engine, [[1], [2]], max_tokens=10)
    assert right(run(engine), [[1], [2]], 10)
    assert seen[0] == 0
    assert set(seen[1:]) == {1}


def test_the_plain_loop_has_one_step_in_flight():
    device = FakeDevice(max_rows=2)
    engine = make_engine(device, overlapped=False)
    ask_many(engine, [[1], [2]], max_tokens=10)
    engine.step()
    assert device.launched == device.fetched == [0]


def test_a_step_that_is_done_is_taken_in_before_the_next_one_is_scheduled():
    device = FakeDevice(max_rows=1, slow=False)
    engine = make_engine(device)
    engine.add_request("0", [1], SamplingParams(temperature=0, max_tokens=99, stop_token_ids=[plain([1], 3)[-1]]))
    assert len(run(engine)["0"].outputs[0].token_ids) == 3
    assert len(device.plans) == 3  # no extra step for a request whose end was known


def test_correct_drafts_save_steps_and_none_goes_beyond_the_limit():
    device = FakeDevice(max_rows=1, num_drafts=3, accept=1.0)
    engine = make_engine(device)
    ask_many(engine, [[1]], max_tokens=21)
    assert right(run(engine), [[1]], 21)
    assert len(device.plans) <= 8
    assert max(max(p.kv_bounds) for p in device.plans) <= 21


def test_a_request_is_never_scheduled_past_its_last_token():
    device = FakeDevice(max_rows=1)
    engine = make_engine(device)
    ask_many(engine, [[1, 2, 3]], max_tokens=5)
    run(engine)
    assert sum(p.num_tokens[0] for p in device.plans) == 3 + 4


def test_limits_of_rows_and_of_running_requests_hold():
    device = FakeDevice(max_rows=3, num_pages=200)
    engine = make_engine(device, budget=64)
    prompts = [[i] for i in range(9)]
    ask_many(engine, prompts, max_tokens=5)
    assert right(run(engine), prompts, 5)
    assert max(len(p.rows) for p in device.plans) == 3


def test_a_prompt_longer_than_the_cache_is_refused_and_others_run():
    engine = make_engine(FakeDevice(num_pages=5, block_size=4, max_rows=2), max_len=64)
    with pytest.raises(RequestError, match=r"request long: the prompt has 16 tokens; .* must fit into 16"):
        engine.add_request("long", [1] * 16, SamplingParams())
    engine.add_request("fits", [1] * 15, SamplingParams(temperature=0))
    assert run(engine)["fits"].outputs[0].token_ids == plain([1] * 15, 1)


def test_an_id_in_use_is_refused_and_may_be_used_again_afterwards():
    engine = make_engine(FakeDevice())
    engine.add_request("a", [1], SamplingParams(temperature=0))
    with pytest.raises(RequestError, match="request a: a request with this id is running already"):
        engine.add_request("a", [1], SamplingParams())
    run(engine)
    engine.add_request("a", [1], SamplingParams(temperature=0))
    assert len(run(engine)["a"].outputs[0].token_ids) == 16


def test_a_new_engine_has_no_work_and_a_finished_one_neither():
    engine = make_engine(FakeDevice())
    assert not engine.has_work
    ask_many(engine, [[1]], max_tokens=3)
    assert engine.has_work
    run(engine)
    assert not engine.has_work


def test_requests_without_a_seed_draw_differently_and_the_same_again_in_a_new_engine():
    def draw():
        engine = make_engine(FakeDevice())
        for i in range(3):
            engine.add_request(str(i), [1], SamplingParams(temperature=1.0, max_tokens=8))
        outputs = run(engine)
        return [tuple(outputs[str(i)].outputs[0].token_ids) for i in range(3)]

    first = draw()
    assert len(set(first)) == 3
    assert draw() == first


@pytest.mark.parametrize("overlapped", [False, True])
def test_a_row_that_is_already_in_the_step_is_never_the_victim(overlapped):
    engine = make_engine(
        FakeDevice(num_pages=20, block_size=1, max_rows=2),
        overlapped=overlapped,
        budget=2,
        max_len=19,
        policy=LastComeFirstServed(),
    )
    old, urgent = [1] * 4, [2] * 12  # the urgent one gets a chunk of one token a step, beside a growing row
    engine.add_request("0", old, SamplingParams(temperature=0, max_tokens=15))
    for _ in range(4):
        engine.step()
    engine.add_request("1", urgent, SamplingParams(temperature=0, max_tokens=3))
    outputs = run(engine)
    assert outputs["0"].outputs[0].token_ids == plain(old, 15)
    assert outputs["1"].outputs[0].token_ids == plain(urgent, 3)
