"""What runs beside an attack: good streams (R4), how late /health is (R19), what processes hold (R5)."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.bench.ask import Outcome, Sample, Wish, ask
from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

__all__ = ["Held", "Neighbours", "family", "held", "lateness", "metric", "resident_each"]

PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


@attrs.define
class Neighbours:
    """Good greedy streams, again and again: their texts and the gaps between their tokens."""

    client: Client
    model: str
    streams: int = 8
    tokens: int = 24
    texts: list[set[str]] = attrs.field(factory=list)  # of each stream, all that it ever said
    gaps: list[float] = attrs.field(factory=list)  # seconds
    failures: list[str] = attrs.field(factory=list)
    answers: int = 0

    async def round(self) -> None:
        """Every stream once."""
        wish = Wish(backend="openai", route="/v1/completions", model=self.model, ignore_eos=True,
                    extra={"temperature": 0})  # fmt: skip
        prompts = [f"Count from {i}: {i}, {i + 1}, {i + 2}," for i in range(self.streams)]
        self.texts = self.texts or [set() for _ in prompts]
        outcomes: list[Outcome] = await asyncio.gather(
            *(ask(self.client, wish, Sample(prompt, 0, self.tokens), i) for i, prompt in enumerate(prompts))
        )
        for texts, outcome in zip(self.texts, outcomes, strict=True):
            self.answers += 1
            if outcome.success:
                texts.add(outcome.text)
                self.gaps += outcome.itl
            else:
                self.failures.append(outcome.error)

    async def go_on(self, pause: float = 0.0) -> None:
        """Until cancelled. ``pause``: seconds between rounds."""
        while True:
            await self.round()
            await asyncio.sleep(pause)

    def p99(self) -> float:
        """Seconds between two tokens."""
        return percentile(self.gaps, 99)


async def lateness(address: Address, into: list[float], every: float = 0.02) -> None:
    """Seconds that /health takes, until cancelled: the time that the event loop is busy with something else."""
    request = request_bytes(address, "GET", "/health")
    while True:
        begin = time.perf_counter()
        try:
            await send(address, request, seconds=30)
        except Unanswered:
            into.append(30.0)
        else:
            into.append(time.perf_counter() - begin)
        await asyncio.sleep(every)


@attrs.frozen
class Held:
    """By a process and its children."""

    resident: int  # bytes
    files: int
    threads: int
    processes: int


def held(pid: int) -> Held:
    pids = family(pid)
    resident = files = threads = 0
    for one in pids:
        try:
            resident += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE
            files += len(os.listdir(f"/proc/{one}/fd"))
            threads += len(os.listdir(f"/proc/{one}/task"))
        except OSError:  # it has just ended
            continue
    return Held(resident, files, threads, len(pids))


def resident_each(pid: int) -> dict[int, int]:
    """Bytes of a process, its children and theirs."""
    found = {}
    for one in family(pid):
        try:
            found[one] = int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE
        except OSError:
            continue
    return found


def family(pid: int) -> list[int]:
    """A process, its children and theirs."""
    found = [pid]
    for one in found:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


async def metric(address: Address, name: str) -> float | None:
    """The sum of a metric's series in /metrics, under vLLM's name; None if it is not there."""
    reply = await send(address, request_bytes(address, "GET", "/metrics"))
    values: list[Any] = [
        float(line.rsplit(" ", 1)[1])
        for line in reply.body.decode("utf-8", "replace").splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]
    return sum(values) if values else None
