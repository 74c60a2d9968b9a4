"""The cluster, and the places on it that an engine's ranks get."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

STRATEGIES = ("PACK", "STRICT_PACK", "SPREAD", "STRICT_SPREAD")
ADDRESS = "RAY_ADDRESS"


def _plain(function: Any) -> Any:
    """Ray's own function, which fails where the process has left the cluster. The public one starts another cluster."""
    return getattr(function, "__wrapped__", function)


get, put, wait, kill_actor = (_plain(function) for function in (ray.get, ray.put, ray.wait, ray.kill))


def connect(address: str) -> bool:
    """Whether a cluster was started here, which ends with this process. An address that was given must answer."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    if address != "local":
        may_lack = address == "auto" and not os.environ.get(ADDRESS)
        with contextlib.suppress(ConnectionError) if may_lack else contextlib.nullcontext():
            ray.init(address=address, **quiet)
            return False
    ray.init(address="local", include_dashboard=False, **quiet)
    return True


def reserve(world: int, resources: dict[str, float], strategy: str, patience: float) -> Any:
    """A placement group with a bundle for each rank. ``TimeoutError`` says what the cluster lacks."""
    group = placement_group([resources] * world, strategy=strategy)
    if group.wait(patience):
        return group
    remove_placement_group(group)
    asked = " and ".join(f"{amount:g} {name}" for name, amount in resources.items())
    free = ", ".join(f"{amount:g} {name}" for name, amount in ray.available_resources().items() if name in resources)
    raise TimeoutError(
        f"the Ray cluster has no room for {world} ranks of {asked} each ({strategy}) after {patience:g} s; free are"
        f" {free or 'none of these'}.\n  instead fewer ranks, or plugin.ray.cpus_per_rank, or a larger cluster"
    )


def kill(actors: Iterable[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(Exception):  # the cluster itself may be gone
            kill_actor(actor)


def release(group: Any, started_here: bool) -> None:
    """``group`` None: nothing was reserved."""
    if not ray.is_initialized():
        return
    if group is not None:
        with contextlib.suppress(Exception):
            remove_placement_group(group)
    if started_here:
        ray.shutdown()
