"""R6, each drop by itself: a client leaves at a known point, and it is measured when the engine holds nothing of it.

The engine answers /load between two steps. So what is measured is the rest of the step in which the client left, the
way of that news through the server, and a question and its answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import attrs

from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.asked import Asked
from vllm_plugin_server.testing.points import Points, longest_of
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

__all__ = ["MOST", "DropReport", "drop_each"]

SHARES = {"queue": 0.2, "prefill": 0.25, "decode": 0.25, "tool_call": 0.15, "structured": 0.15}  # of all drops
MOST = 0.1  # seconds beyond a step, at p99
PATIENCE = 5.0  # seconds, after which nothing will come back
MOST_SEATS = 64  # requests that are started to fill the engine


@attrs.define
class DropReport:
    seconds: dict[str, list[float]] = attrs.field(factory=dict)  # by point, from a drop to an engine without it
    steps: dict[str, float] = attrs.field(factory=dict)  # seconds
    findings: list[str] = attrs.field(factory=list)

    def took(self, point: str, seconds: float) -> None:
        self.seconds.setdefault(point, []).append(seconds)

    @property
    def beyond(self) -> list[float]:
        """Seconds beyond a step, of each drop."""
        return [took - self.steps.get(point, 0.0) for point, all_ in self.seconds.items() for took in all_]

    def as_dict(self) -> dict[str, Any]:
        return {
            "dropped": sum(map(len, self.seconds.values())), "findings": self.findings,
            "p99_seconds_beyond_a_step": percentile(self.beyond, 99), "most_beyond": max(self.beyond, default=0.0),
            "points": {
                point: {
                    "dropped": len(took), "step_seconds": self.steps.get(point, 0.0),
                    "p50_seconds": percentile(took, 50), "p99_seconds": percentile(took, 99), "most": max(took),
                }
                for point, took in self.seconds.items()
            },
        }  # fmt: skip


async def drop_each(address: Address, probe: Probe, *, drops: int, seed: int, patience: float = PATIENCE) -> DropReport:
    """One client at a time, at points in random order; at last those that wait while the engine is full."""
    report, chance = DropReport(), random.Random(seed)
    if why := await probe.wrong():
        report.findings.append(f"before: {why}")
        return report
    points = Points(address, probe.model, await longest_of(address), chance)
    try:
        await points.measure()
        report.steps = points.steps
        await _back(address, {"running": 0, "waiting": 0}, patience)
        order = [point for point, share in SHARES.items() if point != "queue" for _ in range(round(share * drops))]
        chance.shuffle(order)
        for name in order:
            asked, point = await getattr(points, name)()
            report.took(point, await _leave(address, asked, chance, {"running": 0, "waiting": 0}, patience))
        await _queue(points, report, drops - len(order), patience)
    except (Unanswered, TimeoutError) as error:
        report.findings.append(f"after {sum(map(len, report.seconds.values()))} drops: {error}")
        return report
    if (late := percentile(report.beyond, 99)) > MOST:
        report.findings.append(f"at p99 {late:.3f} s beyond a step, more than {MOST:g} s")
    if why := await probe.wrong():
        report.findings.append(f"afterwards: {why}")
    return report


async def _load(address: Address) -> dict[str, float]:
    reply = await send(address, request_bytes(address, "GET", "/load"))
    value = reply.json()
    if reply.status != 200 or not isinstance(value, dict) or not {"running", "waiting", "cache_usage"} <= value.keys():
        raise Unanswered(f"/load answered {reply.status} {reply.body[:200]!r}: nothing can be seen")
    return value


async def _back(address: Address, most: dict[str, float], patience: float) -> None:
    """Until no more than ``most`` runs and waits; and where nothing should run, nothing is held in the cache."""
    end = time.perf_counter() + patience
    while True:
        load = await _load(address)
        idle = most["running"] > 0 or load["cache_usage"] < 1e-9
        if idle and all(load[name] <= count for name, count in most.items()):
            return
        if time.perf_counter() > end:
            raise Unanswered(f"for {patience:g} s there were still {load}, not {most}")
        await asyncio.sleep(0.001)


async def _leave(
    address: Address, asked: Asked, chance: random.Random, most: dict[str, float], patience: float
) -> float:
    begin = time.perf_counter()
    asked.leave(abruptly=chance.random() < 0.5)
    await _back(address, most, patience)
    return time.perf_counter() - begin


async def _queue(points: Points, report: DropReport, drops: int, patience: float) -> None:
    """Long answers fill the engine; one more request waits, and leaves. Again when the answers have ended."""
    left = 0
    while left < drops:
        held = await _fill(points)
        running = len(held) - 1  # the last one waits
        waiting: Asked | None = held.pop()
        while left < drops:
            asked = waiting or await points.long_prompt()
            waiting = None
            while (load := await _load(points.address))["waiting"] < 1 and load["running"] == running:
                await asyncio.sleep(0.001)
            seconds = await _leave(points.address, asked, points.chance, {"running": running, "waiting": 0}, patience)
            if load["running"] != running or (await _load(points.address))["running"] != running:
                break  # an answer has ended meanwhile, and the request may have taken its place
            report.took("queue", seconds)
            left += 1
        for asked in held:
            asked.leave(abruptly=True)
        await _back(points.address, {"running": 0, "waiting": 0}, patience)


async def _fill(points: Points) -> list[Asked]:
    """Requests of which the last one waits."""
    body = {"model": points.model, "prompt": "Hello", "max_tokens": points.longest - 64, "ignore_eos": True}
    held = []
    for _ in range(MOST_SEATS):
        held.append(await Asked.open(points.address, "/v1/completions", body))
        try:
            await held[-1].piece(max(0.25, 30 * points.steps["queue"]))
        except TimeoutError:
            if (await _load(points.address))["waiting"]:
                return held
    for asked in held:
        asked.leave(abruptly=True)
    raise Unanswered(f"{MOST_SEATS} requests run at once and none waits: start the server with --max-num-seqs 4")
