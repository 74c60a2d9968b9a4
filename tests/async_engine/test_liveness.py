"""A stuck engine is told from a busy one: by its pulse, and by what its threads do."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import SimpleNamespace

import attrs
import pytest

from tests.async_engine.helpers import LONG, first, greedy, last, until
from tests.loading.checkpoints import tiny_model, write
from tests.plugins.dummies import Site
from vllm_core import AsyncLLM
from vllm_core.engine import watchdog
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.pids import ThreadState
from vllm_core.engine.pulse import Pulse, read_beat
from vllm_core.engine.timed_steps import FIRST, FIRST_STEPS, StepClock, TimedSteps
from vllm_core.engine.watchdog import INTERVAL, LEAST, LOOKS, SLEEPS, Watchdog

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64}
PLUGIN = """
HOOK_API = 1
from vllm_core.plugin import Offer, Provides, hookimpl

@hookimpl
def provides():
    return [Provides("logits_processor", "sticky", "gets stuck when asked to")]

@hookimpl
def logits_processor(query):
    return Offer(name="sticky", target="{module}_impl:Sticky")
"""
IMPL = """
import time

class Sticky:
    keeps_argmax = False
    needs_ids = False
    @staticmethod
    def check(extra_args, query):
        return "how" in extra_args
    def __init__(self, query):
        self.how = ""
    def take(self, row, extra_args, prompt):
        self.how = extra_args["how"]
    def apply(self, logits, rows, ends, view, ids):
        while self.how == "spin":
            pass
        if self.how == "sleep":
            time.sleep(600)
        return logits
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model(max_position_embeddings=4096)))


@pytest.fixture
def sticky(tmp_path, monkeypatch):
    """A plugin with a logits processor that never returns, here and in processes started from here."""
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    monkeypatch.syspath_prepend(str(site.folder))
    monkeypatch.setenv("PYTHONPATH", str(site.folder), prepend=os.pathsep)
    module = site.install("sticky", PLUGIN)
    (site.folder / f"{module}_impl.py").write_text(IMPL)
    return {"logits_processors": ["sticky"]}


async def stuck(llm, begin):
    """What is seen once ``begin`` has made the engine stuck: seconds until then, and what the requests got."""
    streams = [llm.generate("Once", LONG, request_id=f"number {i}") for i in range(2)]
    for tokens in (3, 30, 60, 60, 60, 60, 3, 3):  # then it is known how long steps take
        await last(llm.generate({"prompt_token_ids": [5] * tokens}, greedy(4)))
    for stream in streams:
        await first(stream)
    begun = time.monotonic()
    task = begin(llm)
    errors = await asyncio.gather(*map(last, streams), return_exceptions=True)
    seconds = time.monotonic() - begun
    if task is not None:
        with pytest.raises(EngineDeadError):
            await task
    assert await until(lambda: llm.state == "ready", 60)
    await llm.check_health()
    assert len((await last(llm.generate("Once", greedy(5)))).outputs[0].token_ids) == 5
    return seconds, {str(error) for error in errors}


def test_an_engine_that_a_signal_stopped_is_killed_and_started_again(folder):
    llm = AsyncLLM(folder, **SETTINGS, restarts=1)
    seconds, errors = asyncio.run(stuck(llm, lambda llm: os.kill(llm.pid, signal.SIGSTOP)))
    llm.shutdown()
    (error,) = errors
    assert "was stopped by a signal; 2 requests wait: number 0, number 1" in error
    assert seconds < 10


@pytest.mark.parametrize("how", ["spin", "sleep"])
def test_a_step_that_never_ends_is_killed_by_its_number(folder, sticky, how):
    llm = AsyncLLM(folder, **SETTINGS, **sticky, restarts=1)
    params = attrs.evolve(LONG, extra_args={"how": how})
    seconds, errors = asyncio.run(
        stuck(llm, lambda llm: asyncio.create_task(last(llm.generate("Once", params, request_id="bad"))))
    )
    llm.shutdown()
    (error,) = errors
    assert "the engine has not finished step " in error
    assert "requests wait: number 0, number 1, bad" in error
    assert seconds < 30


