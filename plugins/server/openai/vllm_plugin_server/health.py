"""``/health``, ``/ping``, ``/version``."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.describe import describe
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.stream import json_answer

__all__ = ["check", "health", "version"]


async def check(context: ServerContext) -> None:
    """Return if the server works; else raise why it does not."""
    await context.engine.check_health()
    if wrong := context.state.get("wrong", str)():
        raise ApiError(503, wrong, code="server_stuck")
    if context.work.stuck:
        raise ApiError(503, "the threads that read requests do not go on", code="server_stuck")


def health(context: ServerContext) -> Any:
    @describe()
    async def health(request: Request) -> Response:
        """What ``check_health`` raises is a 503 that says why."""
        await check(context)
        return Response(status_code=200)

    return health


def version(context: ServerContext) -> Any:
    @describe()
    async def version(request: Request) -> Response:
        """What was chosen and by whom; of several engines also what each is doing."""
        import vllm_core

        engines = [{"engine": number, "state": state} for number, state in context.engine.states.items()]
        several = {"engines": engines} if len(engines) > 1 else {}
        return json_answer({"version": vllm_core.__version__, **several, **context.report()})

    return version
