"""R7: ten times what the server can take. The excess is refused at once, and those that got in lose nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from typing import Any

import attrs

from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.burst import FULL, wrong_refusal
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.watch import held, metric
from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

__all__ = ["OverloadReport", "overload"]

FACTOR = 10  # requests that come, for each that can be served
LENGTHS = (48, 80)  # tokens of an answer, drawn: those who came together do not end together
TOKENS = sum(LENGTHS) / 2
ROUNDS = 4
WARM = 1.0  # seconds before anything is counted
MOST_REFUSAL = 0.05  # seconds, p99
LEAST_SHARE = 0.95  # of the peak throughput
GROWTH = 0.05  # of the memory, or
FREE_GROWTH = 64 << 20  # bytes, whichever is more
GENERATED = "vllm:generation_tokens_total"


@attrs.define
class OverloadReport:
    peak: float = 0.0  # tokens a second with every place taken, and nobody refused
    admitted: float = 0.0  # tokens a second of those that got in, while ten times as many come
    came: float = 0.0  # requests a second
    served: int = 0
    refused: int = 0
    refusal_p50: float = 0.0  # seconds, from connecting to the answer
    refusal_p99: float = 0.0
    memory_growth: int | None = None  # bytes; without a pid not known
    findings: list[str] = attrs.field(factory=list)

    def as_dict(self) -> dict[str, Any]:
        return attrs.asdict(self)


async def overload(
    address: Address, probe: Probe, *, places: int, seconds: float, pid: int | None = None
) -> OverloadReport:
    """``places``: outputs that the server takes at once (--max-concurrent-requests). ``seconds`` of each load."""
    report, refusals = OverloadReport(), []
    body = {"model": probe.model, "prompt": "Hello", "ignore_eos": True, "temperature": 0}
    chance, measured = random.Random(1), False
    with contextlib.suppress(OSError):
        os.nice(10)  # who asks would have a machine of his own

    async def one() -> int:
        content = json.dumps(body | {"max_tokens": chance.randint(*LENGTHS)}).encode()
        request = request_bytes(address, "POST", "/v1/completions", content)
        begin = time.perf_counter()
        try:
            reply = await send(address, request, seconds=120)
        except Unanswered as error:
            report.findings.append(str(error))
            return 0
        if reply.status in FULL:
            if measured:
                refusals.append(time.perf_counter() - begin)
            else:
                report.findings.append(f"{places} at once are more than the server takes: --places must be its limit")
            if why := wrong_refusal(reply):
                report.findings.append(why)
        elif reply.status == 200:
            report.served += measured
        else:
            report.findings.append(f"{reply.status}: {reply.body[:120]!r}")
        return reply.status

    async def again() -> None:
        while True:
            await one()

    running: set[asyncio.Task[int]] = set()

    async def come() -> None:
        due = time.perf_counter()
        while True:
            task = asyncio.create_task(one())
            running.add(task)
            task.add_done_callback(running.discard)
            due += 1 / report.came
            await asyncio.sleep(max(due - time.perf_counter(), 0))

    peak, admitted, came = [], [], []
    before = None
    for _ in range(ROUNDS):  # in turns: a machine that does something else meanwhile does it to both
        measured = False
        tasks = [asyncio.create_task(again()) for _ in range(places)]
        peak.append(await _tokens_a_second(address, seconds / ROUNDS))
        await _end(tasks)
        if before is None and pid is not None:
            before = held(pid)
        report.came = FACTOR * peak[-1] / TOKENS
        came.append(report.came)
        if not report.came:
            break
        measured = True
        coming = asyncio.create_task(come())
        admitted.append(await _tokens_a_second(address, seconds / ROUNDS))
        await _end([coming])
        await asyncio.gather(*list(running))
    report.peak, report.admitted, report.came = (sum(found) / ROUNDS for found in (peak, admitted, came))
    report.refused = len(refusals)
    report.refusal_p50, report.refusal_p99 = percentile(refusals, 50), percentile(refusals, 99)
    if before is not None and pid is not None:
        report.memory_growth = held(pid).resident - before.resident
        if report.memory_growth > max(FREE_GROWTH, GROWTH * before.resident):
            report.findings.append(f"{report.memory_growth / 2**20:.1f} MiB more memory")
    _judge(report)
    if why := await probe.wrong():
        report.findings.append(f"afterwards: {why}")
    return report


def _judge(report: OverloadReport) -> None:
    report.findings = list(dict.fromkeys(report.findings))[:20]
    if not report.refused:
        report.findings.append("nobody was refused")
    elif report.refusal_p99 > MOST_REFUSAL:
        report.findings.append(f"p99 of refusals {report.refusal_p99 * 1e3:.1f} ms")
    if not report.peak or report.admitted < LEAST_SHARE * report.peak:
        report.findings.append(f"{report.admitted:.1f} tokens a second, where the peak is {report.peak:.1f}")


async def _tokens_a_second(address: Address, seconds: float) -> float:
    """That the engine makes, by its own count, once the load has begun."""
    await asyncio.sleep(WARM)
    begin, before = time.perf_counter(), await metric(address, GENERATED)
    await asyncio.sleep(seconds)
    after = await metric(address, GENERATED)
    if before is None or after is None:
        raise Unanswered(f"/metrics has no {GENERATED}")
    return (after - before) / (time.perf_counter() - begin)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
