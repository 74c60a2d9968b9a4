"""The executor "ray": an actor for each rank, on one host or several."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from vllm_core.executors import (
    Capacity,
    Failed,
    Place,
    Report,
    Result,
    Start,
    Started,
    Step,
    StepError,
    blame,
    capacity_of,
    decode_up,
    encode,
)
from vllm_plugin_ray.actor import RankActor
from vllm_plugin_ray.cluster import connect, release, reserve

LAST_WORDS = 1.0  # seconds in which other ranks may tell what happened, once one has
LARGE = 64 << 10  # bytes of a plan that is put where the actors of a host share it
LOOPBACK = "127.0.0.1"


@attrs.define(eq=False)
class _Flight:
    """What the ranks were asked to do for a step, and have not answered yet: reference -> rank."""

    asked: dict[Any, int]
    result: Any = None


class RayExecutor:
    """``interfaces.executor.Executor``.

    ``on_end`` may be set: it is called with the reason, in another thread, when a rank ends by itself.
    """

    def __init__(self, build: Any, *, address: str, cpus: int, patience: float, strategy: str) -> None:
        self._build, self._layout = build, build.model.layout
        self._address, self._cpus, self._patience, self._strategy = address, cpus, patience, strategy
        self._actors: list[Any] = []
        self._places: dict[int, Place] = {}
        self._flights: dict[int, _Flight] = {}
        self._failure = ""
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self.on_end: Callable[[str], None] | None = None
        self._end: Callable[[], Any] = lambda: None

    def start(self) -> Capacity:
        device, world = self._build.torch_device.type, self._layout.world
        here = connect(self._address)
        resources: dict[str, float] = {"CPU": self._cpus, **({} if device == "cpu" else {"GPU": 1})}
        group = reserve(world, resources, self._strategy, self._patience)
        self._end = weakref.finalize(self, _end, self._actors, self._stopping, group, here)
        options = {"num_cpus": self._cpus, "num_gpus": resources.get("GPU", 0)}
        environment = {"OMP_NUM_THREADS": str(self._cpus)}
        actors = [
            RankActor.options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
                runtime_env={"env_vars": environment},
                **options,
            ).remote()
            for bundle in range(world)
        ]
        found = ray.get([actor.where.remote() for actor in actors])
        # Neighbours share layers: ranks of one host get numbers that follow each other.
        order = sorted(range(world), key=lambda i: (found[i][0] != found[0][0], found[i][0], i))
        self._actors += [actors[i] for i in order]
        addresses = [found[i][0] for i in order]
        several = len(set(addresses)) > 1
        for rank, i in enumerate(order):
            _, host, pid = found[i]
            self._places[rank] = Place(host, device, pid, here=host == socket.gethostname())
        meeting = ray.get(self._actors[0].open_store.remote(addresses[0] if several else LOOPBACK, world))
        starts = [
            Start(
                settings=dict(self._build.recipe.settings),
                digest=self._build.recipe.digest,
                rank=rank,
                local_rank=0,  # Ray shows each actor its own devices only
                num_pages=self._build.num_pages,
                meeting=meeting,
                address=addresses[rank] if several else LOOPBACK,
            )
            for rank in range(world)
        ]
        asked = {actor.load.remote(encode(s)): s.rank for actor, s in zip(self._actors, starts, strict=True)}
        started = self._started(asked)
        threading.Thread(target=self._watch, daemon=True, name="vllm-core-ray-watch").start()
        return capacity_of(self._build, started)

    def launch(self, plan: Any) -> _Elsewhere:
        self._check(plan.step)
        message: Any = encode(Step(plan))
        if len(message) > LARGE:
            message = ray.put(message)
        asked = {}
        for rank, actor in enumerate(self._actors):
            asked[actor.launch.remote(message)] = rank
            asked[actor.take.remote()] = rank
        with self._lock:
            self._flights[plan.step] = _Flight(asked)
        return _Elsewhere(self, plan.step)

    def stop(self) -> None:
        self._stopping.set()
        self._end()

    def result(self, step: int, timeout: float | None) -> Any | None:
        """None if it is not there after ``timeout`` seconds. Raises ``StepError``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        flight = self._flights[step]
        while flight.result is None:
            self._check(step)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _ = ray.wait(list(flight.asked), timeout=left)
            for reference in ready:
                self._hear(flight, reference)
            if not ready and left == 0.0:
                return None
        # A rank that does not speak may fail in a step whose result is there: the next one hears of it.
        del self._flights[step]
        return flight.result

    # ---- what ranks say

    def _started(self, asked: Mapping[Any, int]) -> dict[int, Started]:
        started, left, reports = dict[int, Started](), dict(asked), dict[int, Report]()
        while left and not reports:
            for reference in ray.wait(list(left))[0]:
                rank = left.pop(reference)
                message = _heard(reference)
                if isinstance(message, Started):
                    started[rank] = message
                else:
                    reports[rank] = message
        if reports:
            raise RuntimeError(f"the model was not loaded: {blame(self._layout, reports, self._places)}")
        return started

    def _hear(self, flight: _Flight, reference: Any) -> None:
        rank = flight.asked.pop(reference)
        message = _heard(reference)
        if isinstance(message, Result):
            flight.result = message.result
        elif isinstance(message, Report):
            self._conclude(rank, message)

    def _conclude(self, rank: int, report: Report) -> None:
        """Something has gone wrong: hear the others, who may know more, and find out whose fault it is."""
        with self._lock:
            if self._failure:
                return
            reports = {rank: report}
            left = {r: n for flight in self._flights.values() for r, n in flight.asked.items() if n not in reports}
            deadline = time.monotonic() + LAST_WORDS
            while left and all(r.waited for r in reports.values()) and (rest := deadline - time.monotonic()) > 0:
                for reference in ray.wait(list(left), timeout=rest)[0]:
                    if isinstance(message := _heard(reference), Report):
                        reports[left[reference]] = message
                    del left[reference]
            self._failure = blame(self._layout, reports, self._places)
            _kill(self._actors)  # those who wait for the one that failed could do so for long

    def _check(self, step: int) -> None:
        if self._failure or self._stopping.is_set():
            raise StepError(step, self._failure or "not run, because the executor was stopped")

    def _watch(self) -> None:
        """In a thread: hear of the end of a rank, although nobody may be waiting."""
        ends = {actor.until_the_end.remote(): rank for rank, actor in enumerate(self._actors)}
        with contextlib.suppress(Exception):  # Ray itself has ended
            while not self._stopping.is_set():
                for reference in ray.wait(list(ends), timeout=0.5)[0]:
                    if not self._stopping.is_set():
                        self._conclude(ends[reference], _heard(reference))
                        if self.on_end is not None:
                            self.on_end(self._failure)
                        return


