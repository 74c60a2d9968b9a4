"""Responses that were made: ``GET``, ``DELETE`` and ``POST .../cancel`` of ``/v1/responses/{id}``, and its items."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.describe import describe
from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.responses.desk import Desk
from vllm_plugin_server.responses.items import page_of
from vllm_plugin_server.responses.route import error_event
from vllm_plugin_server.stream import EventStream, json_answer

__all__ = ["cancel", "delete", "input_items", "retrieve"]

MOST_ITEMS = 100  # on a page
READS = {"stream", "starting_after", "include", "include[]", "include_obfuscation"}
LISTS = {"after", "limit", "order", "include", "include[]"}


def retrieve(context: ServerContext) -> Any:
    desk = Desk.of(context)

    @describe(streams=True)
    async def retrieve(request: Request) -> Response:
        query = _query(request, READS)
        owner, id = request.state.key, request.path_params["response_id"]
        response = desk.found(owner, id)
        if query.get("stream", "false") not in ("true", "True", "1"):
            if "starting_after" in query:
                raise bad_request("starting_after is for streams: set stream=true", "starting_after")
            return json_answer(response)
        begin = _number(query, "starting_after", -1, -1, 1 << 31)
        live = desk.live.get((owner, id))
        if live is not None and live.streams:
            return EventStream(live.follow(begin), on_error=error_event)
        log = b"" if live is not None else desk.store.log(owner, id)
        if not log:
            raise bad_request("only a response with background=true and stream=true can be streamed again", "stream")
        return EventStream(_again(log, begin), on_error=error_event)

    return retrieve


async def _again(log: bytes, begin: int) -> AsyncIterator[bytes]:
    for piece in log.split(b"\n\n")[begin + 1 : -1]:
        yield piece + b"\n\n"


def delete(context: ServerContext) -> Any:
    desk = Desk.of(context)

    @describe()
    async def delete(request: Request) -> Response:
        id = request.path_params["response_id"]
        await desk.delete(request.state.key, id)
        return json_answer({"id": id, "object": "response", "deleted": True})

    return delete


def cancel(context: ServerContext) -> Any:
    desk = Desk.of(context)

    @describe()
    async def cancel(request: Request) -> Response:
        return json_answer(await desk.cancel(request.state.key, request.path_params["response_id"]))

    return cancel


def input_items(context: ServerContext) -> Any:
    desk = Desk.of(context)

    @describe()
    async def input_items(request: Request) -> Response:
        query = _query(request, LISTS)
        limit = _number(query, "limit", 20, 1, MOST_ITEMS)
        if (order := query.get("order", "desc")) not in ("asc", "desc"):
            raise bad_request(f"order must be asc or desc, not {order!r:.40}", "order")
        id = request.path_params["response_id"]
        items = desk.given(request.state.key, id)
        return json_answer(page_of(items, query.get("after"), limit, order == "desc"))

    return input_items


def _query(request: Request, known: set[str]) -> dict[str, str]:
    found = dict(request.query_params)
    for name in found:
        if name not in known:
            raise bad_request(
                f"there is no query parameter {name!r:.80}; there are {', '.join(sorted(known))}", name[:80]
            )
    return found


def _number(query: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    try:
        number = int(text[:20])
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise bad_request(f"{name} must be a whole number from {least} to {most}, not {text!r:.40}", name)
    return number
