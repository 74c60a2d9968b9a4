"""Answers: JSON at once, or server-sent events as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vllm_plugin_server.errors import ApiError, error_body, error_of

__all__ = ["DONE", "EventStream", "after", "event", "json_answer"]

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"
HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
           (b"x-accel-buffering", b"no"))  # fmt: skip


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encode(content), status, headers, media_type="application/json")


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event with JSON in it."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + encode(data) + b"\n\n"


class after:
    """A stream whose first piece was waited for, so that what the engine refuses has a status of its own.

    A class, because closing a generator that has not begun runs none of it: the rest would stay open.
    """

    def __init__(self, first: bytes, rest: AsyncIterator[bytes]) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def __aiter__(self) -> after:
        return self

    async def __anext__(self) -> bytes:
        if (first := self._first) is not None:
            self._first = None
            return first
        return await anext(self._rest)

    async def aclose(self) -> None:
        self._first = None
        await self._rest.aclose()  # type: ignore[attr-defined]


def _openai_error(error: ApiError) -> bytes:
    return b"data: " + error_body(error) + b"\n\n" + DONE


class EventStream(Response):
    """Sends what an iterator gives, piece by piece. What it raises becomes one last event.

    on_error   that event, of another shape than OpenAI's
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        *,
        on_error: Callable[[ApiError], bytes] = _openai_error,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(None, 200, headers)
        self._events, self._on_error = events, on_error
        self.raw_headers = [
            *HEADERS,
            *((k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events) as events:  # type: ignore[type-var]
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for piece in events:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except asyncio.CancelledError:
                exchange = scope["state"]["exchange"]
                if (stopping := exchange.stopping) is None:
                    raise
                exchange.task.uncancel()
                await send({"type": "http.response.body", "body": self._on_error(stopping), "more_body": True})
            except Exception as error:
                body = self._on_error(error_of(error))
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
