"""The ways in which R13 ends a server: what each does, and what must be so afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from vllm_plugin_server.testing.marked_server import MarkedServer
from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

__all__ = ["KINDS", "LONGEST", "Run"]

AFTER_KILL = 2.0  # seconds in which no child of a killed server may be left
AFTER_SECOND = 1.0  # seconds to the end, from a second signal on
AFTER_DRAIN = 5.0  # seconds to the end, once nothing is in flight or the limit is over
LIMIT = 1.0  # seconds of --shutdown-timeout, where it is to be met
LONGEST = 16_384  # tokens
LONG = 16_000  # tokens: more than any run lasts
ENGINE, COMPILER = "vllm_core.engine.process", "vllm_core.engine.grammar_child"
STREAMS = 4


@attrs.define
class Run:
    """One server and its end."""

    server: MarkedServer
    draw: random.Random
    streams: list[asyncio.Task[str]] = attrs.field(factory=list)

    async def load(self, tokens: int = LONG, count: int = STREAMS) -> None:
        """Streams, each of which has begun to say something."""
        await self.server.ready()
        begun = [asyncio.Event() for _ in range(count)]
        self.streams += [asyncio.create_task(_stream(self.server.address, tokens, event)) for event in begun]
        async with asyncio.timeout(60):
            await asyncio.gather(*(event.wait() for event in begun))
        await self.pause(0.5)

    async def pause(self, most: float) -> None:
        await asyncio.sleep(self.draw.uniform(0, most))

    async def orderly(self, seconds: float, codes: tuple[int, ...] = (0,)) -> float:
        """The end, from now on: in time, with one of these exit codes, and nothing is left."""
        took = await self.server.gone(seconds)
        if self.server.code not in codes:
            raise Unanswered(f"exit code {self.server.code}; {''.join(self.server.lines)[-600:]}")
        if left := self.server.leftovers():
            raise Unanswered(f"left behind: {left}")
        return took


async def _kill(run: Run) -> float:
    await run.load()
    run.server.signal(signal.SIGKILL)
    return await run.server.gone(AFTER_KILL)


async def _kill_start(run: Run) -> float:
    await run.pause(4)
    run.server.signal(signal.SIGKILL)
    return await run.server.gone(AFTER_KILL)


async def _kill_compiler(run: Run) -> float:
    asking = await _compiling(run)
    run.server.signal(signal.SIGKILL)
    took = await run.server.gone(AFTER_KILL)
    asking.cancel()
    return took


async def _term(run: Run) -> float:
    """Streams end whole, and nobody else is let in."""
    await run.load(run.draw.randrange(200, 800))
    address = run.server.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(request_bytes(address, "GET", "/v1/models"))
    await reader.readuntil(b"\r\n\r\n")
    run.server.signal(signal.SIGTERM)
    begun = time.monotonic()
    await asyncio.sleep(0.1)
    with contextlib.suppress(Unanswered):  # refused
        reply = await send(address, request_bytes(address, "GET", "/v1/models"), seconds=2)
        if reply.status != 503:
            raise ValueError(f"a new connection was answered {reply.status} after SIGTERM")
    with contextlib.suppress(OSError):
        writer.write(request_bytes(address, "GET", "/v1/models"))
        if b"HTTP/1.1 200" in (await asyncio.wait_for(reader.read(), 30))[2:]:
            raise ValueError("an old connection got new work done after SIGTERM")
    writer.close()
    for end in await asyncio.gather(*run.streams):
        if "[DONE]" not in end or '"length"' not in end:
            raise ValueError(f"a stream in flight ended with {end[-300:]}")
    drained = time.monotonic()
    await run.orderly(AFTER_DRAIN)
    return min(time.monotonic() - drained, time.monotonic() - begun)


async def _term_limit(run: Run) -> float:
    """Streams that last longer than the limit get an error."""
    await run.load()
    run.server.signal(signal.SIGTERM)
    took = await run.orderly(LIMIT + AFTER_DRAIN)
    for end in await asyncio.gather(*run.streams):
        if "shutting_down" not in end:
            raise ValueError(f"a stream was ended at the limit with {end[-300:]}")
    if took < LIMIT - 0.1:
        raise ValueError(f"it ended after {took:.2f} s, before its limit of {LIMIT:g} s")
    return took - LIMIT


async def _second(run: Run) -> float:
    first, second = run.draw.choice([signal.SIGTERM, signal.SIGINT]), run.draw.choice([signal.SIGTERM, signal.SIGINT])
    await run.load()
    run.server.signal(first)
    await asyncio.sleep(run.draw.uniform(0.02, 1))
    run.server.signal(second)
    return await run.orderly(AFTER_SECOND, codes=(128 + second,))


async def _term_start(run: Run) -> float:
    """Before Python has a handler, the signal ends the process by itself; nothing has been made then."""
    await run.pause(4)
    run.server.signal(signal.SIGTERM)
    return await run.orderly(AFTER_DRAIN, codes=(0, -signal.SIGTERM))


async def _term_dead(run: Run) -> float:
    await run.load()
    for pid in run.server.processes(ENGINE):
        os.kill(pid, signal.SIGKILL)
    await run.pause(3)
    run.server.signal(signal.SIGTERM)
    return await run.orderly(AFTER_DRAIN)


async def _term_compiler(run: Run) -> float:
    asking = await _compiling(run)
    run.server.signal(signal.SIGTERM)
    took = await run.orderly(LIMIT + AFTER_DRAIN)
    asking.cancel()
    return took


async def _term_unread(run: Run) -> float:
    """Peers that ask for more than all buffers hold and read nothing."""
    await run.server.ready()
    loop, address = asyncio.get_running_loop(), run.server.address
    sockets = []
    for _ in range(STREAMS):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, (address.host, address.port))
        await loop.sock_sendall(sock, _question(address, LONG, n=16))
        sockets.append(sock)
    await asyncio.sleep(0.5)
    await run.pause(1)
    run.server.signal(signal.SIGTERM)
    try:
        return await run.orderly(LIMIT + AFTER_DRAIN)
    finally:
        for sock in sockets:
            sock.close()


APART = ("--structured-outputs-config", '{"backend": "xgrammar"}')  # it compiles in a process of its own
KINDS: dict[str, tuple[Callable[[Run], Awaitable[float]], tuple[str, ...]]] = {
    "killed": (_kill, ()),
    "SIGTERM, streams in flight": (_term, ()),
    "a second signal": (_second, ()),
    "SIGTERM during the start": (_term_start, ()),
    "SIGTERM, streams beyond the limit": (_term_limit, ("--shutdown-timeout", str(LIMIT))),
    "SIGTERM, engine dead or restarting": (_term_dead, ()),
    "killed during the start": (_kill_start, ()),
    "SIGTERM, peers that do not read": (_term_unread, ("--shutdown-timeout", str(LIMIT))),
    "SIGTERM while a grammar compiles": (_term_compiler, ("--shutdown-timeout", str(LIMIT), *APART)),
    "killed while a grammar compiles": (_kill_compiler, APART),
}


def _question(address: Address, tokens: int, **more: Any) -> bytes:
    body = {
        "prompt": "Hello", "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, **more
    }  # fmt: skip
    return request_bytes(address, "POST", "/v1/completions", json.dumps(body).encode(), (("Connection", "close"),))


async def _stream(address: Address, tokens: int, begun: asyncio.Event) -> str:
    """All that came, whatever ended it."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    found = b""
    try:
        writer.write(_question(address, tokens))
        with contextlib.suppress(OSError):
            while more := await reader.read(1 << 16):
                found = (found + more)[-4000:]
                if b"data: " in more:
                    begun.set()
    finally:
        writer.close()
    return found.decode(errors="replace")


async def _compiling(run: Run) -> asyncio.Task[Any]:
    """A request whose schema keeps the process that compiles busy; returns while it does."""
    await run.load(count=1)
    address = run.server.address
    schema = {"type": "string", "pattern": "(a{1,300}){300}"}
    body = {
        "messages": [{"role": "user", "content": "a"}], "max_tokens": 20,
        "response_format": {"type": "json_schema", "json_schema": {"name": "slow", "schema": schema}},
    }  # fmt: skip
    data = json.dumps(body).encode()
    request = request_bytes(address, "POST", "/v1/chat/completions", data)
    asking = asyncio.create_task(send(address, request, seconds=60))
    asking.add_done_callback(lambda task: task.cancelled() or task.exception())
    until = time.monotonic() + 30
    while not run.server.processes(COMPILER) and not asking.done() and time.monotonic() < until:
        await asyncio.sleep(0.02)
    if not run.server.processes(COMPILER):
        said = asking.result().body[:200] if asking.done() and not asking.exception() else asking
        raise Unanswered(f"no process that compiles was started: {said}")
    await run.pause(2)
    return asking
