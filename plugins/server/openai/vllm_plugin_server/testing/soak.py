"""R21 in a bounded form: a load of about 80 % of what the server can do, and a fault every few seconds.

What counts: every request whose answer a fault does not necessarily break. Necessarily broken are those that are sent
while /health is not 200 after a kill or a stop, and are refused with a 503 that says so, and those that the soak itself
drops. Everything else must be answered in whole, with what a quiet run said: also streams that were in flight when the
engine was killed, as the server runs with --carry-over. No answer within a minute is a failure at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.bench.ask import Outcome
from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.greedy import Greedy
from vllm_plugin_server.testing.inject import server_env, tell
from vllm_plugin_server.testing.own_server import OwnServer
from vllm_plugin_server.testing.tiny import write_tiny
from vllm_plugin_server.testing.wire import request_bytes

__all__ = ["FAULTS", "SoakReport", "run_soak"]

AVAILABLE = 0.9995
LOAD = 0.8  # of what closed loops reach
HANG = 60.0  # seconds
MEASURED = 10.0  # seconds, to learn what the server can do
AT_ONCE = 16  # requests
FLAGS = ("--engine-restarts", "1000000", "--carry-over", "--access-log", "--max-num-seqs", "16", "--dtype", "float32")


@attrs.define
class SoakReport:
    capacity: float = 0.0  # requests a second
    good: int = 0  # that count
    failed: int = 0  # of those
    excused: int = 0  # refused while there was no engine
    wrong: int = 0  # answers, excused or not
    down: list[tuple[float, float]] = attrs.field(factory=list)  # from a fault to the next 200 of /health
    faults: dict[str, int] = attrs.field(factory=dict)
    seconds: list[float] = attrs.field(factory=list)  # of good answers
    findings: list[str] = attrs.field(factory=list)

    def take(self, greedy: Greedy, number: int, end: Outcome | None) -> None:
        """A request that has ended; None: it has not, within a minute."""
        if end is not None and greedy.wrong(number, end):
            self.wrong += 1
            self.findings.append(f"a wrong answer: ...{end.text[-60:]!r}")
        refused = end is not None and not end.success and not end.text and "HTTP 503" in end.error
        if end is not None and refused and any(a <= end.start_time + end.latency and end.start_time <= b
                                               for a, b in self.down):  # fmt: skip
            self.excused += 1
            return
        self.good += 1
        if end is None or not end.success:
            self.failed += 1
            self.findings.append("no answer within a minute" if end is None else end.error[:200])
        else:
            self.seconds.append(end.latency)

    @property
    def availability(self) -> float:
        return 1 - self.failed / self.good if self.good else 0.0

    def as_dict(self) -> dict[str, Any]:
        answers = {f"p{p}": round(percentile(self.seconds, p), 3) for p in (50, 99)} if self.seconds else {}
        return {
            "capacity_requests_per_second": round(self.capacity, 1),
            "good_requests": self.good,
            "failed": self.failed,
            "availability": round(self.availability, 6),
            "wrong_answers": self.wrong,
            "excused_refusals": self.excused,
            "faults": self.faults,
            "down_seconds": {"sum": round(sum(b - a for a, b in self.down), 1),
                             "most": round(max((b - a for a, b in self.down), default=0.0), 2)},
            "answer_seconds": answers,
            "findings": self.findings[:20],
        }  # fmt: skip


@attrs.define
class Soak:
    server: OwnServer
    folder: Path  # of `inject`
    greedy: Greedy
    report: SoakReport
    chance: random.Random

    async def _is_down(self) -> None:
        """Until there is another engine; the fault has just happened."""
        begin = time.perf_counter()
        window = len(self.report.down)
        self.report.down.append((begin, float("inf")))
        while await self.server.health() == 200 and time.perf_counter() - begin < 5:
            await asyncio.sleep(0.01)
        while await self.server.health() != 200 and time.perf_counter() - begin < 120:
            await asyncio.sleep(0.01)
        self.report.down[window] = begin, time.perf_counter()

    async def kill(self) -> None:
        self.server.kill_engine()
        await self._is_down()

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server.engine(), signal.SIGSTOP)
        await self._is_down()

    async def drop(self) -> None:
        """Connections that end in the middle of an answer."""
        address = self.server.address
        body = b'{"model":"served","prompt":"a","max_tokens":900,"ignore_eos":true,"stream":true}'
        for _ in range(20):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(request_bytes(address, "POST", "/v1/completions", body))
            await asyncio.sleep(0.1 * self.chance.random())
            writer.transport.abort()

    async def disk_full(self) -> None:
        await self._log("log-full")

    async def disk_slow(self) -> None:
        await self._log("log-slow")

    async def _log(self, fault: str) -> None:
        tell(self.folder, self.server.pid, fault)
        await asyncio.sleep(4)
        tell(self.folder, self.server.pid, "log-back")

    async def clock(self) -> None:
        for fault in ("clock-forward", "clock-back"):
            for pid in (self.server.pid, self.server.engine()):
                tell(self.folder, pid, fault)
            await asyncio.sleep(2)


FAULTS: dict[str, Callable[[Soak], Awaitable[None]]] = {
    "kill": Soak.kill, "drop": Soak.drop, "disk-full": Soak.disk_full, "stop": Soak.stop, "disk-slow": Soak.disk_slow,
    "clock": Soak.clock,
}  # fmt: skip


async def _capacity(greedy: Greedy) -> float:
    """Requests a second of closed loops."""
    end, done = time.perf_counter() + MEASURED, 0

    async def slot(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            done += (await greedy.ask(number)).success
            number += AT_ONCE + 1

    await asyncio.gather(*map(slot, range(AT_ONCE)))
    return done / MEASURED


async def _requests(soak: Soak, rate: float, end: float) -> None:
    """At random moments, whatever becomes of those before."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int) -> None:
        try:
            async with asyncio.timeout(HANG):
                outcome = await soak.greedy.ask(number)
        except TimeoutError:
            outcome = None
        soak.report.take(soak.greedy, number, outcome)

    number = 0
    while time.perf_counter() < end:
        await asyncio.sleep(soak.chance.expovariate(rate))
        tasks.add(task := asyncio.create_task(one(number)))
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)


async def run_soak(args: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    report = SoakReport()
    with tempfile.TemporaryDirectory(prefix="s-") as name:
        folder = Path(name) / "on"
        folder.mkdir()
        model = args.model or str(write_tiny(Path(name) / "tiny", 2048))
        async with OwnServer(model, *FLAGS, "--served-model-name", "served", env=server_env(folder)) as server:
            greedy = Greedy(server.url, "served", args.tokens)
            await greedy.learn()
            report.capacity = await _capacity(greedy)
            soak = Soak(server, folder, greedy, report, random.Random(args.seed))
            end = time.perf_counter() + args.seconds
            load = asyncio.create_task(_requests(soak, LOAD * report.capacity, end))
            kinds = list(FAULTS)
            while time.perf_counter() + args.every < end:
                await asyncio.sleep(args.every)
                kind = kinds[sum(report.faults.values()) % len(kinds)]
                report.faults[kind] = report.faults.get(kind, 0) + 1
                await FAULTS[kind](soak)
                print(f"{kind}: {report.good} good, {report.failed} failed, {report.excused} excused", file=sys.stderr)
            await load
            greedy.client.close()
    well = report.availability >= AVAILABLE and not report.wrong and bool(report.faults)
    return well, report.as_dict()
