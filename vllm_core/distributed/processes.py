"""The executor "mp": a process for each rank of the model, all on this host."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import msgspec

from vllm_core.distributed.blame import Place, Report, blame
from vllm_core.distributed.channel import ChannelClosed, broadcast, ready
from vllm_core.distributed.children import LAST_WORDS, RankProcess, end, how_it_ended, spawn
from vllm_core.distributed.elsewhere import Elsewhere
from vllm_core.distributed.messages import Failed, Result, Start, Started, Step, decode_up, encode
from vllm_core.distributed.torch_group import LOOPBACK
from vllm_core.engine.folders import OwnedFolder
from vllm_core.engine.pids import is_stopped
from vllm_core.executors import capacity_of
from vllm_core.interfaces.executor import Capacity, StepError
from vllm_core.interfaces.steps import Pending, StepPlan, StepResult

__all__ = ["ProcessesExecutor"]

TURN = 0.5  # seconds that one thread listens before another may, which ends the executor, say
AT_ONCE = 0.1  # seconds in which others may tell, where the cause is known
INTERVAL = 0.1  # seconds between two looks at whether the start was given up


class ProcessesExecutor:
    """``interfaces.executor.Executor``. The engine's process has no model and touches no device.

    ``on_end`` may be set: it is called with the reason, in another thread, when a rank ends while nobody waits.
    """

    def __init__(self, build: Any) -> None:
        self._build = build
        self._layout = build.model.layout
        self._ranks: list[RankProcess] = []
        self._results: dict[int, StepResult] = {}
        self._reports: dict[int, Report] = {}
        self._failure = ""
        self._patience: float = build.recipe.settings["collective_timeout"]
        self._stopped: dict[int, float] = {}  # ranks that a signal has stopped, and since when
        self._lock = threading.RLock()
        self.on_end: Callable[[str], None] | None = None
        self._stopping = threading.Event()
        # The kernel ends a rank with the thread that started it, so that one must live as long as they do.
        self._keeper = ThreadPoolExecutor(1, "vllm-core-ranks")
        self._folder = OwnedFolder.make()
        self._end = weakref.finalize(self, end, self._ranks, self._stopping, self._lock, self._keeper, self._folder)

    def start(self) -> Capacity:
        if self._ranks or not self._end.alive:
            raise RuntimeError("this executor was started before; make a new one")
        begun = time.perf_counter()
        try:
            started = self._start()
        except BaseException:  # ``stop`` may have come before there was anything to end
            end(self._ranks, self._stopping, self._lock, self._keeper, self._folder)
            raise
        if self._build.model.device.type == "cpu":  # nobody meets there later, and it would outlive a killed engine
            self._folder.remove()
        threading.Thread(target=self._watch, daemon=True, name="vllm-core-ranks-watch").start()
        capacity = capacity_of(self._build, started)
        begin = time.perf_counter() - begun - sum(capacity.timings.values())
        return attrs.evolve(capacity, timings={"processes": max(0.0, begin), **capacity.timings})

    def _start(self) -> dict[int, Started]:
        messages = [encode(self._start_of(number)) for number in range(self._layout.world)]
        for number in range(self._layout.world):
            self._ranks.append(self._keeper.submit(spawn, number, self._layout.world).result())
        for rank, message in zip(self._ranks, messages, strict=True):
            self._tell([rank], message)
        started: dict[int, Started] = {}
        while len(started) < len(self._ranks):
            found = self._read(INTERVAL)
            for number, message in found:
                if isinstance(message, Started):
                    started[number] = message
            if not found:
                self._look()
            if self._failure or self._stopping.is_set():
                why = self._failure or "it was stopped meanwhile"
                raise RuntimeError(f"the model was not loaded: {why}")
        return started

    def launch(self, plan: StepPlan) -> Pending:
        self._check(plan.step)
        self._tell(self._ranks, encode(Step(plan)))
        self._check(plan.step)
        return Elsewhere(self, plan.step)

    def stop(self) -> None:
        self._end()

    # ---- what ranks say

    def result(self, step: int, timeout: float | None) -> StepResult | None:
        """None if it is not there after ``timeout`` seconds. Raises `StepError`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while step not in self._results:
            self._check(step)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            found = self._read(TURN if left is None else min(left, TURN))
            if not found and left == 0.0:
                return None
            if not found:
                self._look()
        return self._results.pop(step)

    def _read(self, timeout: float | None) -> list[tuple[int, Any]]:
        """Take in what has come, after ``timeout`` seconds at most. A rank that ends ends all."""
        with self._lock:
            if self._stopping.is_set():
                return []
            talking = {rank.channel.fileno(): rank for rank in self._ranks if rank.number not in self._reports}
            found = []
            for descriptor in ready(talking, timeout):
                message = self._hear(talking[descriptor])
                if isinstance(message, Result):
                    self._results[message.result.step] = message.result
                if message is not None:
                    found.append((talking[descriptor].number, message))
            if self._reports and not self._failure:
                self._conclude()
            return found

    def _hear(self, rank: RankProcess) -> Any:
        """Its next message. One that ends leaves a report."""
        try:
            message = decode_up(rank.channel.receive() or b"")
        except ChannelClosed:
            self._reports[rank.number] = Report(ended=how_it_ended(rank.process))
            return None
        except msgspec.MsgspecError as error:
            self._reports[rank.number] = Report(ended=f"sent a message that cannot be read: {error}")
            return None
        if isinstance(message, Failed):
            self._reports[rank.number] = Report(message.error, message.kind, message.waited, message.step)
        return message

    def _conclude(self) -> None:
        """Something has gone wrong: hear the others, who may know more, and find out whose fault it is."""
        waits = all(report.waited for report in self._reports.values())
        deadline = time.monotonic() + (LAST_WORDS if waits else AT_ONCE)
        silent = [rank for rank in self._ranks if rank.number not in self._reports]
        while silent and (left := deadline - time.monotonic()) > 0:
            talking = {rank.channel.fileno(): rank for rank in silent}
            for descriptor in ready(talking, left):
                message = self._hear(talking[descriptor])
                if isinstance(message, Result):
                    self._results[message.result.step] = message.result
            if any(not report.waited for report in self._reports.values()):
                break
            silent = [rank for rank in self._ranks if rank.number not in self._reports]
        host, device = socket.gethostname(), self._build.model.device.type
        places = {rank.number: Place(host, device, rank.process.pid) for rank in self._ranks}
        self._failure = blame(self._layout, self._reports, places)
        for rank in self._ranks:  # those who wait for the one that failed could do so for long
            rank.process.kill()

    def _check(self, step: int) -> None:
        if self._failure or self._stopping.is_set():
            raise StepError(step, self._failure or "not run, because the executor was stopped")

    def _tell(self, ranks: Sequence[RankProcess], message: bytes) -> None:
        try:
            broadcast([rank.channel for rank in ranks], message, self._patience)
        except ChannelClosed as error:
            self._read(0)
            for rank in ranks:
                if rank.channel is error.channel and not self._failure:
                    self._accuse(rank, f"cannot be told anything: {error}")

    def _look(self) -> None:
        """Ranks that a signal has stopped, though none may wait for them: there is one, or each is on its own."""
        now = time.monotonic()
        for rank in self._ranks:
            if not is_stopped(rank.process.pid):
                self._stopped.pop(rank.number, None)
            elif now - self._stopped.setdefault(rank.number, now) > self._patience:
                self._accuse(rank, "does nothing")

    def _accuse(self, rank: RankProcess, what: str) -> None:
        how = "is stopped by a signal and " if is_stopped(rank.process.pid) else ""
        with self._lock:
            self._reports.setdefault(rank.number, Report(ended=how + what))
            self._conclude()

    def _watch(self) -> None:
        """In a thread: hear of the end of a rank, although nobody may be reading."""
        descriptors = []
        for rank in self._ranks:
            try:
                descriptors.append(os.pidfd_open(rank.process.pid))
            except (OSError, AttributeError):  # it has ended, or the system has no such thing: readers will know
                continue
        try:
            while descriptors and not self._stopping.is_set():
                if ready(descriptors, INTERVAL * 5):
                    break
            if not self._stopping.is_set() and descriptors:
                self._read(0)
                if self.on_end is not None and self._failure:
                    self.on_end(self._failure)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _start_of(self, rank: int) -> Start:
        recipe = self._build.recipe
        return Start(
            settings=dict(recipe.settings),
            digest=recipe.digest,
            rank=rank,
            local_rank=rank,
            num_pages=self._build.num_pages,
            meeting=str(self._folder.path / "meeting"),
            address=LOOPBACK,
            engine=os.getpid(),
        )
