"""Ranks on a Ray cluster for vllm-core. Importing this module must import neither torch nor ray."""

from __future__ import annotations

from typing import Any

from vllm_core.interfaces.queries import ExecutorQuery
from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("executor", "ray", "ranks on a Ray cluster, one host or several")]


@hookimpl
def settings() -> str:
    return "vllm_plugin_ray.settings:Settings"


@hookimpl
def executor(query: ExecutorQuery, settings: Any) -> Offer | None:
    if query.name != "ray":
        return None
    return Offer(
        name="ray",
        target="vllm_plugin_ray.ranks:RayExecutor",
        capabilities=frozenset({"processes"}),
        options={
            "address": settings.address,
            "cpus": settings.cpus_per_rank,
            "patience": settings.start_timeout,
            "strategy": settings.placement,
        },
    )
