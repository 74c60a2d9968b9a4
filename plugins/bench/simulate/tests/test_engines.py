"""Engines in simulated time, against oracles that need no simulation."""

import math

import pytest
from vllm_plugin_simulate.figures import figures
from vllm_plugin_simulate.fleet import simulate, thinned
from vllm_plugin_simulate.requests import Sketch, synthetic
from vllm_plugin_simulate.step_time import Work

from vllm_core.commands import UsageError


def batch(count, tokens_in=64, tokens_out=32, at=0.0):
    return [Sketch(at, tokens_in, tokens_out) for _ in range(count)]


def throughput(engine, sketches, engines=1, **more):
    run = simulate(engine.replica, sketches, engines=engines, **more)
    return figures(run, engine.split.gpus * engines)["output_throughput"]


@pytest.mark.parametrize("overlap", [True, False])
def test_a_request_alone_takes_the_sum_of_its_steps(engine_of, overlap):
    engine = engine_of(async_scheduling=overlap)
    time, host = engine.time, engine.host
    (outcome,) = simulate(engine.replica, batch(1, 100, 5)).outcomes
    steps = [time.seconds(Work(0, 0, ((100, 0),), 1))] + [time.seconds(Work(1, 101 + i, (), 1)) for i in range(4)]
    plan = host.step_seconds + host.schedule_row_seconds + host.prepare_row_seconds
    taken = 100 * host.prompt_token_seconds + sum(steps)
    # Without overlap the host works before and after each step; with it only before the first and after the last.
    taken += (plan if overlap else 5 * plan) + (1 if overlap else 5) * host.retire_row_seconds
    assert outcome.times[-1] == pytest.approx(taken, rel=1e-9)
    assert len(outcome.times) == 5


def test_an_idle_engine_waits_for_the_next_request(engine_of):
    engine = engine_of()
    alone, later = simulate(engine.replica, batch(1) + batch(1, at=100.0)).outcomes
    assert later.times[0] - 100 == pytest.approx(alone.times[0], rel=1e-9)


def test_n_engines_do_n_times_what_one_does(engine_of):
    engine = engine_of()
    one = throughput(engine, batch(32))
    assert throughput(engine, batch(128), engines=4) == pytest.approx(4 * one, rel=1e-9)


def test_n_engines_at_n_times_the_rate_are_as_quick_as_one(engine_of):
    engine = engine_of()
    sketches = synthetic(100, 20, 200, 50)
    one = figures(simulate(engine.replica, sketches), 1)
    each_thrice = [sketch for sketch in sketches for _ in range(3)]
    three = figures(simulate(engine.replica, each_thrice, engines=3, route="round-robin"), 3)
    for name in ("mean_ttft_ms", "p99_tpot_ms", "mean_itl_ms", "p99_e2el_ms"):
        assert three[name] == pytest.approx(one[name], rel=1e-9)
    assert three["request_throughput"] == pytest.approx(3 * one["request_throughput"], rel=1e-9)


def test_a_router_that_sees_loads_makes_engines_quicker_than_one_alone(engine_of):
    engine = engine_of("llama-3.1-8b", max_num_seqs=8)
    one = figures(simulate(engine.replica, synthetic(60, 10, 200, 50)), 1)
    four = figures(simulate(engine.replica, synthetic(240, 40, 200, 50), engines=4), 4)
    assert four["p99_ttft_ms"] < one["p99_ttft_ms"]


def test_engines_that_are_not_simulated_are_scaled_up_from_those_that_are(engine_of):
    engine = engine_of()
    sketches = synthetic(1600, 160, 200, 20)
    run = simulate(engine.replica, sketches, engines=16, most=4)
    assert (run.simulated, len(run.outcomes), run.scale) == (4, 400, 4.0)
    whole = figures(simulate(engine.replica, sketches, engines=16, most=16), 16)
    sampled = figures(run, 16)
    assert sampled["completed"] == whole["completed"] == 1600
    assert sampled["output_throughput"] == pytest.approx(whole["output_throughput"], rel=0.05)
    assert sampled["mean_tpot_ms"] == pytest.approx(whole["mean_tpot_ms"], rel=0.1)


def test_a_random_share_keeps_the_order_of_arrival():
    kept = thinned(synthetic(1000, 10, 5, 5), 0.1)
    assert len(kept) == 100
    assert [one.arrival for one in kept] == sorted(one.arrival for one in kept)


def test_the_router_prefers_the_engine_with_the_fewest_requests(engine_of):
    engine = engine_of(max_num_seqs=2)
    long, short = Sketch(0.0, 64, 1500), Sketch(0.0, 64, 4)
    sketches = [long, short] * 2 + [Sketch(1.0, 64, 4) for _ in range(2)]
    loaded = figures(simulate(engine.replica, sketches, engines=2, route="least-loaded"), 2)
    blind = figures(simulate(engine.replica, sketches, engines=2, route="round-robin"), 2)
    assert loaded["p99_ttft_ms"] < blind["p99_ttft_ms"] / 10


