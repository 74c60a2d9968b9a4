"""Steps in this process: in a worker thread, or in the device's own queue if it runs beside the host."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from vllm_core.interfaces.executor import Capacity, StepError, StepOutOfMemory
from vllm_core.interfaces.steps import Pending, StepPlan, StepResult
from vllm_core.runner.device_events import new_event, runs_beside
from vllm_core.runner.output import StepOutput
from vllm_core.runner.runner import Runner

T = TypeVar("T")

POLL = 0.0005
"""Seconds between looks at the device while a caller waits with a time limit."""

LACKS = ("out of memory", "alloc_failed", "can't allocate memory", "cannot allocate memory", "bad_alloc")
"""What CUDA's libraries, torch's allocator on hosts, the system and C++ say."""


class Build(Protocol):
    """What the executor asks of the resolved build."""

    def make_runner(self) -> tuple[Runner, Capacity]:
        """Load the model, size and make caches and rows. Called once, in the thread of ``start``."""


class InProcessExecutor:
    """``interfaces.executor.Executor`` for one device and no other process.

    alone   no other rank runs the same steps: one that had not enough memory may be lost, and run otherwise
    """

    alone = True

    def __init__(self, build: Build) -> None:
        self._build = build
        self._begun = False
        self._runner: Runner | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._failed: StepError | None = None
        self._lost: StepOutOfMemory | None = None  # in the thread, and with it what is queued behind
        self._told = False  # whoever launches has learned of it
        self._lock = threading.Lock()

    def start(self) -> Capacity:
        if self._begun:
            raise RuntimeError("this executor was started before; make a new one")
        self._begun = True
        self._runner, capacity = self._build.make_runner()
        if not runs_beside(self._runner.device):
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm-core-step")
        return capacity

    def launch(self, plan: StepPlan) -> Pending:
        runner = self._runner
        if runner is None:
            raise RuntimeError(f"step {plan.step} was launched, but the executor is not running")
        if self._thread is not None:
            if self._told:
                self._lost, self._told = None, False
            work = self._thread.submit(self._run, plan, lambda: runner.execute(plan).map(Tensor.cpu).result(plan.step))
            return _OnThread(work, plan, self._tell)
        try:
            return self._run(plan, lambda: _OnDevice(plan, runner.execute(plan), runner.device))
        except StepError as error:
            failed: Future[StepResult] = Future()
            failed.set_exception(error)
            return _OnThread(failed, plan, self._tell)

    def _tell(self) -> None:
        self._told = True

    def _run(self, plan: StepPlan, work: Callable[[], T]) -> T:
        """Do the work unless a step before it failed."""
        if self._failed is not None:
            raise StepError(plan.step, f"not run, because of {self._failed}") from self._failed
        if self._lost is not None:
            raise StepOutOfMemory(plan.step, f"not run, because of {self._lost}")
        try:
            return work()
        except Exception as error:
            if not (self.alone and _lacks_memory(error)):
                self._failed = StepError(plan.step, f"{type(error).__name__}: {error}")
                raise self._failed from error
            reason = ". ".join(str(error).split(". ")[:2]) or type(error).__name__
        # Behind the handler, because its traceback held all that the step had made so far.
        torch.cuda.empty_cache()
        lost = StepOutOfMemory(plan.step, reason)
        if self._thread is not None:
            self._lost = lost
        raise lost

    def stop(self) -> None:
        with self._lock:
            thread, self._thread, runner, self._runner = self._thread, None, self._runner, None
        if thread is not None:
            thread.shutdown(wait=True, cancel_futures=True)
        elif runner is not None:
            torch.get_device_module(runner.device).synchronize(runner.device)


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether it, or what it was raised over, says that there was none left: Python, torch, a library or the driver."""
    while error is not None:
        words = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(said in words for said in LACKS):
            return True
        error = error.__cause__ or error.__context__
    return False


class _OnThread:
    """A step in the worker thread, or one whose launch failed."""

    def __init__(self, future: Future[StepResult], plan: StepPlan, tell: Callable[[], None]) -> None:
        self._future, self._plan, self._tell = future, plan, tell

    def done(self) -> bool:
        return self._future.done()

    def result(self, timeout: float | None = None) -> StepResult:
        try:
            return self._future.result(timeout)
        except StepOutOfMemory:
            self._tell()
            raise
        except CancelledError:
            raise StepError(self._plan.step, "not run, because the executor was stopped") from None
        except TimeoutError:
            raise TimeoutError(f"step {self._plan.step} has not finished after {timeout} s") from None


class _OnDevice:
    """A step in an accelerator's queue; what it found is copied to pinned memory behind it."""

    def __init__(self, plan: StepPlan, output: StepOutput, device: torch.device) -> None:
        self._plan = plan
        self._host = output.map(_to_pinned)
        self._event = new_event(device)
        self._event.record()

    def done(self) -> bool:
        return self._event.query()

    def result(self, timeout: float | None = None) -> StepResult:
        try:
            if timeout is None:
                self._event.synchronize()
            deadline = time.monotonic() + (timeout or 0)
            while not self._event.query():
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"step {self._plan.step} has not finished after {timeout} s")
                time.sleep(POLL)
        except RuntimeError as error:
            raise StepError(self._plan.step, f"{type(error).__name__}: {error}") from error
        return self._host.result(self._plan.step)


def _to_pinned(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
