"""The server's ASGI application: routes from all plugins behind one boundary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.plugin import Endpoint, load_target
from vllm_plugin_server.body import reader_of
from vllm_plugin_server.boundary import Boundary, served
from vllm_plugin_server.door import Door

__all__ = ["App", "Served", "assemble", "make_app"]


@attrs.frozen
class Served:
    """A route that is served, for /openapi.json."""

    endpoint: Endpoint
    handler: Any


@attrs.frozen(eq=False)
class App:
    """``app`` is what uvicorn runs, ``boundary`` the part of it that knows what runs."""

    app: Any
    boundary: Boundary
    routes: tuple[Served, ...]


def make_app(context: ServerContext, endpoints: Iterable[Endpoint]) -> App:
    """Factories are called here; what one raises ends the start."""
    return assemble(context, [Served(endpoint, load_target(endpoint.target)(context)) for endpoint in endpoints])


def assemble(context: ServerContext, listed: Sequence[Served]) -> App:
    """Handlers that are made already, behind the boundary."""
    settings = context.settings
    context.on_startup.append(reader_of(context).start)
    context.state["routes"] = tuple(listed)
    routes = [
        served(one.handler, one.endpoint.path, context).routed(one.endpoint.methods)
        # A path without parameters goes before those that would take it for one.
        for one in sorted(listed, key=lambda one: "{" in one.endpoint.path)
    ]
    router = Router(routes, redirect_slashes=False)

    async def routed(scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = router  # so that an unknown path is an exception, which the boundary answers
        await router(scope, receive, send)

    renders = {
        settings.root_path + one.endpoint.path: one.handler.error_body
        for one in listed
        if hasattr(one.handler, "error_body")
    }
    boundary = Boundary(routed, Door(settings.api_key, settings.root_path), context, renders)
    app: Any = boundary
    if settings.allowed_origins:
        app = CORSMiddleware(
            boundary,
            allow_origins=settings.allowed_origins,
            allow_methods=settings.allowed_methods,
            allow_headers=settings.allowed_headers,
            allow_credentials=settings.allow_credentials,
            expose_headers=["x-request-id", "x-vllm-core-request-id", "x-vllm-core-ignored"],
        )
    return App(app, boundary, tuple(listed))