@pytest.mark.parametrize("pp", [2, 4])
def test_stages_with_enough_requests_approach_the_slowest_stage(engine_of, pp):
    engine = engine_of("llama-3.1-8b", pp=pp, max_num_seqs=64)
    run = simulate(engine.replica, batch(64, 16, 400))
    rows = 64 // pp
    step = max(engine.time.seconds(Work(rows, rows * 216, (), rows), stage) for stage in range(pp))
    assert run.outcomes[0].times[-1] == pytest.approx(400 * pp * step, rel=0.05)
    assert run.busy > 0.95


@pytest.mark.parametrize("pp", [2, 4])
def test_a_stage_idles_while_the_only_request_is_in_another(engine_of, pp):
    engine = engine_of("llama-3.1-8b", pp=pp)
    (outcome,) = simulate(engine.replica, batch(1, 64, 100)).outcomes
    time = engine.time
    sends = (pp - 1) * time.split.send_seconds(0, time.send_bytes(1)) + time.split.back_seconds()
    token = sum(time.seconds(Work(1, 115, (), 1), stage) for stage in range(pp)) + sends
    assert outcome.times[-1] - outcome.times[0] == pytest.approx(99 * token, rel=0.02)


def test_chunks_of_a_long_prompt_follow_each_other_through_the_stages(engine_of):
    """Their tokens are all known, so a stage begins with a chunk while the next one has the chunk before."""
    limits = {"max_model_len": 20_000, "max_num_batched_tokens": 1024}
    one = simulate(engine_of("llama-3.1-8b", **limits).replica, batch(1, 16_000, 1)).outcomes[0].times[0]
    two = simulate(engine_of("llama-3.1-8b", pp=2, **limits).replica, batch(1, 16_000, 1)).outcomes[0].times[0]
    assert two < 0.62 * one


def test_one_stream_is_no_faster_for_stages(engine_of):
    one = throughput(engine_of("llama-3.1-8b"), batch(1, 16, 200))
    assert throughput(engine_of("llama-3.1-8b", pp=2), batch(1, 16, 200)) <= one


def test_what_does_not_fit_the_cache_is_preempted_and_still_done(engine_of):
    engine = engine_of(gpu_memory_utilization=0.028, max_num_seqs=32)
    assert engine.memory.tokens < 32 * 1000
    run = simulate(engine.replica, batch(32, 200, 800))
    assert run.preemptions > 0
    assert all(len(one.times) == 800 for one in run.outcomes)


def test_a_common_prefix_is_computed_once(engine_of):
    engine = engine_of()
    sketches = [Sketch(10.0 * i, 1500, 4, shared_tokens=1408) for i in range(2)]
    first, second = simulate(engine.replica, sketches).outcomes
    assert second.times[0] - 10 < 0.7 * first.times[0]
    off = engine_of(enable_prefix_caching=False)
    first, second = simulate(off.replica, sketches).outcomes
    assert second.times[0] - 10 == pytest.approx(first.times[0])


def test_figures_are_those_of_the_times():
    from vllm_plugin_simulate.fleet import Run
    from vllm_plugin_simulate.replica import Outcome

    outcomes = [Outcome(1.0, 10, 3, [2.0, 2.5, 4.0]), Outcome(2.0, 20, 1, [5.0])]
    run = Run(outcomes=outcomes, scale=10.0, engines=10, simulated=1, busy=0.5, preemptions=1)
    found = figures(run, gpus=20)
    assert found["duration"] == 4.0
    assert (found["completed"], found["total_input_tokens"], found["total_output_tokens"]) == (20, 300, 40)
    assert (found["request_throughput"], found["output_throughput"]) == (5.0, 10.0)
    assert (found["mean_ttft_ms"], found["mean_tpot_ms"], found["mean_itl_ms"]) == (2000, 1000, 1000)
    assert (found["mean_e2el_ms"], found["output_throughput_per_gpu"], found["preemptions"]) == (3000, 0.5, 10)


def test_a_request_longer_than_the_engine_takes_is_refused_before_anything_runs(engine_of):
    with pytest.raises(UsageError, match=r"request 2 has 2,000 input and 100 output tokens.*2,048"):
        engine_of().check([Sketch(0, 10, 10), Sketch(0, 2000, 100)])


def test_requests_come_at_the_rate_that_was_asked_for():
    assert synthetic(50, 10, 5, 5)[-1].arrival == pytest.approx(5.0)
    assert {one.arrival for one in synthetic(50, math.inf, 5, 5)} == {0.0}
