"""Reads HTTP/1.1 answers as they come, with as little work a chunk as can be: a thousand streams share one core."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["BadAnswer", "Parser"]

LONGEST_HEAD = 1 << 18  # bytes
_HEAD, _LENGTH, _SIZE, _CHUNK, _CHUNK_END, _TRAILER, _UNTIL_CLOSE, _DONE = range(8)


class BadAnswer(Exception):
    """What came is no HTTP/1.1."""


class Parser:
    """One answer. ``on_body`` gets every piece of the body; ``done`` says that it is complete."""

    __slots__ = ("_buffer", "_left", "_on_body", "_state", "headers", "status")

    def __init__(self, on_body: Callable[[bytes], None]) -> None:
        self._buffer = b""
        self._state = _HEAD
        self._left = 0  # bytes of the body, or of the chunk
        self._on_body = on_body
        self.status = 0
        self.headers: dict[str, str] = {}  # names in lower case

    @property
    def done(self) -> bool:
        return self._state == _DONE

    @property
    def keeps_open(self) -> bool:
        return self.done and self.headers.get("connection", "").lower() != "close"

    def closed(self) -> None:
        """The peer closed. ``BadAnswer`` if more should have come."""
        if self._state == _UNTIL_CLOSE:
            self._state = _DONE
        if self._state != _DONE:
            raise BadAnswer("the server closed the connection in the middle of its answer" if self.status else
                            "the server closed the connection without an answer")  # fmt: skip

    def feed(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        place = 0
        while place < len(data) and self._state != _DONE:
            state = self._state
            if state == _HEAD:
                end = data.find(b"\r\n\r\n", place)
                if end < 0:
                    if len(data) - place > LONGEST_HEAD:
                        raise BadAnswer(f"headers of more than {LONGEST_HEAD:,} bytes")
                    break
                self._read_head(data[place:end])
                place = end + 4
            elif state == _UNTIL_CLOSE:
                self._on_body(data[place:])
                place = len(data)
            elif state in (_LENGTH, _CHUNK):
                piece = data[place : place + self._left]
                place += len(piece)
                self._left -= len(piece)
                if piece:
                    self._on_body(piece)
                if not self._left:
                    self._state = _DONE if state == _LENGTH else _CHUNK_END
            elif state == _CHUNK_END:
                if len(data) - place < 2:
                    break
                place += 2
                self._state = _SIZE
            else:  # a line: a chunk's size, or one after the last chunk
                end = data.find(b"\r\n", place)
                if end < 0:
                    if len(data) - place > LONGEST_HEAD:
                        raise BadAnswer("a line of a chunked body that does not end")
                    break
                line, place = data[place:end], end + 2
                if state == _TRAILER:
                    self._state = _TRAILER if line else _DONE
                    continue
                try:
                    self._left = int(line.split(b";", 1)[0], 16)
                except ValueError:
                    raise BadAnswer(f"{line[:40]!r} for the size of a chunk") from None
                self._state = _CHUNK if self._left else _TRAILER
        self._buffer = data[place:]

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
            raise BadAnswer(f"{first[:80]!r} for a status line")
        self.status = int(rest[:3])
        if self.status < 200:  # 100 Continue: the answer comes after it
            return
        self.headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            self._state = _SIZE
        elif "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
            self._state = _LENGTH if self._left else _DONE
        else:
            self._state = _DONE if self.status in (204, 304) else _UNTIL_CLOSE
