"""The contract of HTTP endpoints: a factory that is given the server's context. No torch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

import attrs


@attrs.define(kw_only=True, eq=False)
class ServerContext:
    """What a route may use, made once a server. Routes of one server share it.

    models       served name: what it is ("base"); the first one names the model in answers
    settings     the server's settings
    plugins      settings of plugins that have some, by the plugin's name
    report       what ``explain --json`` prints
    work         ``await work(function, *arguments, size=characters)``: CPU work that does not block the event loop
    observers    told of what happens; a factory may add one (``Observer``)
    on_startup   coroutines that are awaited in the event loop before the server listens
    on_shutdown  coroutines that are awaited when the server ends, before the engine does
    state        what several routes share, by names of their own
    """

    engine: Any  # vllm_core.serving.AsyncLLM
    models: MutableMapping[str, str]
    settings: Any
    report: Callable[[], dict[str, Any]]
    work: Callable[..., Awaitable[Any]]
    admission: Any  # how many requests are held, of how many
    started: float  # seconds since the epoch
    observers: list[Any] = attrs.field(factory=list)
    plugins: Mapping[str, Any] = attrs.field(factory=dict)
    on_startup: list[Callable[[], Awaitable[None]]] = attrs.field(factory=list)
    on_shutdown: list[Callable[[], Awaitable[None]]] = attrs.field(factory=list)
    state: dict[str, Any] = attrs.field(factory=dict)


class EndpointFactory(Protocol):
    """Called once, before the server listens."""

    def __call__(self, context: ServerContext) -> Callable[[Any], Awaitable[Any]]:
        """The handler: ``async (request: starlette.requests.Request) -> starlette.responses.Response``.

        It is cancelled when the client disconnects, and must then end what it began. ``ValueError`` from it is a 400
        with its text; anything else but the server's own ``ApiError`` is a 500. Attributes that the handler may have
        (``vllm_plugin_server.api.describe`` sets them) say what its body and answer are, for /openapi.json.
        """


class Observer(Protocol):
    """Every method is optional. What one raises is logged, and never reaches a request.

    call      of the engine: ``request_id``, ``route``, ``model``, ``prompt_tokens``, ``params``, ``arrived`` (epoch)
    exchange  an HTTP request that was answered: ``method``, ``route``, ``status``, ``seconds``, ``request_id``,
              ``label`` (the client's own id), ``disconnected``
    """

    def began(self, call: Any) -> None: ...

    def output(self, call: Any, output: Any) -> None:
        """A ``RequestOutput``, as it grows."""

    def ended(self, call: Any, reason: str, output: Any) -> None:
        """``reason``: "stop", "length", "abort" or "error"; ``output``: the last one, or None."""

    def answered(self, exchange: Any) -> None: ...

    def lagged(self, seconds: float) -> None:
        """How late the event loop was just now; told again and again while requests are open."""
