"""Messages between an engine and its ranks arrive whole, whatever their size, and an end is noticed."""

import os
import threading

import numpy as np
import pytest

from vllm_core.distributed.channel import INLINE, Channel, ChannelClosed, broadcast
from vllm_core.distributed.messages import Failed, Result, Started, Step, decode_down, decode_up, encode
from vllm_core.interfaces.grammar import GrammarSpec
from vllm_core.interfaces.steps import LogprobLines, PageGrowth, RowInit, RowSampling, StepPlan, StepResult


@pytest.fixture
def pair():
    ends = Channel.pair()
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, 5_000_000])
def test_messages_of_any_size_arrive_in_order(pair, size):
    here, there = pair
    message = os.urandom(size)
    for _ in range(3):
        here.send(message)
        here.send(b"next")
        assert there.receive() == message
        assert there.receive(1.0) == b"next"


def test_all_get_a_large_message_and_nothing_of_it_stays():
    pairs = [Channel.pair() for _ in range(3)]
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    opened = len(os.listdir("/proc/self/fd"))
    message = os.urandom(1_000_000)
    broadcast([here for here, _ in pairs], message)
    assert [there.receive() == message for _, there in pairs] == [True] * 3
    assert len(os.listdir("/proc/self/fd")) == opened
    assert not shared or set(os.listdir("/dev/shm")) <= shared
    for ends in pairs:
        for end in ends:
            end.close()


def test_nothing_comes_in_time(pair):
    assert pair[0].receive(0.0) is None
    assert pair[0].receive(0.01) is None


def test_the_end_of_the_other_side_is_noticed_behind_what_it_said(pair):
    here, there = pair
    there.send(b"last words")
    there.close()
    assert here.receive() == b"last words"
    with pytest.raises(ChannelClosed):
        here.receive()
    with pytest.raises(ChannelClosed):
        here.send(b"anybody there?")


def test_those_who_are_there_hear_what_others_miss():
    (one, other), (two, listener) = Channel.pair(), Channel.pair()
    other.close()
    with pytest.raises(ChannelClosed):
        broadcast([one, two], b"step")
    assert listener.receive(1.0) == b"step"
    for end in (one, two, listener):
        end.close()


def test_a_reader_that_is_late_is_waited_for(pair):
    here, there = pair
    many, found = 500, []
    reader = threading.Thread(target=lambda: found.extend(there.receive() for _ in range(many)))
    writer = threading.Thread(target=lambda: [here.send(b"x" * 20_000) for _ in range(many)])
    writer.start()
    reader.start()
    writer.join(20)
    reader.join(20)
    assert [len(message) for message in found] == [20_000] * many


def test_a_plan_and_its_result_are_what_they_were():
    sampling = RowSampling(temperature=0.5, seed=3, logit_bias={5: -1.0}, grammar=GrammarSpec(kind="regex", text="a+"))
    init = RowInit(row=0, token_ids=[1, 2, 3], num_computed=0, pages=[[4], []], sampling=sampling, num_prompt=3)
    plan = StepPlan(7, [init], [PageGrowth(0, 1, 0, [9])], [], [0], [3], [0], [True], [3])
    assert decode_down(encode(Step(plan))) == Step(plan)
    lines = LogprobLines([0], [1], [0], np.array([[3, 4]], np.int32), np.array([[-0.5, -1]], np.float32), np.array([1]))
    result = StepResult(7, np.array([[3, -1]], dtype=np.int32), [lines], [], {0: "no"})
    got = decode_up(encode(Result(result))).result
    assert (got.step, got.failed, got.token_ids.tolist(), got.token_ids.dtype) == (7, {0: "no"}, [[3, -1]], np.int32)
    assert got.tokens(0) == [3]
    assert got.logprobs[0].logprobs.tolist() == [[-0.5, -1]]
    for message in (Failed("no memory", "MemoryError", step=3), Started(400, 1, {"weights": 5}, {"bind": 0.5})):
        assert decode_up(encode(message)) == message


def test_what_is_no_message_is_refused():
    with pytest.raises(ValueError):
        decode_up(b"\x93\x01\x02\x03")
    with pytest.raises(TypeError, match="a object cannot be sent"):
        encode(Result(object()))
