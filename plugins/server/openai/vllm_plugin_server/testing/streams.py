"""R8: thousands of open streams, beside peers that send a byte a second and peers that read nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import time
from typing import Any

import attrs

from vllm_plugin_server.bench.ask import Sample, Wish, ask
from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.watch import held, lateness
from vllm_plugin_server.testing.wire import Address, request_bytes

__all__ = ["StreamsReport", "hold_streams"]

FLOODED = 100  # of so many silent peers, one has
FLOOD = 2000  # answers on their way to it
PER_SECOND = 500  # streams that begin


@attrs.define
class StreamsReport:
    streams: int = 0
    most_open: int = 0
    failures: list[str] = attrs.field(factory=list)
    health_seconds: list[float] = attrs.field(factory=list)
    gaps: list[float] = attrs.field(factory=list)  # seconds between two tokens of a stream
    bytes_each: float | None = None  # resident, of the server and its children
    slow_ended: int = 0  # slow peers that the server has sent away
    silent_ended: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        found = attrs.asdict(self)
        late, gaps = found.pop("health_seconds"), found.pop("gaps")
        found["failures"] = self.failures[:10]
        found["failed"] = len(self.failures)
        return found | {
            "p99_health_seconds": percentile(late, 99), "most_health_seconds": max(late, default=0.0),
            "p50_gap_seconds": percentile(gaps, 50), "p99_gap_seconds": percentile(gaps, 99),
        }  # fmt: skip


async def hold_streams(
    address: Address, model: str, *, streams: int, slow: int, silent: int, tokens: int, pid: int | None = None
) -> StreamsReport:
    """Open them all, wait until each has said its ``tokens``. The server's pace decides how long they stay open."""
    report = StreamsReport(streams)
    begin = time.perf_counter()
    client = Client(f"{'https' if address.tls else 'http'}://{address.host}:{address.port}", dict(address.headers))
    wish = Wish(backend="openai", route="/v1/completions", model=model, ignore_eos=True)
    before = held(pid) if pid else None
    now = 0

    async def one(number: int) -> None:
        nonlocal now
        await asyncio.sleep(number / PER_SECOND)
        now += 1
        report.most_open = max(report.most_open, now)
        outcome = await ask(client, wish, Sample("Hello", 1, tokens), number)
        now -= 1
        report.gaps += outcome.itl
        if not outcome.success:
            report.failures.append(outcome.error)
        elif outcome.output_tokens != tokens:
            report.failures.append(f"{outcome.output_tokens} tokens instead of {tokens}")

    beside = [asyncio.create_task(lateness(address, report.health_seconds, every=0.1))]
    beside += [asyncio.create_task(_slow(address, report)) for _ in range(slow)]
    beside += [asyncio.create_task(_silent(address, model, report, i)) for i in range(silent)]
    tasks = [asyncio.create_task(one(i)) for i in range(streams)]
    if pid and before:
        beside.append(asyncio.create_task(_weigh(report, pid, before.resident, lambda: now)))
    gc.disable()  # this process has as many streams to look through, and would measure its own pauses
    try:
        await asyncio.gather(*tasks)
    finally:
        gc.enable()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    client.close()
    report.seconds = time.perf_counter() - begin
    return report


async def _weigh(report: StreamsReport, pid: int, before: int, count: Any) -> None:
    """Memory a stream while most of them are open."""
    while True:
        await asyncio.sleep(0.5)
        if count() >= report.streams * 0.95:
            report.bytes_each = max(report.bytes_each or 0.0, (held(pid).resident - before) / report.streams)


async def _slow(address: Address, report: StreamsReport) -> None:
    """Headers, a byte a second."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls)
        try:
            for byte in b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 10_000:
                writer.write(bytes([byte]))
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        if not await reader.read(1000):
                            break
        finally:
            writer.close()
        report.slow_ended += 1


async def _silent(address: Address, model: str, report: StreamsReport, number: int) -> None:
    """Asks for a stream and never reads. One in a hundred asks for more than all buffers on the way hold."""
    body = {"model": model, "prompt": "Hello", "max_tokens": 400, "ignore_eos": True, "stream": True}
    request = request_bytes(address, "POST", "/v1/completions", json.dumps(body).encode())
    if number % FLOODED == 0:
        request = request_bytes(address, "GET", "/v1/models") * FLOOD
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (address.host, address.port))
        await loop.sock_sendall(sock, request)
        while sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            await asyncio.sleep(1)
    except OSError:
        pass  # it was sent away
    finally:
        sock.close()
    report.silent_ended += 1
