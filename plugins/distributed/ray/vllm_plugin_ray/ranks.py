"""The executor "ray": an actor for each rank, on one host or several."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import ray

from vllm_core.executors import Capacity, Elsewhere, Place, Report, Started, Step, StepError, blame, capacity_of, encode
from vllm_plugin_ray.cluster import STRATEGIES, connect, kill, put, release, reserve, wait
from vllm_plugin_ray.placing import place, starts
from vllm_plugin_ray.words import all_reports, heard

LARGE = 64 << 10  # bytes of a plan that is put where the actors of a host share it
TURN = 0.5  # seconds of waiting between two looks at whether it is in vain


@attrs.define(eq=False)
class _Held:
    """What ends with the executor."""

    actors: list[Any] = attrs.field(factory=list)
    group: Any = None
    started_here: bool = False  # the cluster
    watcher: threading.Thread | None = None
    stopping: threading.Event = attrs.field(factory=threading.Event)


class RayExecutor:
    """``interfaces.executor.Executor``.

    ``on_end`` may be set: it is called with the reason, in another thread, when a rank ends by itself.
    """

    def __init__(self, build: Any, *, address: str, cpus: int, patience: float, strategy: str) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"plugin.ray: placement must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
        self._build, self._layout = build, build.model.layout
        self._address, self._cpus, self._patience, self._strategy = address, cpus, patience, strategy
        self._places: dict[int, Place] = {}
        self._ends: dict[Any, int] = {}  # reference that is there when a rank cannot go on: the rank
        self._flights: dict[int, Any] = {}  # step: reference of its result
        self._failure = ""
        self._lock = threading.Lock()
        self.on_end: Callable[[str], None] | None = None
        self._held = _Held()
        self._end = weakref.finalize(self, _end, self._held)

    def start(self) -> Capacity:
        if self._held.group is not None or not self._end.alive:
            raise RuntimeError("this executor was started before; make a new one")
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Capacity:
        device, world, held = self._build.torch_device.type, self._layout.world, self._held
        held.started_here = connect(self._address)
        gpus = 0 if device == "cpu" else 1
        resources: dict[str, float] = {"CPU": self._cpus, **({"GPU": gpus} if gpus else {})}
        held.group = reserve(world, resources, self._strategy, self._patience)
        placed = place(world, device, held.group, self._cpus, gpus)
        held.actors += [one.actor for one in placed]
        self._places.update((rank, one.place) for rank, one in enumerate(placed))
        told = starts(self._build, placed)
        asked = {actor.load.remote(encode(s)): s.rank for actor, s in zip(held.actors, told, strict=True)}
        started = self._started(asked)
        self._ends.update((actor.last_word.remote(), rank) for rank, actor in enumerate(held.actors))
        held.watcher = threading.Thread(
            target=_watch, args=(weakref.ref(self), dict(self._ends), held.stopping), daemon=True, name="vllm-core-ray"
        )
        held.watcher.start()
        return capacity_of(self._build, started)

    def launch(self, plan: Any) -> Elsewhere:
        """The ranks are told. What goes wrong there, they say themselves, when they can (`_watch`)."""
        self._check(plan.step)
        message: Any = encode(Step(plan))
        try:
            if len(message) > LARGE:
                message = put(message)
            for actor in self._held.actors:
                actor.launch.remote(message)
            self._flights[plan.step] = self._held.actors[self._layout.speaker].take.remote()
        except ray.exceptions.RayError as error:
            raise StepError(plan.step, f"{type(error).__name__}: {error}") from error
        return Elsewhere(self, plan.step)

    def stop(self) -> None:
        self._end()

    def result(self, step: int, timeout: float | None) -> Any | None:
        """None if it is not there after ``timeout`` seconds. Raises ``StepError``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        reference = self._flights[step]
        while True:
            self._check(step)
            left = TURN if deadline is None else min(TURN, max(0.0, deadline - time.monotonic()))
            if (message := self._hear(reference, left)) is not None:
                break
            if deadline is not None and time.monotonic() >= deadline:
                return None
        if isinstance(message, Report):
            self._conclude(self._layout.speaker, message)
            self._check(step)
        del self._flights[step]
        return message.result

    # ---- what ranks say

    def _hear(self, reference: Any, seconds: float) -> Any | None:
        try:
            return heard(reference) if wait([reference], timeout=seconds)[0] else None
        except Exception as error:  # of Ray itself
            self._lose(error)
            return None

    def _started(self, asked: Mapping[Any, int]) -> dict[int, Started]:
        started, left = dict[int, Started](), dict(asked)
        while left:
            for reference in wait(list(left))[0]:
                rank = left.pop(reference)
                message = heard(reference)
                if isinstance(message, Report):
                    reports = all_reports({rank: message}, left)
                    raise RuntimeError(f"the model was not loaded: {blame(self._layout, reports, self._places)}")
                started[rank] = message
        return started

    def _conclude(self, rank: int, report: Report) -> None:
        """Find out whose fault it is. May be called from any thread; the first one counts."""
        with self._lock:
            if self._failure or self._held.stopping.is_set():
                return
            self._failure = blame(self._layout, all_reports({rank: report}, self._ends), self._places)
            kill(self._held.actors)  # those who wait for the one that failed could do so for long

    def _lose(self, error: Exception | None) -> None:
        why = str(error) if ray.is_initialized() else "ray.shutdown() was called in the engine's process"
        with self._lock:
            self._failure = self._failure or f"the Ray cluster was lost: {why}"

    def _check(self, step: int) -> None:
        if not ray.is_initialized() and not self._held.stopping.is_set():
            self._lose(None)  # before Ray starts another cluster, as it does when it is asked for anything
        if self._failure or self._held.stopping.is_set():
            raise StepError(step, self._failure or "not run, because the executor was stopped")


def _watch(executor: weakref.ref[RayExecutor], ends: Mapping[Any, int], stopping: threading.Event) -> None:
    """In a thread: hear of a rank that cannot go on, although nobody may be waiting."""
    while not stopping.is_set():
        ready, lost = [], None
        try:
            ready = wait(list(ends), timeout=TURN)[0]
        except Exception as error:
            lost = error
        if stopping.is_set() or (owner := executor()) is None:
            return
        if ready or lost is not None:
            try:
                for reference in ready:
                    owner._conclude(ends[reference], heard(reference))
            except Exception as error:
                lost = error
            if lost is not None:
                owner._lose(lost)
            if owner.on_end is not None:
                owner.on_end(owner._failure)
            return
        del owner  # nobody may have it but this thread


def _end(held: _Held) -> None:
    held.stopping.set()
    kill(held.actors)
    if held.watcher is not None and held.watcher is not threading.current_thread():
        held.watcher.join(2 * TURN)
    release(held.group, held.started_here)
    held.actors.clear()
