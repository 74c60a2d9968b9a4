"""Whatever fails at whatever time: the executor "mp" says what it was, waits for nobody in vain, leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import attrs
import numpy as np
import pytest

from tests.async_engine.helpers import ended
from tests.loading.checkpoints import tiny_model, write
from vllm_core.config.engine import EngineSettings
from vllm_core.distributed import processes
from vllm_core.distributed.channel import Channel
from vllm_core.distributed.children import RankProcess
from vllm_core.distributed.layout import Layout
from vllm_core.distributed.messages import Result, Started, encode
from vllm_core.distributed.processes import ProcessesExecutor
from vllm_core.engine.recipe import Recipe
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.executor import StepError
from vllm_core.interfaces.steps import StepPlan, StepResult

pytestmark = pytest.mark.slow

READY = encode(Started(400, 0, {}, {}))
RESULT = encode(Result(StepResult(0, np.zeros((0, 1), np.int32), [], [], {})))
PREPARE = "from vllm_core.distributed.channel import Channel\nc = Channel.inherited(0)\nc.receive()\n"
SERVE = f"{PREPARE}c.send({READY!r})\nc.receive()\n"
WAIT = "import time; time.sleep(60)"


@pytest.fixture
def executor_of(monkeypatch):
    """Makes an executor whose ranks run these programs instead of `vllm_core.worker`; all of them end with the test."""
    made = []

    def make(*programs, patience=1.0):
        def spawn(number, world):
            here, there = Channel.pair()
            command = [sys.executable, "-c", programs[number]]
            rank = RankProcess(number, here, subprocess.Popen(command, stdin=there.fileno()))
            there.close()
            return rank

        monkeypatch.setattr(processes, "spawn", spawn)
        model = SimpleNamespace(layout=Layout(tp=len(programs)), num_drafts=0, device=Device("cpu"))
        build = SimpleNamespace(
            model=model,
            num_pages=3,
            max_rows=1,
            caches=None,
            recipe=Recipe({"collective_timeout": patience}, "0" * 64),
        )
        made.append(ProcessesExecutor(build))
        return made[-1]

    yield make
    for executor in made:
        executor.stop()
        assert not executor._folder.path.exists()
        assert all(rank.process.poll() is not None for rank in executor._ranks)
        assert all(rank.channel.fileno() == -1 for rank in executor._ranks)


def plan(step=0, tokens=0):
    return StepPlan(step, [], [], [], [*range(tokens)], [], [], [], [])


def launch_many(executor):
    for step in range(10_000):
        executor.launch(plan(step, tokens=2_000))


def started(executor):
    executor.start()
    return executor


def test_a_stop_during_the_start_ends_it(executor_of):
    executor = executor_of(PREPARE + WAIT, PREPARE + WAIT)
    timer = threading.Timer(0.5, executor.stop)
    timer.start()
    with pytest.raises(RuntimeError, match="was not loaded: it was stopped meanwhile"):
        executor.start()
    timer.join()


def test_a_second_process_that_cannot_be_started_ends_the_first(executor_of, monkeypatch):
    executor = executor_of(PREPARE + WAIT, PREPARE + WAIT)
    first = processes.spawn

    def spawn(number, world):
        if number:
            raise OSError("no more processes")
        return first(number, world)

    monkeypatch.setattr(processes, "spawn", spawn)
    with pytest.raises(OSError, match="no more processes"):
        executor.start()
    assert len(executor._ranks) == 1


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_rank_that_is_stopped_is_named_though_no_other_waits_for_it(executor_of, name):
    executor = executor_of(*[SERVE + WAIT] * (1 + (name == "two")))
    executor.start()
    os.kill(executor._ranks[-1].process.pid, signal.SIGSTOP)
    with pytest.raises(StepError, match=rf"rank {len(executor._ranks) - 1}.* is stopped by a signal and does nothing"):
        executor.launch(plan()).result()


def test_a_rank_that_is_stopped_during_the_start_is_named(executor_of):
    executor = executor_of(PREPARE + "import os; os.kill(os.getpid(), 19)")
    with pytest.raises(RuntimeError, match=r"rank 0 .* is stopped by a signal and does nothing"):
        executor.start()


def test_a_rank_that_reads_nothing_blocks_nobody_for_ever(executor_of):
    executor = executor_of(SERVE + WAIT)
    executor.start()
    begun = time.monotonic()
    with pytest.raises(StepError, match=r"rank 0 .* cannot be told anything: it has taken no message for too long"):
        launch_many(executor)
    assert time.monotonic() - begun < 30


def test_the_end_of_an_idle_rank_is_told_before_others_could_have_said_something(executor_of):
    executor = executor_of(SERVE + WAIT, SERVE + WAIT)
    executor.start()
    told, waited = threading.Event(), []
    executor.on_end = lambda reason: (waited.append(time.monotonic() - begun), told.set())
    begun = time.monotonic()
    executor._ranks[1].process.kill()
    assert told.wait(10)
    assert waited[0] < processes.LAST_WORDS


def test_what_a_rank_says_and_nobody_understands_ends_the_engine(executor_of):
    executor = executor_of(SERVE + "c.send(b'\\x93\\x01\\x02\\x03')\n" + WAIT)
    executor.start()
    with pytest.raises(StepError, match=r"rank 0 .* sent a message that cannot be read"):
        executor.launch(plan()).result()


def test_ranks_work_where_more_files_are_open_than_select_takes(executor_of):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("the system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        executor = executor_of(f"{SERVE}c.send({RESULT!r})\nc.receive()")
        executor.start()
        assert executor.launch(plan()).result().step == 0
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- of a rank that is real, by what becomes of it


WORKER = """
import os, sys, vllm_core.distributed.rank as module
from vllm_core import worker
from vllm_core.distributed.messages import Started
class Rank:
    def __init__(self, start): pass
    def load(self):
        {load}
        return Started(400, 0, {{}}, {{}})
    def launch(self, message):
        {launch}
    def take(self):
        {take}
