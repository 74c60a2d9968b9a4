"""Ctrl-C at any moment: the call ends, the engine goes on."""

import signal
import threading

import pytest

from tests.engine.fake_device import FakeDevice, FakePending, plain
from tests.engine.harness import check_books, check_empty
from tests.engine.test_llm import make_llm
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.interrupts import InterruptsHeld
from vllm_core.engine.sampling_params import SamplingParams

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8]]
LONG = SamplingParams(temperature=0, max_tokens=60)


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def interrupt_at(monkeypatch, owner, method, call):
    """Ctrl-C in the middle of the n-th call of a method."""
    original, calls = getattr(owner, method), []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            ctrl_c()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, method, interrupted)


@pytest.mark.parametrize("call", [1, 2, 3, 8])
@pytest.mark.parametrize("method", ["launch", "result", "schedule", "retire", "add"])
@pytest.mark.parametrize("overlapped", [True, False])
def test_an_interrupted_call_leaves_an_engine_that_answers_as_before(monkeypatch, overlapped, method, call):
    llm = make_llm(async_scheduling=overlapped)
    engine = llm._engine
    owners = {"launch": FakeDevice, "result": FakePending, "add": engine.core.roster}
    with monkeypatch.context() as patch:
        interrupt_at(
            patch, owners.get(method, engine.core.scheduler), method, min(call, 3) if method == "add" else call
        )
        with pytest.raises(KeyboardInterrupt):
            llm.generate(PROMPTS, LONG, use_tqdm=False)
    assert not engine.core.roster.requests
    check_books(engine)
    outputs = llm.generate(PROMPTS, LONG, use_tqdm=False)
    assert [o.outputs[0].token_ids for o in outputs] == [plain(p, 60) for p in PROMPTS]
    check_empty(engine)


def test_a_stream_survives_a_ctrl_c_in_another_call(monkeypatch):
    llm = make_llm()
    stream = llm.stream([1, 2, 3], LONG)
    next(stream)
    with monkeypatch.context() as patch:
        interrupt_at(patch, FakePending, "result", 2)
        with pytest.raises(KeyboardInterrupt):
            llm.generate([7, 8], LONG, use_tqdm=False)
    assert list(stream)[-1].outputs[0].token_ids == plain([1, 2, 3], 60)


def test_a_second_ctrl_c_does_not_wait_and_the_engine_says_why_it_ended(monkeypatch):
    llm = make_llm()
    stuck = []

    def result(self, timeout=None):
        stuck.append(1)
        ctrl_c()
        ctrl_c()
        raise AssertionError("not reached: the second one is delivered here")

    with monkeypatch.context() as patch:
        patch.setattr(FakePending, "result", result)
        with pytest.raises(KeyboardInterrupt):
            llm.generate(PROMPTS, LONG, use_tqdm=False)
    assert stuck == [1]
    with pytest.raises(EngineDeadError, match="KeyboardInterrupt in the middle of a step"):
        llm.generate(PROMPTS, LONG, use_tqdm=False)


def test_ctrl_c_is_handled_as_before_outside_of_the_block():
    before = signal.getsignal(signal.SIGINT)
    reached = []

    def block():
        with InterruptsHeld():
            ctrl_c()
            reached.append(signal.getsignal(signal.SIGINT) is not before)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_the_users_own_gets_the_signal_when_the_block_ends():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with InterruptsHeld():
            ctrl_c()
            assert seen == []
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_held_and_nothing_breaks():
    llm, answers = make_llm(), []
    thread = threading.Thread(target=lambda: answers.append(llm.generate([1, 2], LONG, use_tqdm=False)))
    thread.start()
    thread.join()
    assert answers[0][0].outputs[0].token_ids == plain([1, 2], 60)
