"""Telling observers (``interfaces.endpoint.Observer``) what happens; what they raise concerns nobody else."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

__all__ = ["Call", "tell", "trace_headers"]

log = logging.getLogger(__name__)
MOST_TRACE = 1024  # characters of such a header; tracestate may have 512


@attrs.define(eq=False)
class Call:
    """One prompt on its way through the engine."""

    request_id: str  # the engine's; begins with that of the HTTP request
    route: str
    model: str
    prompt_tokens: int
    params: Any  # SamplingParams
    trace_headers: dict[str, str] = attrs.field(factory=dict)  # traceparent and tracestate of the HTTP request
    arrived: float = attrs.field(factory=time.time)  # seconds since the epoch
    notes: dict[str, Any] = attrs.field(factory=dict)  # observers' own


def trace_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that say which trace a request belongs to."""
    found = {name: headers.get(name, "") for name in ("traceparent", "tracestate")}
    return {name: value for name, value in found.items() if 0 < len(value) <= MOST_TRACE}


def tell(observers: Iterable[Any], event: str, *facts: Any) -> None:
    for observer in observers:
        method = getattr(observer, event, None)
        if method is not None:
            try:
                method(*facts)
            except Exception as error:
                log.error("%s failed at %s: %s", type(observer).__name__, event, error, exc_info=error)
