"""A request whose streamed answer is read piece by piece, and which can be left at any of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes

__all__ = ["Asked"]

LONGEST_LINE = 1 << 20  # bytes


class Asked:
    """``await Asked.open(...)``, then ``piece`` as often as wanted, then ``leave``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._begun = reader, writer, False

    @classmethod
    async def open(cls, address: Address, target: str, body: dict[str, Any]) -> Asked:
        """Everything has been sent, nothing is read yet."""
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls, limit=LONGEST_LINE)
        writer.write(request_bytes(address, "POST", target, json.dumps(body | {"stream": True}).encode()))
        await writer.drain()
        return cls(reader, writer)

    async def piece(self, seconds: float = 60.0) -> dict[str, Any] | None:
        """The next one; None at the end. ``TimeoutError`` if none comes in time: it can still be asked for again."""
        async with asyncio.timeout(seconds):
            while line := await self._reader.readline():
                if not self._begun:
                    self._begun = True
                    if b" 200 " not in line:
                        rest = await self._reader.read(2000)
                        raise Unanswered(f"answered {line.decode('latin-1').strip()}: {rest.decode('latin-1')[-400:]}")
                if line.startswith(b"data: "):
                    data = line.removeprefix(b"data: ").strip()
                    return None if data == b"[DONE]" else json.loads(data)
        return None

    def leave(self, *, abruptly: bool) -> None:
        """Hang up: with a reset, or a good-bye."""
        if abruptly:
            self._writer.transport.abort()
        else:
            self._writer.close()
