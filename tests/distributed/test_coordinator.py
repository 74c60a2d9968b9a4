"""Ranks that share experts make the same steps, from the first work of any of them to the last, and none between."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from vllm_core.distributed.coordinator import EAGER, Agreed, Coordinator, Wish
from vllm_core.distributed.layout import Layout
from vllm_core.testing.ranks import Ranks

PATIENCE = 20.0  # seconds


class Counted:
    """A group that counts what goes over it."""

    def __init__(self, group):
        self.rank, self.size, self.calls, self._group = group.rank, group.size, 0, group

    def all_gather(self, x, dim=-1):
        self.calls += 1
        return self._group.all_gather(x, dim)


class Loop:
    """A rank's step loop with fake work: lists of token counts, a step each."""

    def __init__(self, group, peers):
        self.group = Counted(group)
        self.coordinator = Coordinator(
            self.group, lambda wave: [p.coordinator.heard(wave) for p in peers if p is not self]
        )
        self.work, self.steps = [], []
        peers.append(self)

    def announce(self, wave):
        for peer in self.peers:
            if peer is not self:
                peer.coordinator.heard(wave)

    def add(self, *tokens):
        self.work += tokens
        self.coordinator.wake()

    def run(self):
        """Until the wave has ended: ask for the next step, then compute the present one."""
        present = None
        while self.coordinator.running:
            tokens = self.work.pop(0) if self.work else 0
            self.coordinator.ask(Wish(tokens, 8 * -(-tokens // 8) if tokens < 64 else EAGER))
            if present is not None:
                self.steps.append(present)
            present = self.coordinator.agreed(PATIENCE)
            if present.over:
                return


@pytest.fixture
def loops():
    with Ranks(Layout(tp=2)) as ranks:
        peers = []
        made = [Loop(groups["tp"], peers) for groups in ranks.groups]
        yield lambda: ranks.run(lambda rank, groups: made[rank].run()), made
        for loop in made:
            loop.coordinator.close()


def test_a_rank_without_work_makes_dummy_steps_as_long_as_another_one_has_any(loops):
    run, (busy, idle) = loops
    busy.add(3, 30, 5)
    run()
    assert [step.tokens for step in busy.steps] == [(3, 0), (30, 0), (5, 0)]
    assert [step.dummy for step in busy.steps] == [False] * 3
    assert [step.dummy for step in idle.steps] == [True] * 3
    assert not busy.coordinator.running
    assert not idle.coordinator.running


def test_all_launch_the_graph_of_the_largest_and_none_if_one_has_none(loops):
    run, (first, second) = loops
    first.add(3, 30, 5)
    second.add(17, 2, 100)
    run()
    for loop in (first, second):
        assert [step.graph for step in loop.steps] == [24, 32, EAGER]
        assert [step.tokens for step in loop.steps] == [(3, 17), (30, 2), (5, 100)]


def test_nothing_is_exchanged_between_waves_and_another_rank_may_begin_the_next(loops):
    run, (first, second) = loops
    first.add(4)
    run()
    calls = first.group.calls, second.group.calls
    run()  # nobody has work: returns at once
    assert (first.group.calls, second.group.calls) == calls == (2, 2)
    second.add(6)
    run()
    assert [step.tokens for step in first.steps] == [(4, 0), (0, 6)]


def test_both_may_begin_a_wave_at_once(loops):
    run, (first, second) = loops
    for _ in range(20):
        gate = threading.Barrier(2)

        def begin(loop, gate=gate):
            gate.wait()
            loop.add(1)

        threads = [threading.Thread(target=begin, args=(loop,)) for loop in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run()
    assert [step.tokens for step in first.steps] == [step.tokens for step in second.steps]
    assert sum(step.tokens[0] for step in first.steps) == sum(step.tokens[1] for step in first.steps) == 20


def test_to_ask_does_not_wait_for_the_others_and_the_answer_does(loops):
    _, (first, second) = loops
    first.add(5)
    first.coordinator.ask(Wish(5, 8))  # the other one has said nothing yet: the device may go on with its step
    with pytest.raises(TimeoutError):
        first.coordinator.agreed(0.05)
    second.coordinator.ask(Wish())
    assert second.coordinator.agreed(PATIENCE) == Agreed((5, 0), 8, dummy=True, over=False)
    assert first.coordinator.agreed(PATIENCE) == Agreed((5, 0), 8, dummy=False, over=False)


def test_a_wave_that_is_announced_late_or_twice_begins_nothing(loops):
    run, (first, second) = loops
    first.add(2)
    run()
    second.coordinator.heard(1)
    assert not second.coordinator.running


def test_work_that_comes_while_a_wave_ends_begins_another_one(loops):
    run, (first, second) = loops
    first.add(2)
    take, late = second.coordinator.agreed, [7]

    def agreed(timeout):
        found = take(timeout)
        if found.over and late:
            second.add(late.pop())
        return found

    second.coordinator.agreed = agreed
    run()
    deadline = time.monotonic() + PATIENCE
    while not (first.coordinator.running and second.coordinator.running) and time.monotonic() < deadline:
        time.sleep(0.01)
    run()
    assert [step.tokens for step in first.steps] == [(2, 0), (0, 7)]


def test_what_is_out_of_turn_is_an_error(loops):
    _, (first, _) = loops
    with pytest.raises(RuntimeError, match="no wave is on"):
        first.coordinator.ask(Wish())
    with pytest.raises(RuntimeError, match="no step was asked for"):
        first.coordinator.agreed()


def test_ranks_in_different_waves_are_told():
    class Torn:
        rank, size = 0, 2

        def all_gather(self, x, dim=-1):
            return torch.cat([x, x + torch.tensor([[0, 0, 1]])])

    alone = Coordinator(Torn(), lambda wave: None)
    alone.wake()
    alone.ask(Wish(1, 8))
    with pytest.raises(RuntimeError, match=r"different waves: \[1, 2\]"):
        alone.agreed(PATIENCE)
    alone.close()
