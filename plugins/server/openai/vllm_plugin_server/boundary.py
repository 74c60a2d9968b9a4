"""The boundary around each HTTP request: its id, its errors, its end. Nothing of it reaches another request."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

import attrs
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.body import read_bytes, room_of
from vllm_plugin_server.door import Door
from vllm_plugin_server.errors import ApiError, error_body, error_of
from vllm_plugin_server.lag import Lag
from vllm_plugin_server.logs.context import request_id
from vllm_plugin_server.observe import tell

__all__ = ["Boundary", "Exchange", "new_id", "served"]

log = logging.getLogger(__name__)
MOST_LABEL = 128  # characters of a client's own request id


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"


@attrs.define(eq=False)
class Exchange:
    """One HTTP request and its answer, for observers."""

    method: str
    path: str
    request_id: str  # the server's
    label: str  # the client's X-Request-Id, ""
    task: asyncio.Task[Any]
    client: str = "-"  # its host
    begun: float = attrs.field(factory=time.monotonic)
    route: str = "none"  # the route's path as it was declared
    status: int = 0  # 0: nothing was sent
    seconds: float = 0.0
    disconnected: bool = False
    stopping: ApiError | None = None  # why the server ends it
    ignored: list[str] = attrs.field(factory=list)
    render: Any = error_body  # how the route writes errors


class Boundary:
    """The outermost of the server's own layers.

    exchanges   those that have no answer yet
    draining    no new ones are taken
    """

    def __init__(
        self, app: ASGIApp, door: Door, context: ServerContext, renders: Mapping[str, Any] | None = None
    ) -> None:
        self._app, self._door, self._context = app, door, context
        self._renders = renders or {}  # path: how its errors are written, where not as OpenAI's
        self.exchanges: set[Exchange] = set()
        self.draining = False
        self._lag = Lag(self.exchanges, lambda seconds: tell(context.observers, "lagged", seconds))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the server's own lifespan; sockets of other kinds are not opened
            return
        task = asyncio.current_task()
        assert task is not None
        exchange = Exchange(scope["method"], scope["path"], new_id("req"), _label(scope), task, _client(scope))
        scope.setdefault("state", {}).update(request_id=exchange.request_id, exchange=exchange)
        self.exchanges.add(exchange)
        self._lag.begin()
        request_id.set(exchange.request_id)  # in this task: for what is logged while it is answered
        exchange.render = self._renders.get(scope["path"], error_body)

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message = {**message, "headers": [*message["headers"], *_headers(exchange)]}
            await send(message)

        try:
            await self._guarded(scope, receive, answer, exchange)
        finally:
            self.exchanges.discard(exchange)
            exchange.seconds = time.monotonic() - exchange.begun
            tell(self._context.observers, "answered", exchange)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        limit, timer = self._context.settings.request_timeout, None
        if limit is not None:
            why = ApiError(504, f"the request took longer than {limit:g} seconds", code="request_timeout")
            timer = exchange.task.get_loop().call_later(limit, _stop, exchange, why)
        try:
            if self.draining:
                raise ApiError(
                    503, "the server is shutting down", code="shutting_down", headers={"connection": "close"}
                )
            scope["state"]["key"] = self._door.check(scope)
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if exchange.disconnected:
                exchange.task.uncancel()
                return
            if exchange.stopping is None:
                raise
            exchange.task.uncancel()
            await _send_error(scope, receive, send, exchange, exchange.stopping)
        except (ConnectionResetError, BrokenPipeError):
            exchange.disconnected = True
        except Exception as error:
            await _send_error(scope, receive, send, exchange, error_of(error))
        finally:
            if timer is not None:
                timer.cancel()

    def stop_all(self, why: ApiError) -> None:
        """End what is still running, each with this error."""
        for exchange in list(self.exchanges):
            _stop(exchange, why)


def _stop(exchange: Exchange, why: ApiError) -> None:
    if exchange.stopping is None and not exchange.disconnected:
        exchange.stopping = why
        exchange.task.cancel()


async def _send_error(scope: Scope, receive: Receive, send: Send, exchange: Exchange, error: ApiError) -> None:
    if exchange.status:  # the answer had begun; the stream said what it could
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    response = Response(exchange.render(error), error.status, error.headers, media_type="application/json")
    await response(scope, receive, send)


class served:
    """A route's handler as an ASGI application: the body is read, then the client's leaving ends the handler."""

    def __init__(self, handler: Any, route: str, context: ServerContext) -> None:
        self._handler, self._route, self._context = handler, route, context
        self._queued = getattr(handler, "queued", False)
        self._render = getattr(handler, "error_body", error_body)
        self._room = room_of(context)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["state"]["exchange"]
        exchange.route, exchange.render = self._route, self._render
        if self._queued:
            self._context.admission.check()
        request = Request(scope, receive)
        request.state.route = self._route
        raw = request.state.body = await read_bytes(Headers(scope=scope), receive, self._room)
        size, watcher = len(raw), asyncio.ensure_future(_watch(receive, exchange))
        del raw
        try:
            try:
                response = await self._handler(request)
            finally:
                del request.state.body
                self._room.give(size)
            await response(scope, receive, send)
        finally:
            watcher.cancel()

    def routed(self, methods: tuple[str, ...]) -> Route:
        return Route(self._route, self, methods=list(methods))


async def _watch(receive: Receive, exchange: Exchange) -> None:
    """Cancel the request's task when its client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.disconnected = True
    exchange.task.cancel()


def _label(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")[:MOST_LABEL]
            return text if text.isascii() and text.isprintable() else ""
    return ""


def _headers(exchange: Exchange) -> list[tuple[bytes, bytes]]:
    found = [
        (b"x-request-id", (exchange.label or exchange.request_id).encode()),
        (b"x-vllm-core-request-id", exchange.request_id.encode()),
    ]
    if exchange.ignored:
        found.append((b"x-vllm-core-ignored", ", ".join(exchange.ignored).encode()))
    return found


def _client(scope: Scope) -> str:
    return (scope.get("client") or ("-",))[0]
