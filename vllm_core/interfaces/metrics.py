"""The contract of metrics sinks: the engine's figures, once a step and once a request. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from vllm_core.interfaces.queries import MetricsQuery


@attrs.frozen(kw_only=True)
class StepStats:
    """The engine after a step. Counts of this step unless said otherwise."""

    seconds: float  # from launch to result
    running: int  # requests
    waiting: int  # requests
    prompt_tokens: int
    output_tokens: int
    prefix_queries: int  # tokens looked up
    prefix_hits: int  # tokens found
    preemptions: int
    drafted: int  # tokens
    accepted: int  # tokens
    pages_used: int
    pages_total: int
    extra: Mapping[str, float] = attrs.field(factory=dict)  # by plugins: connectors, expert load


@attrs.frozen(kw_only=True)
class RequestStats:
    """A request that has ended. Times are seconds; None where that point was not reached."""

    request_id: str
    finish_reason: str  # "stop", "length", "abort", "error"
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    queued: float | None  # from arrival to the first step
    first_token: float | None  # from arrival to the first token
    between_tokens: float | None  # mean
    total: float  # from arrival to the end


class MetricsSink(Protocol):
    """Made once an engine. Calls must return at once: buffer, and send from a thread."""

    def __init__(self, query: MetricsQuery) -> None: ...

    def step(self, stats: StepStats) -> None: ...

    def request(self, stats: RequestStats) -> None: ...

    def close(self) -> None:
        """Send what is buffered, within a second."""
