"""The engines that an ``AsyncLLM`` has started, or found: begun, started, told apart and ended together."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.attached import Attached
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.far.engine import FarEngine
from vllm_core.engine.fleet.plan import alone, environments, plan_fleet
from vllm_core.engine.found import FoundEngine
from vllm_core.engine.home import Home
from vllm_core.engine.owned import OwnedEngine
from vllm_core.engine.shared_facts import SharedFacts

if TYPE_CHECKING:
    from vllm_core.engine.far.gate import Gate

__all__ = ["Engines", "ended_on_error", "find", "own", "own_these"]

log = logging.getLogger(__name__)

BETWEEN = ","  # of addresses of engines


@attrs.frozen
class Engines:
    """By number. ``start`` of those that this process owns; those that were found are ready."""

    owned: Mapping[int, OwnedEngine]
    found: dict[int, FoundEngine] = attrs.field(factory=dict)
    gate: Gate | None = None  # where those of further nodes come in

    @property
    def by_number(self) -> dict[int, Attached]:
        return dict(sorted({**self.owned, **self.found}.items()))

    @property
    def first(self) -> Attached:
        """One that is ready, if any is."""
        engines = self.by_number.values()
        return next((engine for engine in engines if engine.state.now == "ready"), next(iter(engines)))

    @property
    def far(self) -> set[int]:
        """The numbers of those on other hosts."""
        return {number for number, engine in self.found.items() if isinstance(engine, FarEngine)}

    @property
    def address(self) -> str:
        """For ``find``."""
        engines = self.by_number
        if list(engines) == [0]:
            return self.first.home.address
        return BETWEEN.join(f"{number}={engine.home.address}" for number, engine in engines.items())

    def start(self, settings: EngineSettings, digest: str, meanwhile: Callable[[], None]) -> None:
        """Do something ``meanwhile``, then wait until all are ready. Raises what the first one raises that is not."""
        each = alone(settings)
        if self.owned:
            self._start_owned(each, digest, meanwhile)
        else:
            meanwhile()
        if self.gate is not None:
            numbers = ", ".join(map(str, self.gate.homes))
            log.info("waiting at %s for the engines of further nodes: %s", self.gate.endpoint, numbers)
            for number, home in self.gate.homes.items():
                engine = self.found[number] = FarEngine(home.address)
                engine.attach(digest)

    def _start_owned(self, each: EngineSettings, digest: str, meanwhile: Callable[[], None]) -> None:
        first, *others = self.owned.values()
        with ThreadPoolExecutor(max(1, len(others)), "vllm-core-start") as threads:
            starts = [threads.submit(engine.start, each, digest, _nothing) for engine in others]
            try:
                first.start(each, digest, meanwhile)
                for start in starts:
                    start.result()
            except BaseException:
                for engine in others:
                    engine.end_start()  # so that the threads do not wait for the ones that would get there
                raise

    def tell(self, facts: SharedFacts) -> None:
        """For other fronts, which may begin with any of these engines."""
        homes = [engine.home for engine in self.owned.values()]
        for home in [*homes, *(self.gate.homes.values() if self.gate is not None else ())]:
            home.facts.write_bytes(facts.to_bytes())

    def facts(self) -> SharedFacts:
        """What the owner of those that were found has told."""
        return next(iter(self.found.values())).facts()

    def attach(self, digest: str) -> None:
        """Become a front of those that were found. Raises ``EngineDeadError`` if they have another lock."""
        for engine in self.found.values():
            engine.attach(digest)

    def stop(self, now: bool = False) -> None:
        """End them, or leave them. ``now``: without waiting for any to end by itself. Safe to call twice."""
        ends = [engine.end_now if now else engine.stop for engine in self.owned.values()]
        threads = [threading.Thread(target=end, daemon=True) for end in ends[1:]]
        for thread in threads:
            thread.start()
        for end in [*ends[:1], *(engine.stop for engine in self.found.values() if "link" in vars(engine))]:
            end()
        for thread in threads:
            thread.join()
        if self.gate is not None:
            self.gate.close()


def own(settings: EngineSettings, restarts: int, window: float) -> Engines:
    """Of a server: begin the processes of all engines of this host, and wait for those of further nodes."""
    plan = plan_fleet(settings)
    if not plan.elsewhere:
        return own_these(plan.here, settings, restarts, window)
    from vllm_core.engine.far.gate import Gate
    from vllm_core.engine.far.secret import read_keys

    assert settings.data_parallel_address is not None
    assert settings.data_parallel_secret_file is not None
    keys = read_keys(settings.data_parallel_secret_file, gate=True)
    gate = Gate(settings.data_parallel_address, settings.data_parallel_rpc_port, keys, plan.elsewhere)
    with ended_on_error(Engines({}, gate=gate)):
        return attrs.evolve(own_these(plan.here, settings, restarts, window), gate=gate)


def own_these(numbers: Sequence[int], settings: EngineSettings, restarts: int, window: float) -> Engines:
    """Begin their processes."""
    places = environments(settings, len(numbers), os.environ)
    engines: dict[int, OwnedEngine] = {}
    with ended_on_error(Engines(engines)):
        for number, place in zip(numbers, places, strict=True):
            engines[number] = OwnedEngine(restarts, window, place)
    return Engines(engines)


def find(address: str) -> Engines:
    """Those of another process: ``Engines.address``, or one engine's own. Waits until they are ready.

    Those that have ended for good are left out, and those whose nodes are away may come later. Raises
    ``EngineDeadError`` if all have ended.
    """
    homes: dict[int, Home] = {}
    for i, part in enumerate(address.split(BETWEEN)):
        name, _, place = part.partition("=")
        if name.isdecimal():
            homes[int(name)] = Home.at(place)
        else:
            homes[i] = Home.at(part)
    states = {number: home.read() for number, home in homes.items()}
    others = any(status is not None and (status.state == "ready" or not status.far) for status in states.values())
    found: dict[int, FoundEngine] = {}
    gone: list[EngineDeadError] = []
    for number, home in homes.items():
        status = states[number]
        far = status is not None and status.far
        try:
            found[number] = FarEngine(home.address, away=others) if far else FoundEngine(home.address)
        except EngineDeadError as error:
            gone.append(error)
    if not found:
        raise gone[0]
    return Engines({}, found)


@contextmanager
def ended_on_error(engines: Engines) -> Iterator[Engines]:
    try:
        yield engines
    except Exception:
        engines.stop()
        raise
    except BaseException:  # somebody wants it to end, and an engine that loads a model does not listen
        engines.stop(now=True)
        raise


def _nothing() -> None:
    """The first one has what is to be done meanwhile."""
