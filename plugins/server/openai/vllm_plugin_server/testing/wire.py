"""HTTP/1.1 as bytes: what is sent may be as wrong as it likes, what comes back is read with care.

A client library would refuse to send most of what a server must survive, so requests are bytes here.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

import attrs

__all__ = ["Address", "Reply", "Unanswered", "address_of", "post", "request_bytes", "send"]

LARGEST_REPLY = 64 << 20  # bytes; more is not read


class Unanswered(Exception):
    """There was no answer: the connection was refused, closed or silent."""


@attrs.frozen
class Address:
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    headers: tuple[tuple[str, str], ...] = ()  # sent with every request that ``request_bytes`` writes


@attrs.frozen
class Reply:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        """What the body says; None if it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def address_of(url: str, *, api_key: str | None = None) -> Address:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a server; write http://HOST:PORT")
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    headers = (("Authorization", f"Bearer {api_key}"),) if api_key else ()
    return Address(parts.hostname, parts.port or (443 if tls else 80), tls, headers)


def request_bytes(
    address: Address,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    *,
    own_headers: bool = True,
) -> bytes:
    """A well-formed request. ``headers`` replace those of the address; ``own_headers`` False leaves these out."""
    given = {name.lower() for name, _ in headers}
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {address.host}:{address.port}")
    if body is not None:
        if "content-type" not in given:
            lines.append("Content-Type: application/json")
        if not given & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(body)}")
    if own_headers:
        lines += [f"{name}: {value}" for name, value in address.headers if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


async def send(address: Address, request: bytes, *, seconds: float = 10.0, half_close: bool = False) -> Reply:
    """Send bytes on a connection of their own, read one reply. ``Unanswered`` if there is none in time."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls)
            try:
                try:
                    writer.write(request)
                    await writer.drain()
                    if half_close:
                        writer.write_eof()
                except OSError:
                    pass  # it stopped reading, which it may; what it said is still there
                return await _read_reply(reader, head_only=request.startswith(b"HEAD "))
            finally:
                writer.close()
    except TimeoutError:
        raise Unanswered(f"no answer within {seconds:g} s") from None
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise Unanswered(f"{type(error).__name__}: {error}") from error


async def _read_reply(reader: asyncio.StreamReader, *, head_only: bool) -> Reply:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(f"not HTTP/1: {first[:80]!r}")
        status = int(rest[:3])
        if status != 100:
            break
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    if head_only or status in (101, 204, 304):
        return Reply(status, headers, b"")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    elif "content-length" in headers:
        body = await reader.readexactly(min(int(headers["content-length"]), LARGEST_REPLY))
    else:
        body = await reader.read(LARGEST_REPLY)
    return Reply(status, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        if size + sum(map(len, parts)) > LARGEST_REPLY:
            raise ValueError(f"a reply above {LARGEST_REPLY:,} bytes")
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    return b"".join(parts)


async def post(address: Address, target: str, body: Any, *, seconds: float = 60.0) -> Reply:
    """A good request, as JSON."""
    return await send(address, request_bytes(address, "POST", target, json.dumps(body).encode()), seconds=seconds)
