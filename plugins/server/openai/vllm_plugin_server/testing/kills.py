"""R9, R10: SIGKILL of the engine's process at random moments under load, again and again."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.testing.greedy import CLEAN, Greedy, Load
from vllm_plugin_server.testing.own_server import OwnServer
from vllm_plugin_server.testing.tiny import write_tiny

__all__ = ["KillsReport", "run_kills", "spread"]

SEEN, ENDED, LATER = 1.0, 2.0, 1.0  # seconds, the last one beyond those of a cold start
CONTINUED = 0.99  # of the streams
HANG = 30.0  # seconds
STARTS = 3  # the slowest of which is the cold start
POLL = 0.005  # seconds
FLAGS = ("--engine-restarts", "1000000", "--max-num-seqs", "16", "--dtype", "float32")


@attrs.define
class KillsReport:
    cold_start_seconds: float  # of the whole server
    carry_over: bool
    seen: list[float] = attrs.field(factory=list)  # seconds to a 503 of /health
    ended: list[float] = attrs.field(factory=list)  # seconds to the last end of a stream that was in flight
    ready: list[float] = attrs.field(factory=list)  # seconds to a 200 of /health
    in_flight: int = 0
    finished: int = 0  # with the whole answer
    clean: int = 0  # with an error that says what happened
    findings: list[str] = attrs.field(factory=list)

    @property
    def well(self) -> bool:
        if self.findings or not self.ready or max(self.seen) >= SEEN:
            return False
        if max(self.ready) >= self.cold_start_seconds + LATER:
            return False
        return self.finished >= CONTINUED * self.in_flight if self.carry_over else max(self.ended) < ENDED

    def as_dict(self) -> dict[str, Any]:
        return {
            "kills": len(self.seen),
            "carry_over": self.carry_over,
            "health_503_seconds": spread(self.seen),
            "streams_ended_seconds": spread(self.ended),
            "ready_again_seconds": spread(self.ready),
            "cold_start_seconds": round(self.cold_start_seconds, 2),
            "in_flight": self.in_flight,
            "whole_answers": self.finished,
            "clean_errors": self.clean,
            "findings": self.findings[:20],
        }


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and most, for a report."""
    return {"median": round(statistics.median(seconds), 3), "most": round(max(seconds), 3)} if seconds else {}


async def _one(server: OwnServer, load: Load, report: KillsReport) -> None:
    kill = len(report.seen)
    load.open.clear()
    before, flying = server.engine(), load.in_flight()
    begin = time.perf_counter()
    server.kill_engine()
    report.seen.append(await _when(server, begin, 503))
    if report.carry_over:
        report.ready.append(await _when(server, begin, 200))
    done, hung = await asyncio.wait([task for _, task in flying], timeout=HANG) if flying else (set(), set())
    report.in_flight += len(flying)
    if hung:
        report.findings.append(f"kill {kill}: {len(hung)} streams hung for {HANG:g} s")
    ends = [(number, task.result()) for number, task in flying if task in done]
    report.ended.append(max((end.start_time + end.latency for _, end in ends), default=begin) - begin)
    for number, end in ends:
        report.finished += end.success
        report.clean += any(word in end.error for word in CLEAN)
        if load.greedy.wrong(number, end):
            report.findings.append(f"kill {kill}: a wrong answer of {len(end.text)} characters: ...{end.text[-60:]!r}")
        elif not end.success and not any(word in end.error for word in CLEAN):
            report.findings.append(f"kill {kill}: {end.error[:200]}")
    if not report.carry_over:
        report.ready.append(await _when(server, begin, 200))
    after = await load.greedy.ask(kill)
    if not after.success or load.greedy.wrong(kill, after):
        report.findings.append(f"kill {kill}: a question after it: {after.error or 'another answer'}")
    if server.engine() == before:
        report.findings.append(f"kill {kill}: the engine was not another one after it")
    load.open.set()


async def _when(server: OwnServer, begin: float, status: int) -> float:
    while await server.health() != status:
        if time.perf_counter() - begin > HANG:
            return float("inf")
        await asyncio.sleep(POLL)
    return time.perf_counter() - begin


async def run_kills(args: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    chance = random.Random(args.seed)
    more = ("--carry-over",) if args.carry_over else ()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        model = args.model or str(write_tiny(Path(folder), 2048))
        flags = (*FLAGS, "--served-model-name", "served", *more)
        cold = 0.0
        for _ in range(STARTS - 1):
            async with OwnServer(model, *flags) as server:
                cold = max(cold, server.start_seconds)
        async with OwnServer(model, *flags) as server:
            greedy = Greedy(server.url, "served", args.tokens)
            await greedy.learn()
            report = KillsReport(max(cold, server.start_seconds), args.carry_over)
            load = Load(greedy, args.streams)
            load.start()
            for kill in range(args.kills):
                await asyncio.sleep(0.05 + 1.5 * chance.random())
                await _one(server, load, report)
                if (kill + 1) % 10 == 0:
                    print(f"{kill + 1} kills, {len(report.findings)} findings", file=sys.stderr, flush=True)
            load.end()
            greedy.client.close()
    return report.well, report.as_dict()
