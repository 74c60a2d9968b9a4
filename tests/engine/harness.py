"""Runs request mixes through the whole engine on a fake device and checks the books after every step."""

from __future__ import annotations

from tests.engine.fake_device import FakeDevice
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.core import EngineCore
from vllm_core.engine.intake import Intake
from vllm_core.engine.local import LocalEngine
from vllm_core.engine.processor import OutputProcessor
from vllm_core.engine.request import State


def make_engine(
    device: FakeDevice,
    *,
    budget=16,
    overlapped=True,
    max_len=64,
    caching=True,
    depth=2,
    policy=None,
    max_waiting=None,
    tokenizer=None,
    eos_token_ids=(),
) -> LocalEngine:
    settings = EngineSettings(
        max_num_seqs=device.max_rows,
        async_scheduling=overlapped,
        enable_prefix_caching=caching,
        max_waiting_requests=max_waiting,
    )
    device.stages, device.depth = depth - 1, depth  # a pipeline of more than one has as many steps in flight, and one
    capacity = device.start()
    core = EngineCore(settings, capacity, device, max_model_len=max_len, max_step_tokens=budget, policy=policy)
    device.owners = core.cache.pool.owners
    intake = Intake(
        vocab_size=capacity.vocab_size,
        longest=core.roster.max_len,
        seed=settings.seed,
        max_logprobs=settings.max_logprobs,
        eos_token_ids=eos_token_ids,
        tokenizer=tokenizer,
    )
    return LocalEngine(intake, core, OutputProcessor(tokenizer))


def check_books(engine: LocalEngine) -> None:
    """What must hold between any two steps."""
    core = engine.core
    scheduler, roster = core.scheduler, core.roster
    core.cache.check()
    rows = [r.row for r in roster.running]
    in_flight = {r.row for flight in scheduler.flights for r in flight.requests}
    free = roster.free_rows
    assert len(set(rows)) == len(rows)
    assert len(set(free)) == len(free)
    assert not set(free) & (set(rows) | in_flight), "a row is free and in use"
    assert len(free) + len(set(rows) | in_flight) == core.capacity.max_rows, "a row is lost"
    assert all(r.state is State.RUNNING for r in roster.running)
    for request in roster.requests.values():
        assert len(request.token_ids) <= request.max_total
        assert request.bound < request.max_total
    families = {id(r.family): r.family for r in roster.requests.values() if r.family is not None}.values()
    for family in families:
        assert set(family.members) <= set(roster.requests.values()), "a sample that has ended is in its family"
        assert set(family.held) < set(family.members), "all samples wait for each other"
        assert not (family.held and family.computed), "a sample waits for a prompt that is there"
    for flight in scheduler.flights:
        assert sum(flight.plan.num_tokens) <= scheduler.budget.most


def check_empty(engine: LocalEngine) -> None:
    """After the last request nothing is left."""
    core = engine.core
    assert not core.has_work
    assert core.cache.num_free == core.cache.pool.num_pages - 1, "a page was leaked"
    assert core.cache.num_waiting == 0
    assert len(core.roster.free_rows) == core.capacity.max_rows, "a row was leaked"
    assert not core.roster.running
    assert len(core.roster.waiting) == 0
    assert not core.roster.requests
    assert not engine.processor._tracks
    assert not engine.processor._of


def run(engine: LocalEngine, between=None, most_steps=5000, check_every=1) -> dict:
    """Step until all is done; final outputs by request id. ``between(engine, i)`` is called before step i."""
    final, streams = {}, {}
    for i in range(most_steps):
        if between is not None:
            between(engine, i)
        if not engine.has_work:
            break
        for output in engine.step():
            check_growth(streams.get(output.request_id), output)
            streams[output.request_id] = output
            if output.finished:
                assert output.request_id not in final, "a request finished twice"
                final[output.request_id] = output
                del streams[output.request_id]
        if i % check_every == 0:
            check_books(engine)
    check_empty(engine)
    assert not streams, "a request was forgotten"
    return final


def check_growth(before, now) -> None:
    """An output contains what its caller was told before."""
    assert now.finished == all(sample.finished for sample in now.outputs)
    assert [sample.index for sample in now.outputs] == list(range(len(now.outputs)))
    if before is not None:
        assert not before.finished
        for old, new in zip(before.outputs, now.outputs, strict=True):
            assert new.token_ids[: len(old.token_ids)] == old.token_ids
            assert new.text.startswith(old.text)
            assert not old.finished or old == new, "a sample that had ended went on"
