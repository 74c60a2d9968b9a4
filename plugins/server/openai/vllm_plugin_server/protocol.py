"""uvicorn's HTTP protocol with the limits of `limits`: on headers, on time, and on clients that do not read."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from vllm_plugin_server.errors import ApiError, error_body
from vllm_plugin_server.limits import LIMITS, most

__all__ = ["LimitedProtocol"]

HEADER_BYTES, HEADERS = most("header_bytes"), most("headers")
CLOSING_SECONDS = 5.0  # for the last bytes of a connection that is being closed


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.error = ApiError(status, message)


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head, self._size, self._began = True, 0, False
        self._unread = 0  # bytes of a body that nobody wants any more
        self._refusal: ApiError | None = None
        self._head_timer: Any = self.loop.call_later(LIMITS["header_seconds"].most, self._head_is_late)
        self._write_timer: Any = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel("_head_timer")
        self._cancel("_write_timer")
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refusal is not None or self.transport.is_closing():
            return
        self._began = True
        head_before = self._head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # not offered: the request is answered as it is
        except httptools.HttpParserError:
            self._refuse(self._refusal or ApiError(400, "this is not a valid HTTP request"))
            return
        if self._head:
            if head_before:
                self._size += len(data)
            if self._size > 2 * HEADER_BYTES:  # a single line that does not end
                self._refuse(_too_large_head())
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(LIMITS["header_seconds"].most, self._head_is_late)
        elif self.cycle is not None and self.cycle.response_complete and self.cycle.more_body:
            self._unread += len(data)
            if self._unread > 2 * most("body_bytes"):
                self.transport.abort()

    # callbacks of the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._size, self._unread = True, 0, 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if len(self.headers) >= HEADERS:
            self._raise(ApiError(431, f"a request may have at most {HEADERS} headers", code="headers_too_large"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head, self._size = False, 0
        self._cancel("_head_timer")
        if self.parser.get_method() == b"CONNECT" or not self.url.startswith((b"/", b"*", b"http")):
            self._raise(ApiError(400, "the request target must be a path"))
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle is not None:
            self.cycle.more_body = False
        self._head, self._began = True, False

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > HEADER_BYTES:
            self._raise(_too_large_head())

    def _raise(self, error: ApiError) -> None:
        """Out of a callback: the parser stops, and `data_received` sees why."""
        self._refusal = error
        raise _Refused(error.status, error.message)

    # time

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._began:
            self._close()  # it never said anything
        elif self._head:
            seconds = LIMITS["header_seconds"].most
            self._refuse(ApiError(408, f"the headers did not come within {seconds:g} seconds", code="request_timeout"))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(LIMITS["write_seconds"].most, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel("_write_timer")

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
            self.loop.call_later(CLOSING_SECONDS, self.transport.abort)

    def _cancel(self, name: str) -> None:
        timer = getattr(self, name, None)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)

    def _refuse(self, error: ApiError) -> None:
        self._refusal = error
        self._cancel("_head_timer")
        running = self.cycle is not None and not self.cycle.response_complete
        if not running:  # else an answer is on its way, and this would stand in the middle of it
            body = error_body(error)
            self.transport.write(
                STATUS_LINE[error.status] + b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
                + str(len(body)).encode() + b"\r\n\r\n" + body
            )  # fmt: skip
        self._close()


def _too_large_head() -> ApiError:
    return ApiError(431, f"the headers may have at most {HEADER_BYTES:,} bytes together", code="headers_too_large")