def test_an_idle_engine_that_a_signal_stopped_is_noticed_and_one_that_sleeps_is_well(folder):
    llm = AsyncLLM(folder, **SETTINGS)

    async def ask():
        await llm.check_health()
        await asyncio.sleep(3)
        await llm.check_health()
        os.kill(llm.pid, signal.SIGSTOP)
        assert await until(lambda: llm.state == "dead", 15)
        with pytest.raises(EngineDeadError, match="was stopped by a signal"):
            await llm.check_health()

    asyncio.run(ask())
    llm.shutdown()


# ---- the eye


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A watchdog over a pulse, and the threads it sees: ``seen["threads"]``."""
    path = tmp_path / "pulse"
    Pulse.create(path)
    seen = {"threads": {1: ThreadState(True, 0.0)}, "stopped": False, "ended": False}
    monkeypatch.setattr(watchdog, "threads_of", lambda pid: seen["threads"])
    monkeypatch.setattr(watchdog, "is_stopped", lambda pid: seen["stopped"])
    monkeypatch.setattr(watchdog, "has_ended", lambda pid: seen["ended"])
    return Pulse(path), Watchdog(path, 1), seen


def test_a_late_step_whose_threads_get_no_processor_is_not_stuck(watched):
    pulse, eye, seen = watched
    pulse.busy(-10, step=7)
    for look in range(100):
        seen["threads"] = {1: ThreadState(True, look * 0.003), 2: ThreadState(False, 0.0)}
        assert eye.look(True) == ""


def test_a_late_step_is_stuck_if_no_thread_wants_to_run_or_one_runs_on_and_on(watched):
    pulse, eye, seen = watched
    pulse.busy(-10, step=7)
    seen["threads"] = {1: ThreadState(False, 5.0)}
    assert [bool(eye.look(True)) for _ in range(LOOKS + 1)] == [False] * LOOKS + [True]
    pulse.busy(-10, step=8)
    found = []
    for look in range(8):
        seen["threads"] = {1: ThreadState(True, 5 + look * INTERVAL)}
        found.append(eye.look(True))
    assert [bool(words) for words in found] == [False] * 5 + [True] * 3
    assert "has not finished step 8" in found[-1]


def test_a_step_that_runs_on_is_stuck_once_it_had_all_the_processor_time_that_it_was_allowed(watched):
    pulse, eye, seen = watched
    pulse.busy(0.3, step=7)
    for _ in range(2):
        assert eye.look(True) == ""
    time.sleep(0.4)
    seen["threads"] = {1: ThreadState(True, 0.3)}  # the deadline has passed, but the step was held up for half of it
    assert [eye.look(True) for _ in range(30)] == [""] * 30
    seen["threads"] = {1: ThreadState(True, LEAST)}
    assert "has not finished step 7" in eye.look(True)


def test_an_engine_that_has_ended_unnoticed_and_one_that_is_stopped_are_told(watched):
    pulse, eye, seen = watched
    pulse.asleep()
    for what in ("ended", "stopped"):
        seen[what] = True
        assert [bool(eye.look(False)) for _ in range(LOOKS)] == [False] * (LOOKS - 1) + [True]
        seen[what] = False
        assert eye.look(False) == ""


def test_a_pulse_whose_file_is_removed_is_still_seen(tmp_path, watched):
    pulse, eye, seen = watched
    (tmp_path / "pulse").unlink()
    pulse.busy(-10, step=7)
    seen["threads"] = {1: ThreadState(False, 5.0)}
    assert [bool(eye.look(True)) for _ in range(LOOKS + 1)] == [False] * LOOKS + [True]


def test_a_beat_clears_everything(watched):
    pulse, eye, seen = watched
    seen["threads"] = {1: ThreadState(False, 5.0)}
    for step in range(30):
        pulse.busy(-10, step)
        assert [eye.look(True) for _ in range(LOOKS)] == [""] * LOOKS


def test_an_engine_that_sleeps_while_somebody_waits_is_stuck(watched):
    pulse, eye, seen = watched
    pulse.asleep()
    assert [eye.look(False) for _ in range(30)] == [""] * 30
    assert [eye.look(True) for _ in range(30)] == [""] * 30  # it wants to wake up, and gets no processor
    seen["threads"] = {1: ThreadState(False, 0.0)}
    found = [eye.look(True) for _ in range(SLEEPS)]
    assert [bool(words) for words in found] == [False] * (SLEEPS - 1) + [True]
    assert "while requests wait" in found[-1]


def test_before_the_first_beat_and_after_the_end_nothing_is_said(tmp_path):
    path = tmp_path / "pulse"
    assert Watchdog(path, 1).look(True) == ""
    Pulse.create(path)
    assert [Watchdog(path, os.getpid()).look(True) for _ in range(10)] == [""] * 10
    assert read_beat(path).number == 0


def test_the_first_steps_of_a_size_have_time_to_compile_and_later_ones_a_few_times_the_slowest():
    clock = StepClock(spare=1.0)
    for seconds in (50.0, 40.0):
        assert clock.allowed(100) == FIRST
        clock.learn(100, seconds)
    clock.learn(100, 0.25)
    assert clock.allowed(100) == clock.allowed(127) == 1.0
    assert clock.allowed(128) == FIRST
    for _ in range(200):
        clock.learn(100, 0.1)
    assert clock.allowed(100) == pytest.approx(0.4)


@pytest.mark.parametrize(("slow", "allowed"), [(0.1, 1.6), (3.0, FIRST)])
def test_new_sizes_are_trusted_where_those_before_did_not_compile(slow, allowed):
    clock = StepClock(spare=1.0)
    for tokens in (1, 2, 4, 8):
        assert clock.allowed(tokens) == FIRST
        clock.learn(tokens, 5.0 if tokens == 1 else slow if tokens == 4 else 0.1)
        for _ in range(FIRST_STEPS):
            clock.learn(tokens, 0.1)
    assert clock.allowed(32) == pytest.approx(allowed)


def test_after_a_quick_first_step_of_all_every_size_has_a_deadline_until_one_turns_out_to_compile():
    clock = StepClock(spare=1.0)
    assert clock.allowed(8) == FIRST
    clock.learn(8, 0.1)
    assert clock.allowed(8) == clock.allowed(1) == pytest.approx(0.4)
    assert clock.allowed(64) == pytest.approx(0.4 * 8)
    clock.learn(64, 3.0)
    assert clock.allowed(512) == FIRST


class Slow:
    """An executor whose launches last ``launch`` seconds, and whose results are there at once."""

    def __init__(self, launch):
        self.seconds = launch

    def launch(self, plan):
        self.deadline = read_beat(self.path).deadline
        time.sleep(self.seconds)
        return self

    def done(self):
        return True

    def result(self, timeout=None):
        return None


def test_only_the_launch_of_a_step_has_time_to_compile_and_its_wait_is_what_is_learned(tmp_path):
    path = tmp_path / "pulse"
    Pulse.create(path)
    clock, executor = StepClock(spare=2.0, compile=30.0), Slow(0.1)
    executor.path = path
    steps = TimedSteps(executor, Pulse(path), clock)
    clock.learn(4, 0.01)
    pending = steps.launch(SimpleNamespace(step=1, num_tokens=[4]))
    now = time.monotonic()
    assert 31 < executor.deadline - now < 32.1
    assert 1.9 < read_beat(path).deadline - now < 2.1
    pending.result()
    assert clock.allowed(4) < 0.2
