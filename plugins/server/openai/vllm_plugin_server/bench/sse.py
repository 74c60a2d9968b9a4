"""Server-sent events out of pieces that end anywhere."""

from __future__ import annotations

__all__ = ["Events"]


class Events:
    """``feed`` gives the data of every event that a piece completes."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        text = self._rest + piece if self._rest else piece
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        *whole, self._rest = text.split(b"\n\n")
        return [data for event in whole if (data := _data(event))]


def _data(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:  # nearly all
        return event[6:]
    lines = (line for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)
