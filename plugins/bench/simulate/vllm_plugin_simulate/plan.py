"""The cheapest way to serve a load: which split, and how many engines of it.

Of each split on which the model fits the highest rate is looked for at which one engine meets the goals, by halving
the interval; the load over that rate is the number of engines. Engines get the load evenly, so one stands for all.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import attrs

from vllm_core.commands import UsageError
from vllm_plugin_simulate.engine import Engine
from vllm_plugin_simulate.figures import figures
from vllm_plugin_simulate.fleet import simulate
from vllm_plugin_simulate.goals import Goals
from vllm_plugin_simulate.requests import Sketch, poisson

__all__ = ["Option", "Search", "load_of", "options", "shown"]

HALVINGS = 5
LOWEST = 1 / 64  # of the rate of a full engine: below it an engine is not worth having
DEARER = 1.25  # what cannot come within so many times the cheapest one found is not looked into

At = Callable[[float], Sequence[Sketch]]
"""The requests that come to an engine, so many a second."""


@attrs.frozen(kw_only=True)
class Option:
    """A split, and how many engines of it carry the load. ``rate``: requests/s of one engine."""

    tp: int
    pp: int
    dp: int = 0
    rate: float = 0.0
    utilization: float = 0.0  # of the busiest stage at this rate
    why_not: str = ""  # no rate meets the goals, it takes too many GPUs, or more than others

    @property
    def gpus(self) -> int:
        return self.tp * self.pp * self.dp


class Search:
    """Simulates an engine at one rate after the other."""

    def __init__(self, engine: Engine, at: At, goals: Goals) -> None:
        self._engine, self._at, self._goals = engine, at, goals
        self.busy = 0.0  # in the last run that met the goals

    def full(self) -> float:
        """Requests/s when all come at once."""
        found = figures(simulate(self._engine.replica, self._at(math.inf)), self._engine.split.gpus)
        return found["request_throughput"]

    def missed(self, rate: float) -> str:
        run = simulate(self._engine.replica, self._at(rate))
        why = self._goals.missed(figures(run, self._engine.split.gpus), rate)
        if not why:
            self.busy = run.busy
        return why

    def best(self, full: float, most: float, least: float) -> tuple[float, str]:
        """(requests/s within the goals, "" or what is missed). Less than ``least`` and more than ``most`` is no use."""
        if least and (why := self.missed(least)):
            return 0.0, why
        low, high = least, min(1.2 * full, most)
        if not self.missed(high):
            return high, ""
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.missed(middle) else (middle, high)
        if low:
            return low, ""
        why = self.missed(LOWEST * full)
        return (0.0, why) if why else (LOWEST * full, "")


def options(
    engines: Sequence[Engine],
    rate: float,
    at: At,
    goals: Goals,
    most_gpus: int,
    tick: Callable[[str], None] = lambda what: None,
) -> list[Option]:
    """One for each engine, cheapest first; those that cannot be are last. ``rate``: requests/s of the whole load."""
    found: list[Option] = []
    for engine in engines:
        split = engine.split
        tick(f"{split.tp} x {split.pp}")
        search = Search(engine, at, goals)
        full = search.full()
        least = math.ceil(rate / (1.2 * full)) * split.gpus
        cheapest = min((one.gpus for one in found if not one.why_not), default=most_gpus)
        if least > min(most_gpus, DEARER * cheapest):
            found.append(Option(tp=split.tp, pp=split.pp, why_not=f"at least {least:,} GPUs, whatever the goals"))
            continue
        useful = 0.0 if cheapest == most_gpus else rate * split.gpus / (DEARER * cheapest)
        each, why = search.best(full, rate, useful)
        if useful and why:
            why = f"more than {math.floor(DEARER * cheapest):,} GPUs: {why} at {useful:.3g} requests/s an engine"
        dp = math.ceil(rate / each * (1 - 1e-9)) if each else 0
        if dp * split.gpus > most_gpus:
            why = f"{dp:,} engines, {dp * split.gpus:,} GPUs"
        found.append(Option(tp=split.tp, pp=split.pp, dp=dp, rate=each, utilization=search.busy, why_not=why))
    return sorted(found, key=lambda one: (bool(one.why_not), one.gpus, one.tp * one.pp))


def load_of(sketches: Sequence[Sketch], count: int, seed: int) -> At:
    """``count`` requests with the lengths of these, again from the start if there are fewer, at any rate."""
    if not sketches:
        raise UsageError("there is no request to plan for")

    def at(rate: float) -> Sequence[Sketch]:
        times = poisson(count, rate, random.Random(seed))
        return [attrs.evolve(sketches[i % len(sketches)], arrival=time) for i, time in enumerate(times)]

    return at


def shown(found: Sequence[Option]) -> str:
    lines = [f"{'GPUs':>8}{'tp':>5}{'pp':>5}{'dp':>8}{'req/s an engine':>18}{'busiest stage':>16}"]
    for one in found:
        if one.why_not:
            lines.append(f"{'-':>8}{one.tp:>5}{one.pp:>5}{'-':>8}   {one.why_not}")
        else:
            lines.append(
                f"{one.gpus:>8,}{one.tp:>5}{one.pp:>5}{one.dp:>8,}{one.rate:>18.3g}{100 * one.utilization:>15.0f}%"
            )
    return "\n".join(lines)
