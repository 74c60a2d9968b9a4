"""What a handler says of itself: for the queue limit and for /openapi.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["describe"]


def describe(
    *, body: type | None = None, answer: type | None = None, streams: bool = False, queued: bool = False
) -> Callable[[Any], Any]:
    """Marks a handler.

    body     the msgspec.Struct that it reads (``read_body``)
    answer   the one that it answers with, if there is a type for it
    streams  whether it can answer with server-sent events
    queued   whether it needs the engine, and so waits behind ``--max-concurrent-requests``
    """

    def mark(handler: Any) -> Any:
        handler.body, handler.answer, handler.streams, handler.queued = body, answer, streams, queued
        return handler

    return mark
