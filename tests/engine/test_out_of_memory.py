"""A step that runs out of memory costs time, or one request: never the engine, and never a wrong token."""

from __future__ import annotations

import random

import pytest

from tests.engine.fake_device import FakeDevice, plain
from tests.engine.harness import make_engine, run
from vllm_core.engine import core
from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.roster import Roster
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.scheduler import Scheduler
from vllm_core.engine.step_budget import PATIENCE, StepBudget
from vllm_core.interfaces.executor import StepOutOfMemory


class Scarce(FakeDevice):
    """Runs out of memory in the steps that ``fails(plan)`` says, and leaves garbage in what they touched."""

    def __init__(self, fails, **more):
        super().__init__(**more)
        self.fails, self.lost = fails, []

    def launch(self, plan):
        if not self.fails(plan):
            pending = super().launch(plan)
            assert all(self.rows[row] is not None for row in plan.rows), (
                "a row of a lost step ran without being taken anew"
            )
            return pending
        assert plan.step == len(self.plans)
        self.plans.append(plan)
        self.wire.append(b"")
        self._copy(plan.copies)
        for row in {init.row for init in plan.inits}:
            self.rows[row] = None
        for row, count in zip(plan.rows, plan.num_tokens, strict=True):
            if (state := self.rows.get(row)) is not None:
                for position in range(state.computed, state.computed + count):
                    for table in state.tables:
                        if position // self.block_size < len(table):
                            self.pages[table[position // self.block_size], position % self.block_size] = -7
            self.rows[row] = None
        self.lost.append(plan)
        raise StepOutOfMemory(plan.step, "tried to allocate 20.00 MiB")


def ask(engine, n, seed=0, longest=30, most=12):
    draw = random.Random(seed)
    wanted = {}
    for i in range(n):
        prompt = [draw.randrange(97) for _ in range(draw.randrange(1, longest))]
        tokens = draw.randrange(1, most)
        engine.add_request(str(i), prompt, SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True))
        wanted[str(i)] = plain(prompt, tokens)
    return wanted


def tokens_of(final):
    return {key: output.outputs[0].token_ids for key, output in final.items()}


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_after_lost_steps_all_requests_get_the_tokens_they_would_have_got(overlapped, caching, seed):
    draw = random.Random(seed)
    device = Scarce(
        lambda plan: sum(plan.num_tokens) > 1 and draw.random() < 0.4,
        window=9 if seed % 2 else None,
        num_drafts=seed % 3,
        seed=seed,
    )
    engine = make_engine(device, overlapped=overlapped, caching=caching)
    wanted = ask(engine, 12, seed)

    assert tokens_of(run(engine)) == wanted

    assert device.lost


def test_steps_become_small_enough_and_larger_again():
    device = Scarce(lambda plan: sum(plan.num_tokens) > 5 and len(device.plans) < 60)
    engine = make_engine(device)
    wanted = ask(engine, 30)

    assert tokens_of(run(engine)) == wanted

    sizes = [sum(plan.num_tokens) for plan in device.plans if plan not in device.lost]
    assert max(sizes[:20]) <= 5
    assert max(sizes) > 8
    assert len(device.lost) < 12


def test_a_request_whose_single_token_does_not_fit_ends_with_the_reason_and_the_others_go_on():
    prompts = {"0": [1] * 20, "1": [2] * 20, "2": [3] * 5}

    def wants_too_much(plan):
        taken = {init.row: init.token_ids for init in plan.inits}
        known = [taken.get(row) or device.rows[row].tokens for row in plan.rows]
        return any(tokens[0] == 2 for tokens in known)

    device = Scarce(wants_too_much)
    engine = make_engine(device)
    for key, prompt in prompts.items():
        engine.add_request(key, prompt, SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))

    final = run(engine)

    assert "needs more memory than the device has free" in final["1"].error
    assert "tried to allocate 20.00 MiB" in final["1"].error
    assert "gpu_memory_utilization" in final["1"].error
    others = {key: final[key].outputs[0].token_ids for key in ("0", "2")}
    assert others == {key: plain(prompts[key], 6) for key in ("0", "2")}
    engine.add_request("later", [4, 5], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
    assert run(engine)["later"].outputs[0].token_ids == plain([4, 5], 3)


def test_a_device_that_never_has_room_fails_each_request_and_no_engine():
    engine = make_engine(Scarce(lambda plan: True))
    ask(engine, 5)
    final = run(engine)
    assert len(final) == 5
    assert all("memory" in output.error for output in final.values())


def test_samples_of_one_prompt_survive_a_lost_step():
    device = Scarce(lambda plan: plan.step in (0, 2, 5))
    engine = make_engine(device)
    params = SamplingParams(n=3, temperature=0.8, seed=5, max_tokens=5, ignore_eos=True)
    engine.add_request("a", list(range(10)), params)
    got = run(engine)["a"]

    sure = make_engine(FakeDevice())
    sure.add_request("a", list(range(10)), params)
    assert [o.token_ids for o in got.outputs] == [o.token_ids for o in run(sure)["a"].outputs]


def test_an_abort_meanwhile_frees_everything():
    device = Scarce(lambda plan: plan.step % 4 == 2)
    engine = make_engine(device)
    ask(engine, 6)
    run(engine, between=lambda engine, i: engine.abort(str(i % 6)) if i > 3 else None)


def test_the_budget_is_halved_by_what_was_lost_and_doubled_by_patience():
    budget = StepBudget(100)
    budget.shrink(60)
    assert budget.now == 30
    for _ in range(PATIENCE - 1):
        budget.grow()
    assert budget.now == 30
    budget.grow()
    assert budget.now == 60
    budget.shrink(200)
    assert budget.now == 30
    for _ in range(5 * PATIENCE):
        budget.grow()
    assert budget.now == 100
    budget.shrink(1)
    assert budget.now == 1


class LostResult:
    def __init__(self, device, step):
        self.device, self.step = device, step

    def done(self):
        return False

    def result(self, timeout=None):
        self.device.fetched.append(self.step)
        raise StepOutOfMemory(self.step, "can't allocate memory")


class LateScarce(Scarce):
    """Tells of it where the result is asked for, as a thread that runs steps does; what is queued is lost too."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.queued = set()

    def launch(self, plan):
        self.queued -= set(self.fetched)
        if not self.queued:
            try:
                return super().launch(plan)
            except StepOutOfMemory:
                pass
        else:
            assert plan.step == len(self.plans)
            self.plans.append(plan)
            self.wire.append(b"")
        self.launched.append(plan.step)
        self.queued.add(plan.step)
        return LostResult(self, plan.step)


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_a_step_lost_when_its_result_is_asked_for_costs_those_behind_it_and_no_token(overlapped, seed):
    draw = random.Random(seed)
    device = LateScarce(
        lambda plan: sum(plan.num_tokens) > 1 and draw.random() < 0.4,
        window=9 if seed % 2 else None,
        num_drafts=seed % 3,
        seed=seed,
    )
    engine = make_engine(device, overlapped=overlapped)
    wanted = ask(engine, 12, seed)

    assert tokens_of(run(engine)) == wanted

    assert device.lost


def short_of_memory(monkeypatch, owner, name, fails):
    """``fails(calls so far)``: raise before or, every other time, after the work."""
    real, calls, raised = getattr(owner, name), [0], [0]

    def scarce(*args, **named):
        calls[0] += 1
        if not fails(calls[0]):
            return real(*args, **named)
        raised[0] += 1
        if raised[0] % 2:
            raise MemoryError
        real(*args, **named)
        raise MemoryError

    monkeypatch.setattr(owner, name, scarce)
    return raised


BOOKS = [
    (Scheduler, "retire"), (Scheduler, "_decode"), (Scheduler, "_prefill"), (Roster, "start"), (Roster, "take"),
    (Roster, "finish"), (Roster, "preempt"), (CacheManager, "admit"), (CacheManager, "reserve"),
    (CacheManager, "advance"), (CacheManager, "retired"), (CacheManager, "close"), (core, "_update"),
]  # fmt: skip


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize(("owner", "name"), BOOKS)
def test_a_lack_of_memory_in_the_books_costs_no_token(monkeypatch, owner, name, overlapped):
    draw = random.Random(name)
    device = FakeDevice(num_pages=16, num_drafts=1)
    engine = make_engine(device, overlapped=overlapped)
    device.owners = None  # of books that may be begun anew
    raised = short_of_memory(monkeypatch, owner, name, lambda calls: draw.random() < 0.1 or calls == 2)
    wanted = {}
    for i in range(16):
        prompt = [draw.randrange(97) for _ in range(draw.randrange(1, 30))]
        engine.add_request(str(i), prompt, SamplingParams(temperature=0, max_tokens=9, ignore_eos=True))
        wanted[str(i)] = plain(prompt, 9)

    final = run(engine)

    assert raised[0]
    ended = {key for key, output in final.items() if output.error}
    assert all("not enough memory" in final[key].error for key in ended)
    assert len(ended) < 8
    assert {key: tokens for key, tokens in tokens_of(final).items() if key not in ended} == {
        key: tokens for key, tokens in wanted.items() if key not in ended
    }
    assert not engine.core.open


def test_books_that_never_have_room_fail_each_request_and_no_engine(monkeypatch):
    device = FakeDevice()
    engine = make_engine(device)
    device.owners = None
    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "_prefill", lambda *args: (_ for _ in ()).throw(MemoryError))
        patch.setattr(CacheManager, "admit", lambda *args, **named: (_ for _ in ()).throw(MemoryError))
        ask(engine, 5)
        final = run(engine)
    assert len(final) == 5
    assert all("not enough memory" in output.error for output in final.values())
    engine.add_request("later", [4, 5], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
    assert run(engine)["later"].outputs[0].token_ids == plain([4, 5], 3)
