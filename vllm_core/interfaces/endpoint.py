"""The contract of HTTP endpoints: a factory that is given the server's context. No torch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs


@attrs.frozen(kw_only=True)
class ServerContext:
    """What a route may use."""

    engine: Any  # vllm_core.engine.AsyncLLM
    models: Mapping[str, str]  # served name: what it is (the base model, or an adapter of it)
    settings: Any  # the server's settings
    report: Callable[[], dict[str, Any]]  # what ``explain --json`` prints


class EndpointFactory(Protocol):
    """Called once, before the server listens."""

    def __call__(self, context: ServerContext) -> Callable[[Any], Awaitable[Any]]:
        """The handler: ``async (request: starlette.requests.Request) -> starlette.responses.Response``.

        It must end what it began in the engine when the client disconnects (cancellation).
        ``ValueError`` from a handler is a 400 with its text; anything else is a 500.
        """
