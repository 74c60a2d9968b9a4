"""Actors in the bundles of a placement group, in the order of ranks, and what each is told to load."""

from __future__ import annotations

import socket
from typing import Any

import attrs
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from vllm_core.executors import Place, Start
from vllm_plugin_ray.actor import RankActor

LOOPBACK = "127.0.0.1"


@attrs.frozen
class Placed:
    """One rank, where it is."""

    actor: Any
    place: Place
    address: str  # of its host


def place(world: int, device: str, group: Any, cpus: int, gpus: float) -> list[Placed]:
    """An actor a bundle. Neighbours share layers: ranks of one host get numbers that follow each other."""
    actors = [
        RankActor.options(
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(cpus)}},
            num_cpus=cpus,
            num_gpus=gpus,
        ).remote()
        for bundle in range(world)
    ]
    found = ray.get([actor.where.remote() for actor in actors])
    first, here = found[0][0], socket.gethostname()
    order = sorted(range(world), key=lambda i: (found[i][0] != first, found[i][0], i))
    return [
        Placed(actors[i], Place(host, device, pid, here=host == here), address)
        for i in order
        for address, host, pid in (found[i],)
    ]


def starts(build: Any, placed: list[Placed]) -> list[Start]:
    """For each rank. They meet on the first one's host, by its address where there are several."""
    several = len({one.address for one in placed}) > 1
    addresses = [one.address if several else LOOPBACK for one in placed]
    meeting = ray.get(placed[0].actor.open_store.remote(addresses[0], len(placed)))
    return [
        Start(
            settings=dict(build.recipe.settings),
            digest=build.recipe.digest,
            rank=rank,
            local_rank=0,  # Ray shows each actor its own devices only
            num_pages=build.num_pages,
            meeting=meeting,
            address=address,
        )
        for rank, address in enumerate(addresses)
    ]
