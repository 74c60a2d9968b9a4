"""Log records that were not written. Those of the engine's process are told in its log only."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from vllm_plugin_server.logs.setup import installed

__all__ = ["count_dropped"]


def count_dropped(registry: CollectorRegistry, prefix: str) -> None:
    """From now on, and what was dropped before."""
    counter = Counter(
        f"{prefix}log_records_dropped", "Log records dropped because nobody read standard error.", registry=registry
    )
    if (handler := installed()) is not None:
        counter.inc(handler.dropped)
        handler.on_drop = counter.inc
