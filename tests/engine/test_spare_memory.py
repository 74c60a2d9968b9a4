"""An idle engine gives back what large steps have left, seldom."""

from vllm_core.engine.spare_memory import SpareMemory


def counted(every):
    spare, calls = SpareMemory(every), []
    spare._trim = calls.append
    return spare, calls


def test_it_gives_back_when_it_falls_idle():
    spare, calls = counted(0.0)
    spare.give_back()
    spare.give_back()
    assert calls == [0, 0]


def test_short_pauses_give_back_nothing():
    spare, calls = counted(1000.0)
    for _ in range(5):
        spare.give_back()
    assert calls == []
