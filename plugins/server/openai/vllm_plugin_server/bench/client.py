"""An HTTP client for many streams at once: a connection calls back with every piece as it arrives.

No task is woken for a piece, so that its time of arrival is the time it is seen at.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import attrs

from vllm_plugin_server.bench.http_parser import BadAnswer, Parser

__all__ = ["Answer", "BadAnswer", "Client"]

OnBody = Callable[[bytes, float], None]  # a piece of a body, and time.perf_counter() when it came


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes  # empty if it was given away in pieces


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.parser: Parser | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.waiter is None or self.waiter.done():
            self.abort()  # bytes that nobody asked for
            return
        try:
            self.parser.feed(data)
        except Exception as error:
            self.waiter.set_exception(error)
            self.abort()
            return
        if self.parser.done:
            self.waiter.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self.parser is None or self.waiter is None or self.waiter.done():
            return
        try:
            if error is not None:
                raise BadAnswer(f"the connection was lost: {error}")
            self.parser.closed()
            self.waiter.set_result(None)
        except BadAnswer as bad:
            self.waiter.set_exception(bad)

    def abort(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()

    async def exchange(self, request: bytes, parser: Parser) -> None:
        assert self.transport is not None
        self.parser, self.waiter = parser, asyncio.get_running_loop().create_future()
        try:
            self.transport.write(request)
            await self.waiter
        except BaseException:
            self.abort()
            raise
        finally:
            self.parser = self.waiter = None


class Client:
    """For one server. Connections are kept and used again."""

    def __init__(self, base_url: str, headers: Mapping[str, str] | None = None, *, insecure: bool = False) -> None:
        parts = urlsplit(base_url if "://" in base_url else f"http://{base_url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base_url!r} is no address of a server; write http://HOST:PORT")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._prefix = parts.path.rstrip("/")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _tls(insecure) if parts.scheme == "https" else None
        lines = [f"Host: {parts.netloc.rpartition('@')[2]}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header may have no line breaks")
        self._headers = "\r\n".join(lines).encode("latin-1")
        self._idle: list[_Connection] = []

    async def exchange(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        on_body: OnBody | None = None,
        headers: bytes = b"",
    ) -> Answer:
        """Ask and wait for the end of the answer. A body of status 200 goes to ``on_body``, piece by piece, if given.

        ``OSError`` if there is no connection, ``BadAnswer`` if what comes is broken or ends too early.
        """
        lines = b"%s %s%s HTTP/1.1\r\n%s\r\n%s" % (
            method.encode(), self._prefix.encode(), target.encode(), self._headers, headers
        )  # fmt: skip
        if body is not None:
            lines += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        request = lines + b"\r\n" + (body or b"")
        while True:
            kept: list[bytes] = []

            def take(piece: bytes) -> None:
                if on_body is not None and parser.status == 200:  # noqa: B023
                    on_body(piece, time.perf_counter())
                else:
                    kept.append(piece)  # noqa: B023

            parser = Parser(take)
            connection, used = await self._connection()
            try:
                await connection.exchange(request, parser)
            except (BadAnswer, OSError):
                if used and not parser.status:
                    continue  # it was closed while nobody used it: that says nothing about this request
                raise
            if parser.keeps_open and not connection.closed:
                self._idle.append(connection)
            else:
                connection.abort()
            return Answer(parser.status, parser.headers, b"".join(kept))

    async def _connection(self) -> tuple[_Connection, bool]:
        """One, and whether it was used before."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection, True
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return made, False

    def close(self) -> None:
        for connection in self._idle:
            connection.abort()
        self._idle.clear()


def _tls(insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
