"""A request to an ASGI application of this process, as a server would hand it over."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs

__all__ = ["Answer", "call"]


@attrs.frozen
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def call(app: Any, path: str, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """POST JSON to a path. The client stays until it has the answer, unless this coroutine is cancelled."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [
            (b"host", b"localhost"), (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()), *headers,
        ],
        "client": None, "server": None, "state": {},
    }  # fmt: skip
    told = False
    status, kept, found = 0, [], {}

    async def receive() -> dict[str, Any]:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.Event().wait()  # a client that stays
        raise AssertionError("never")

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, found
        if message["type"] == "http.response.start":
            status, found = message["status"], dict(message["headers"])
        else:
            kept.append(message.get("body", b""))

    await app(scope, receive, send)
    return Answer(status, found, b"".join(kept))
