"""Data parallelism: several engines behind one router, in one simulated time.

Engines beyond a bound are not simulated. Then those that are get a random share of the requests, as many as each of
all engines would get, and throughput is scaled up: engines do not depend on each other but through the router.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import attrs

from vllm_plugin_simulate.replica import Outcome, Replica
from vllm_plugin_simulate.requests import Sketch, ids_of

__all__ = ["ROUTES", "Run", "serve", "simulate", "thinned"]

Route = Callable[[Sequence[Replica], int], Replica]
"""(engines, requests so far) -> the engine that gets the next one."""


def least_loaded(replicas: Sequence[Replica], count: int) -> Replica:
    """The one with the fewest unfinished requests; among equals, in turn."""
    size = len(replicas)
    return replicas[min(range(size), key=lambda i: (replicas[i].outstanding, (i - count) % size))]


def round_robin(replicas: Sequence[Replica], count: int) -> Replica:
    return replicas[count % len(replicas)]


ROUTES: dict[str, Route] = {"least-loaded": least_loaded, "round-robin": round_robin}


@attrs.frozen(kw_only=True)
class Run:
    """What happened. ``scale``: of all requests, for each simulated one."""

    outcomes: Sequence[Outcome]
    scale: float
    engines: int  # in all
    simulated: int  # of them
    busy: float  # share of the time between first arrival and last token that the busiest stage works, mean of engines
    preemptions: int


def serve(replicas: Sequence[Replica], sketches: Sequence[Sketch], route: Route = least_loaded) -> list[Outcome]:
    """Requests in the order of arrival, each given to an engine when it comes, all run to their end."""
    outcomes: list[Outcome] = []
    waiting = list(reversed(sketches))
    while True:
        working = [replica for replica in replicas if replica.has_work]
        behind = min(working, key=lambda replica: replica.clock.now, default=None)
        # A request is routed once every engine at work has come as far as its arrival.
        if waiting and (behind is None or behind.clock.now >= waiting[-1].arrival):
            sketch, number = waiting.pop(), len(outcomes)
            outcomes.append(route(replicas, number).add(sketch.arrival, ids_of(sketch, number), sketch.output_tokens))
        elif behind is not None:
            behind.step()
        else:
            return outcomes


def simulate(
    make: Callable[[], Replica],
    sketches: Sequence[Sketch],
    *,
    engines: int = 1,
    most: int = 8,
    route: str = "least-loaded",
    seed: int = 0,
) -> Run:
    """``make`` gives an engine; of more than ``most`` only so many are simulated."""
    simulated = min(engines, most)
    chosen = thinned(sketches, simulated / engines, seed)
    replicas = [make() for _ in range(simulated)]
    outcomes = serve(replicas, chosen, ROUTES[route])
    end = max(outcome.times[-1] for outcome in outcomes)
    shares = [max(replica.pipeline.busy) / end for replica in replicas]
    return Run(
        outcomes=outcomes,
        scale=len(sketches) / len(chosen),
        engines=engines,
        simulated=simulated,
        busy=sum(shares) / len(shares),
        preemptions=sum(replica.preemptions for replica in replicas),
    )


def thinned(sketches: Sequence[Sketch], share: float, seed: int = 0) -> Sequence[Sketch]:
    """A random share of the requests, at least one, in their order: of a Poisson process again one."""
    if share >= 1:
        return sketches
    kept = max(1, round(share * len(sketches)))
    return [sketches[i] for i in sorted(random.Random(seed).sample(range(len(sketches)), kept))]
