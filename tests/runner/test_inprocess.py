"""Launching steps without waiting for them."""

import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vllm_core.interfaces.executor import Capacity, StepOutOfMemory
from vllm_core.interfaces.steps import StepPlan
from vllm_core.runner.inprocess import InProcessExecutor, StepError

from .proposers import PromptLookup
from .test_runner import PROMPTS, requests
from .toy import VOCAB, Driver, Request, make_runner


class Build:
    def __init__(self, runner):
        self.runner = runner

    def make_runner(self):
        runner = self.runner
        return runner, Capacity(
            caches=runner.caches,
            num_pages=runner.num_pages,
            max_rows=8,
            num_drafts=runner.num_drafts,
            vocab_size=VOCAB,
        )


@pytest.fixture
def started():
    executor = InProcessExecutor(Build(make_runner()))
    executor.start()
    yield executor, Driver(executor._runner)
    executor.stop()


def launch_ahead(executor, driver, work, steps):
    """Launch all steps before looking at any result, as if nothing were known of sampled tokens."""
    pending = []
    for n in range(steps):
        tokens = [r.prompt if n == 0 else 1 + executor._runner.num_drafts for r in work]
        drafts = [0 if n == 0 else executor._runner.num_drafts] * len(work)
        plan = driver.plan(work if n == 0 else [], list(zip(work, tokens, drafts, [True] * len(work), strict=True)))
        pending.append(executor.launch(plan))
        for request, count in zip(work, tokens, strict=True):
            request.computed += count  # the upper bound: every draft accepted
    return [p.result() for p in pending]


def test_steps_launched_before_any_result_is_known_give_the_tokens_of_one_step_at_a_time(started):
    executor, driver = started
    plain = Driver(make_runner()).generate(requests(), 9)
    results = launch_ahead(executor, driver, requests(), 9)
    assert [r.step for r in results] == list(range(1, 10))
    assert [[t for r in results for t in r.tokens(i)] for i in range(4)] == plain
    assert all(r.token_ids.dtype == np.int32 and r.token_ids.shape == (4, 1) for r in results)


def test_drafts_too_are_verified_before_the_host_knows_how_many_stood():
    plain = Driver(make_runner()).generate(requests(), 30)
    executor = InProcessExecutor(Build(make_runner(PromptLookup(2, {"ngram": 1}), 2)))
    executor.start()
    results = launch_ahead(executor, Driver(executor._runner), requests(), 15)
    outputs = [[t for r in results for t in r.tokens(i)] for i in range(4)]
    executor.stop()
    assert [o[:15] for o in outputs] == [p[:15] for p in plain]
    assert all(o[:30] == p[: len(o)] for o, p in zip(outputs, plain, strict=True))
    assert sum(map(len, outputs)) > 4 * 15


def test_launch_returns_while_the_step_runs_and_result_can_time_out(started):
    executor, driver = started
    go = threading.Event()
    execute = executor._runner.execute
    executor._runner.execute = lambda plan: (go.wait(), execute(plan))[1]
    request = Request(0, list(PROMPTS[0]))
    pending = executor.launch(driver.plan([request], [(request, 8, 0, True)]))
    assert not pending.done()
    with pytest.raises(TimeoutError, match=r"step 1 has not finished after 0\.01 s"):
        pending.result(timeout=0.01)
    go.set()
    assert len(pending.result(timeout=10).tokens(0)) == 1
    assert pending.done()


def test_a_failing_step_names_itself_and_the_steps_after_it_do_not_run(started):
    executor, driver = started
    bad = StepPlan(1, [], [], [], rows=[99], num_tokens=[1], num_drafts=[0], samples=[True], kv_bounds=[1])
    request = Request(0, list(PROMPTS[0]))
    first, second = executor.launch(bad), executor.launch(driver.plan([request], [(request, 8, 0, True)]))
    with pytest.raises(StepError, match=r"step 1: ValueError: step 1: rows run from 0 to 7") as error:
        first.result()
    assert isinstance(error.value.__cause__, ValueError)
    assert error.value.step == 1
    with pytest.raises(StepError, match="not run, because of step 1"):
        second.result()
    assert executor._runner.rows.num_tokens[0] == 0


def test_stop_ends_the_thread_and_may_be_called_twice_and_after_a_failure():
    executor = InProcessExecutor(Build(make_runner()))
    executor.stop()  # never started
    executor = InProcessExecutor(Build(make_runner()))
    executor.start()
    bad = StepPlan(1, [], [], [], rows=[99], num_tokens=[1], num_drafts=[0], samples=[True], kv_bounds=[1])
    pending = executor.launch(bad)
    executor.stop()
    executor.stop()
    with pytest.raises(StepError):
        pending.result(timeout=5)
    assert not [t for t in threading.enumerate() if t.name.startswith("vllm-core-step")]
    with pytest.raises(RuntimeError, match="step 1 was launched, but the executor is not running"):
        executor.launch(bad)


def test_steps_still_queued_when_the_executor_stops_say_so(started):
    executor, driver = started
    go = threading.Event()
    executor._runner.execute = lambda plan: go.wait()
    request = Request(0, list(PROMPTS[0]))
    plan = driver.plan([request], [(request, 8, 0, True)])
    executor.launch(plan)
    queued = executor.launch(driver.plan([], [(request, 1, 0, True)]))
    stopping = threading.Thread(target=executor.stop)
    stopping.start()
    with pytest.raises(StepError, match="step 2: not run, because the executor was stopped"):
        queued.result(timeout=5)
    go.set()
    stopping.join(5)
    assert not stopping.is_alive()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("loading stack: out of memory (CUDA driver error 2)"),
    ],
)
def test_a_step_without_memory_is_told_from_one_that_failed(monkeypatch, error):
    emptied, held = [], []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append([ref() for ref in held]))

    class Activation:
        pass

    def execute(plan):
        made = Activation()
        held.append(weakref.ref(made))
        raise type(error)(str(error))

    executor = InProcessExecutor(None)
    executor._runner = SimpleNamespace(execute=execute)  # on a device: steps have no thread
    plan = StepPlan(
        step=7, inits=[], growths=[], copies=[], rows=[], num_tokens=[], num_drafts=[], samples=[], kv_bounds=[]
    )

    with pytest.raises(StepOutOfMemory, match="step 7 had not enough memory: ") as raised:
        executor.launch(plan)

    assert "total capacity" not in str(raised.value)
    assert emptied == [[None]], "what the step held was let go before the cache was emptied"
    executor._runner.execute = lambda plan: 1 / 0
    with pytest.raises(StepError, match="ZeroDivisionError"):
        executor.launch(plan).result()
