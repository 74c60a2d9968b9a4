"""The contract of metrics sinks: the engine's figures, once a step and once a request. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from vllm_core.interfaces.queries import MetricsQuery


@attrs.frozen(kw_only=True)
class StepStats:
    """The engine after a step. Counts of this step unless said otherwise; times are seconds."""

    seconds: float  # from launch to result; a step waits for the one that was launched before it
    running: int  # requests
    waiting: int  # requests
    prompt_tokens: int  # computed: those of preempted requests once more, those found in the cache not
    output_tokens: int
    prefix_queries: int  # tokens looked up
    prefix_hits: int  # tokens found
    preemptions: int
    drafted: int  # tokens
    accepted: int  # tokens
    pages_used: int
    pages_total: int
    step: int = 0  # its number, from the start of the engine on
    rows: int = 0  # requests in it
    drafts: int = 0  # of them, requests with drafted tokens
    accepted_at: tuple[int, ...] = ()  # accepted tokens by their place among the drafted ones
    evictions: int = 0  # cached pages given up for room
    first_tokens: tuple[float, ...] = ()  # of each request that got its first token: seconds since its arrival
    gaps: tuple[tuple[float, int], ...] = ()  # (seconds since their tokens before, requests): requests with equal ones
    extra: Mapping[str, float] = attrs.field(factory=dict)  # by plugins: connectors, expert load


@attrs.frozen(kw_only=True)
class RequestStats:
    """A request that has ended; with n samples, one of them. Times are seconds; None where that point was not reached.

    From arrival to end a request is queued, then its prompt is computed (``prefill``, which ends with the first
    token), then it decodes. Preemptions count to the part in which they happen.
    """

    request_id: str  # the engine's: "id/i" of several samples, behind "FRONT:" of all but the first front
    finish_reason: str  # "stop", "length", "abort", "error"
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    queued: float | None  # from arrival to the first step
    first_token: float | None  # from arrival to the first token
    between_tokens: float | None  # mean
    total: float  # from arrival to the end
    prefill: float | None = None  # from the first step to the first token
    decode: float | None = None  # from the first token to the last
    max_tokens: int | None = None  # output tokens that it could get
    preemptions: int = 0
    drafted: int = 0  # tokens
    accepted: int = 0  # tokens


class MetricsSink(Protocol):
    """Made once an engine. Calls must return at once, also where nobody takes what is sent: buffer, and send from a
    thread. What cannot be sent is dropped in the end; a call may raise, which ends this sink and nothing else.
    """

    def __init__(self, query: MetricsQuery) -> None: ...

    def step(self, stats: StepStats) -> None: ...

    def request(self, stats: RequestStats) -> None: ...

    def close(self) -> None:
        """Send what is buffered, within a second, and leave no thread and no open file."""
