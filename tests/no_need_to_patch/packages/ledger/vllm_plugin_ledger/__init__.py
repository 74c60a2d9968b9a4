"""A metrics sink that writes lines of JSON. Importing this module must not import torch."""

from vllm_core.interfaces.queries import MetricsQuery
from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("metrics_sink", "ledger", "lines of JSON in a file")]


@hookimpl
def settings() -> str:
    return "vllm_plugin_ledger.settings:Settings"


@hookimpl
def metrics_sink(query: MetricsQuery, settings) -> Offer | None:
    if not settings.file:
        return None
    return Offer(name="ledger", target="vllm_plugin_ledger.sink:Ledger", options={"file": settings.file})
