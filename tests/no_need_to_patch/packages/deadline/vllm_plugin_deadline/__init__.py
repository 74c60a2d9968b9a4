"""Earliest deadline first for vllm-core. Importing this module must not import torch."""

from vllm_core.interfaces.queries import SchedulerQuery
from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("scheduler_policy", "deadline", "earliest deadline first")]


@hookimpl
def settings() -> str:
    return "vllm_plugin_deadline.settings:Settings"


@hookimpl
def scheduler_policy(query: SchedulerQuery, settings) -> Offer | None:
    if query.policy != "deadline":
        return None
    options = {"default_ms": settings.default_ms}
    return Offer(name="deadline", target="vllm_plugin_deadline.policy:EarliestDeadline", options=options)