class _Elsewhere:
    """A step that runs in actors."""

    def __init__(self, executor: RayExecutor, step: int) -> None:
        self._executor, self._step = executor, step
        self._result: Any = None

    def done(self) -> bool:
        if self._result is None:
            try:
                self._result = self._executor.result(self._step, 0.0)
            except StepError:
                return True  # ``result`` raises it
        return self._result is not None

    def result(self, timeout: float | None = None) -> Any:
        if self._result is None:
            self._result = self._executor.result(self._step, timeout)
        if self._result is None:
            raise TimeoutError(f"step {self._step} has not finished after {timeout} s")
        return self._result


def _heard(reference: Any) -> Any:
    """`Started`, `Result`, a `Report` of a rank that has ended, or None."""
    try:
        message = ray.get(reference)
    except ray.exceptions.RayActorError as error:
        first = str(error).strip().splitlines()[0]
        return Report(ended=f"has ended: {first}")
    except ray.exceptions.RayError as error:
        return Report(str(error).strip().splitlines()[-1], type(error).__name__)
    if not message:
        return None
    said = decode_up(message)
    return Report(said.error, said.kind, said.waited, said.step) if isinstance(said, Failed) else said


def _kill(actors: Sequence[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(Exception):
            ray.kill(actor)


def _end(actors: list[Any], stopping: threading.Event, group: Any, started_here: bool) -> None:
    stopping.set()
    _kill(actors)
    release(group, started_here)
