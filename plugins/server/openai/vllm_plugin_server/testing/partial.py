"""R11: one of two engines is killed under load, again and again. Nobody who asks then may notice more than a pause."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.greedy import Greedy, Load
from vllm_plugin_server.testing.kills import FLAGS, spread
from vllm_plugin_server.testing.own_server import OwnServer
from vllm_plugin_server.testing.tiny import write_tiny
from vllm_plugin_server.testing.wire import Unanswered, post

__all__ = ["PartialReport", "run_partial"]

MOST = 3.0  # seconds, p99
EVERY = 0.05  # seconds between two new requests
BACK = 60.0  # seconds until both engines serve again
ENGINES = 2


@attrs.define
class PartialReport:
    paused: list[float] = attrs.field(factory=list)  # seconds: longest wait for text of a stream that a kill met
    asked: list[float] = attrs.field(factory=list)  # seconds that a request took which began after a kill
    quiet: list[float] = attrs.field(factory=list)  # the same, before the first kill
    back: list[float] = attrs.field(factory=list)  # seconds until both engines serve again
    in_flight: int = 0
    whole: int = 0  # of those, answered as in a quiet run
    findings: list[str] = attrs.field(factory=list)

    @property
    def well(self) -> bool:
        if self.findings or not self.asked or self.whole < self.in_flight:
            return False
        return percentile(self.paused, 99) < MOST and percentile(self.asked, 99) < MOST and max(self.back) < BACK

    def as_dict(self) -> dict[str, Any]:
        return {
            "kills": len(self.back),
            "in_flight": self.in_flight,
            "whole_answers": self.whole,
            "p99_seconds_paused": round(percentile(self.paused, 99), 3),
            "seconds_paused": spread(self.paused),
            "new_requests": len(self.asked),
            "p99_seconds_of_new_requests": round(percentile(self.asked, 99), 3),
            "seconds_of_new_requests": spread(self.asked),
            "seconds_of_requests_in_quiet": spread(self.quiet),
            "seconds_until_both_serve": spread(self.back),
            "findings": self.findings[:20],
        }


async def _new(server: OwnServer, into: list[float], report: PartialReport) -> None:
    """A short question, as clients that know nothing of any kill ask them."""
    body = {"model": "served", "prompt": "One", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    begin = time.perf_counter()
    try:
        reply = await post(server.address, "/v1/completions", body, seconds=30)
    except Unanswered as error:
        report.findings.append(f"a new request: {error}")
        return
    into.append(time.perf_counter() - begin)
    if reply.status != 200:
        report.findings.append(f"a new request: {reply.status} {reply.body[:120]!r}")


async def _keep_asking(server: OwnServer, into: list[float], report: PartialReport) -> None:
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(_new(server, into, report))
            await asyncio.sleep(EVERY)


async def _one(server: OwnServer, load: Load, report: PartialReport, victim: int) -> None:
    kill = len(report.back)
    before, flying = server.engines(), load.in_flight()
    begin = time.perf_counter()
    os.kill(before[victim % len(before)], signal.SIGKILL)
    asking = asyncio.create_task(_keep_asking(server, report.asked, report))
    while len(now := server.engines()) < ENGINES or now == before or not await _both(server):
        if time.perf_counter() - begin > BACK:
            report.findings.append(f"kill {kill}: not {ENGINES} engines after {BACK:g} s")
            break
        if (status := await server.health()) != 200:
            report.findings.append(f"kill {kill}: /health was {status}")
        await asyncio.sleep(0.02)
    report.back.append(time.perf_counter() - begin)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.wait([task for _, task in flying])
    report.in_flight += len(flying)
    for number, end in ((number, task.result()) for number, task in flying):
        if not end.success or load.greedy.wrong(number, end):
            report.findings.append(f"kill {kill}: {end.error[:200] or f'a wrong answer: ...{end.text[-60:]!r}'}")
            continue
        report.whole += 1
        report.paused.append(max((end.ttft, *end.itl)))


async def _both(server: OwnServer) -> bool:
    return await server.states() == ["ready"] * ENGINES


async def run_partial(args: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    """As its command runs it."""
    chance, report = random.Random(args.seed), PartialReport()
    with tempfile.TemporaryDirectory(prefix="partial-") as folder:
        model = args.model or str(write_tiny(Path(folder), 2048))
        flags = (*FLAGS, "--served-model-name", "served", "--carry-over", "--data-parallel-size", str(ENGINES))
        async with OwnServer(model, *flags) as server:
            greedy = Greedy(server.url, "served", args.tokens)
            await greedy.learn()
            load = Load(greedy, args.streams)
            load.start()
            asking = asyncio.create_task(_keep_asking(server, report.quiet, report))
            await asyncio.sleep(3)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            for kill in range(args.kills):
                await asyncio.sleep(0.05 + chance.random())
                await _one(server, load, report, kill)
                print(f"kill {kill + 1}: both serve after {report.back[-1]:.2f} s", file=sys.stderr, flush=True)
            load.end()
            greedy.client.close()
    return report.well, report.as_dict()
