"""What metrics sinks and callers are told: every step and every request, each once, and the sums are right."""

from __future__ import annotations

import pytest

from tests.engine.fake_device import FakeDevice
from tests.engine.harness import make_engine, run
from vllm_core import SamplingParams
from vllm_core.engine.figures import Gathered
from vllm_core.engine.sinks import Sinks


class Kept:
    def __init__(self):
        self.steps, self.requests, self.closed = [], [], 0

    def step(self, stats):
        self.steps.append(stats)

    def request(self, stats):
        self.requests.append(stats)

    def close(self):
        self.closed += 1


def listening(device, **options):
    engine, kept = make_engine(device, **options), Kept()
    engine.core.meter.listeners.append(kept)
    return engine, kept


def submit(engine, count, prompt=10, tokens=6):
    for i in range(count):
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        engine.add_request(str(i), [(7 * i + j) % 90 for j in range(prompt)], params)


@pytest.mark.parametrize("overlapped", [True, False])
def test_steps_add_up_to_all_tokens_and_every_request_is_reported_once(overlapped):
    engine, kept = listening(FakeDevice(max_rows=4), overlapped=overlapped)
    submit(engine, 7)
    run(engine)
    assert sorted(r.request_id for r in kept.requests) == [str(i) for i in range(7)]
    hits = sum(s.prefix_hits for s in kept.steps)
    assert sum(s.prompt_tokens for s in kept.steps) + hits == 70
    assert sum(s.output_tokens for s in kept.steps) == 42
    assert sum(len(s.first_tokens) for s in kept.steps) == 7
    assert sum(count for s in kept.steps for _, count in s.gaps) == 35
    numbers = [s.step for s in kept.steps]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("overlapped", [True, False])
def test_accepted_guesses_are_counted_by_their_place(overlapped):
    engine, kept = listening(FakeDevice(max_rows=2, num_drafts=3, accept=0.6), overlapped=overlapped)
    submit(engine, 4, tokens=40)
    run(engine)
    at = [sum(s.accepted_at[place] for s in kept.steps if len(s.accepted_at) > place) for place in range(3)]
    assert at[0] >= at[1] >= at[2] > 0
    assert sum(at) == sum(s.accepted for s in kept.steps)
    assert sum(r.output_tokens for r in kept.requests) == 160
    assert sum(at) + sum(len(s.first_tokens) + sum(n for _, n in s.gaps) for s in kept.steps) == 160


@pytest.mark.parametrize("num_drafts", [0, 3])
def test_who_listens_while_requests_run_harms_nothing(num_drafts):
    engine, kept = make_engine(FakeDevice(max_rows=4, num_drafts=num_drafts)), Kept()
    submit(engine, 4, tokens=30)
    for _ in range(6):
        engine.step()
    engine.core.meter.listeners.append(kept)
    run(engine)
    assert len(kept.requests) == 4
    assert all(s.accepted <= s.drafted for s in kept.steps)


def test_the_parts_of_a_request_add_up_to_its_time():
    engine, kept = listening(FakeDevice(max_rows=2))
    submit(engine, 3)
    run(engine)
    for r in kept.requests:
        assert r.finish_reason == "length"
        assert (r.prompt_tokens, r.output_tokens, r.max_tokens) == (10, 6, 6)
        assert r.queued + r.prefill == pytest.approx(r.first_token)
        assert r.first_token + r.decode <= r.total
        assert r.between_tokens == pytest.approx(r.decode / 5)


def test_preemptions_are_counted_and_their_tokens_computed_again():
    engine, kept = listening(FakeDevice(max_rows=4, num_pages=12), max_len=40, caching=False)
    submit(engine, 4, prompt=8, tokens=24)
    run(engine)
    preempted = sum(s.preemptions for s in kept.steps)
    assert preempted > 0
    assert preempted == sum(r.preemptions for r in kept.requests)
    assert sum(s.prompt_tokens for s in kept.steps) > 32
    assert sum(s.output_tokens for s in kept.steps) == 96


def test_a_request_that_never_ran_has_no_times_but_its_total():
    engine, kept = listening(FakeDevice(max_rows=1))
    submit(engine, 2)
    engine.abort("1")
    run(engine)
    (aborted,) = [r for r in kept.requests if r.request_id == "1"]
    assert (aborted.finish_reason, aborted.output_tokens) == ("abort", 0)
    assert (aborted.queued, aborted.first_token, aborted.decode) == (None, None, None)
    assert aborted.total >= 0


def test_a_sink_that_fails_is_told_of_once_and_the_others_go_on(caplog):
    class Broken(Kept):
        def step(self, stats):
            raise OSError("disk full")

    engine = make_engine(FakeDevice(max_rows=2))
    good, bad = Kept(), Broken()
    sinks = Sinks({"bad (someone 1.0)": bad, "good (another 2.0)": good})
    engine.core.meter.listeners.append(sinks)
    submit(engine, 3)
    run(engine)
    assert len(good.requests) == 3
    assert [r.getMessage() for r in caplog.records] == ["metrics sink bad (someone 1.0) failed; it gets nothing more"]
    assert bad.requests == []
    sinks.close()
    sinks.close()
    assert (good.closed, bad.closed) == (1, 0)


def test_figures_are_gathered_until_it_is_time_or_nothing_runs():
    engine, gathered = make_engine(FakeDevice(max_rows=2)), Gathered()
    engine.core.meter.listeners.append(gathered)
    submit(engine, 1)
    for _ in range(4):
        engine.step()
    first = gathered.take(idle=False)
    assert first.steps
    while engine.has_work:
        engine.step()
    assert gathered.take(idle=False) is None  # too soon
    rest = gathered.take(idle=True)
    assert len(rest.requests) == 1
    assert gathered.take(idle=True) is None