module.Rank = Rank
worker.main()
"""


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        ({"launch": "raise KeyError('a plan of tomorrow')"}, "KeyError: 'a plan of tomorrow'"),
        ({"take": "raise ZeroDivisionError('a report')"}, "ZeroDivisionError: a report"),
        ({"take": "return object()"}, "TypeError: .*object"),
        ({"launch": "sys.exit(5)"}, "SystemExit: 5"),
    ],
    ids=["launch", "take", "encode", "exit"],
)
def test_an_error_that_nobody_expects_in_a_rank_is_told(executor_of, faulty, said):
    usual = {"load": "pass", "launch": "pass", "take": "import time; time.sleep(60)"}
    executor = executor_of(WORKER.format(**{**usual, **faulty}))
    with pytest.raises((StepError, RuntimeError), match=f"rank 0 .*{said}"):
        started(executor).launch(plan()).result()


def test_a_process_that_a_rank_leaves_behind_hides_its_end_from_nobody(executor_of, tmp_path):
    child = "import subprocess; print(subprocess.Popen(['sleep', '30']).pid, file=open({!r}, 'w'), flush=True)"
    note = tmp_path / "pid"
    usual = {"load": child.format(str(note)), "launch": "pass", "take": "import time; time.sleep(60)"}
    executor = executor_of(WORKER.format(**usual))
    executor.start()
    executor._ranks[0].process.kill()
    begun = time.monotonic()
    with pytest.raises(StepError, match=r"rank 0 .* was killed by SIGKILL"):
        executor.launch(plan()).result()
    assert time.monotonic() - begun < 10
    os.kill(int(note.read_text()), signal.SIGKILL)


def test_no_file_outlives_an_engine_that_is_killed(tmp_path):
    folder = write(tmp_path / "tiny", tiny_model())
    settings = {"dtype": "float32", "max_num_seqs": 8, "max_model_len": 250, "tensor_parallel_size": 2}
    program = (
        "import time\nfrom vllm_core import LLM\n"
        f"llm = LLM({str(folder)!r}, **{settings!r})\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    places = {**os.environ, "TMPDIR": str(tmp_path / "places")}
    (tmp_path / "places").mkdir()
    engine = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=places)
    while engine.stdout.readline().strip() != "ready":
        assert engine.poll() is None
    engine.kill()
    engine.wait()
    assert ended(engine.pid, 10)
    assert not [path for path in (tmp_path / "places").iterdir() if path.name.startswith("vllm-core")]


def test_settings_that_cannot_be_sent_are_refused_before_a_process_starts(executor_of):
    executor = executor_of(WAIT)
    executor._build.recipe = Recipe({**attrs.asdict(EngineSettings()), "hf_overrides": object()}, "0" * 64)
    with pytest.raises(TypeError, match="cannot be sent"):
        executor.start()
    assert executor._ranks == []
