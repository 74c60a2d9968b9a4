"""uvicorn's HTTP protocol with the limits of `limits`: on headers, on time, and on clients that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from vllm_plugin_server.errors import ApiError, error_body
from vllm_plugin_server.limits import LIMITS, most

__all__ = ["LimitedProtocol"]

HEADER_BYTES, HEADERS = most("header_bytes"), most("headers")
CLOSING_SECONDS = 5.0  # for the last bytes of a connection that is being closed


class _Refused(Exception):
    pass


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``_head``: the headers of a request are on their way."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head, self._size, self._pending = False, 0, 0  # bytes of headers: parsed, and received in all
        self._unread = 0  # bytes of a body that nobody wants any more
        self._refusal: ApiError | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._after("head", LIMITS["header_seconds"].most, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._refusal is not None:  # thrown away, as who still writes does not read yet
            self._unread += len(data)
            if self._unread > 2 * most("body_bytes"):
                self._abort()
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # not offered: the request is answered as it is
        except httptools.HttpParserError:
            self._refuse(self._refusal or ApiError(400, "this is not a valid HTTP request"))
            return
        cycle = self.cycle
        if self._head:
            self._pending += len(data)
            if self._pending > 2 * HEADER_BYTES:  # a line that does not end
                self._refuse(_too_large_head())
        elif cycle is not None and cycle.response_complete:
            if cycle.more_body:  # the answer came before the end of the body: what is left is thrown away
                self._unread += len(data)
                self._after("unread", LIMITS["body_seconds"].most, self._abort)
                if self._unread > 2 * most("body_bytes"):
                    self._abort()
            elif self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    # callbacks of the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._size, self._pending, self._unread = True, 0, 0, 0
        self._after("head", LIMITS["header_seconds"].most, self._head_is_late)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= HEADERS:
            self._raise(ApiError(431, f"a request may have at most {HEADERS} headers", code="headers_too_large"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head = False
        self._cancel("head")
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._raise(ApiError(400, "only HTTP/1.0 and HTTP/1.1 are spoken here"))
        if not self.url.startswith((b"/", b"http")):
            self._raise(ApiError(400, "the request target must be a path"))
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._cancel("unread")
        if self.cycle is not None:
            self.cycle.more_body = False

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > HEADER_BYTES:
            self._raise(_too_large_head())

    def _raise(self, error: ApiError) -> None:
        """Out of a callback: the parser stops, and `data_received` sees why."""
        self._refusal = error
        raise _Refused(error.message)

    # time

    def _head_is_late(self) -> None:
        if self._head:
            seconds = LIMITS["header_seconds"].most
            self._refuse(ApiError(408, f"the headers did not come within {seconds:g} seconds", code="request_timeout"))
        elif self.cycle is None:  # it never said anything
            self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._after("write", LIMITS["write_seconds"].most, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel("write")

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._close()
        else:
            self.cycle.keep_alive = False

    def _close(self) -> None:
        """What is in the buffer may still go out, for a while."""
        if not self.transport.is_closing():
            self.transport.close()
            self._after("close", CLOSING_SECONDS, self._abort)

    def _abort(self) -> None:
        self.transport.abort()

    def _after(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Unless the timer of that name runs already, or is cancelled in time."""
        if name not in self._timers:

            def ring() -> None:
                del self._timers[name]
                call()

            self._timers[name] = self.loop.call_later(seconds, ring)

    def _cancel(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()

    def _refuse(self, error: ApiError) -> None:
        """Say what is wrong, half-close, and read on for a while: with unread bytes the answer would be lost."""
        self._refusal = error
        self._cancel("head")
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False  # a whole request before this is answered; then the connection ends
            return
        if cycle is None or cycle.response_complete:  # else this would stand in the middle of an answer
            body = error_body(error)
            self.transport.write(
                STATUS_LINE[error.status] + b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
                + str(len(body)).encode() + b"\r\n\r\n" + body
            )  # fmt: skip
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._after("close", CLOSING_SECONDS, self._abort)
        else:
            self._close()


def _too_large_head() -> ApiError:
    return ApiError(431, f"the headers may have at most {HEADER_BYTES:,} bytes together", code="headers_too_large")
