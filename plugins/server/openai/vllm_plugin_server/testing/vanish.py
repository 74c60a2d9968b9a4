"""R6: clients vanish at any moment of their requests; the engine stops working for them and gets its blocks back."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import attrs

from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.cases.good import good
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.watch import metric
from vllm_plugin_server.testing.wire import Address, request_bytes

__all__ = ["VanishReport", "vanish"]

RUNNING, WAITING, CACHE = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"


@attrs.define
class VanishReport:
    dropped: int = 0
    seconds_until_idle: list[float] = attrs.field(factory=list)  # after the last drop of each wave
    findings: list[str] = attrs.field(factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "dropped": self.dropped, "findings": self.findings,
            "p99_seconds_until_idle": percentile(self.seconds_until_idle, 99),
            "most_seconds_until_idle": max(self.seconds_until_idle, default=0.0),
        }  # fmt: skip


async def vanish(
    address: Address,
    probe: Probe,
    *,
    drops: int,
    seed: int,
    at_once: int = 16,
    tokens: int = 200,
    patience: float = 5.0,
) -> VanishReport:
    """Waves of ``at_once`` requests, each left after a random time; then the engine must become idle.

    patience   seconds for that; it is measured how long it takes
    """
    report, chance = VanishReport(), random.Random(seed)
    if why := await probe.wrong():
        report.findings.append(f"before: {why}")
        return report
    if await metric(address, RUNNING) is None:
        report.findings.append(f"/metrics has no {RUNNING}: nothing could be seen")
        return report
    before = await metric(address, CACHE) or 0.0
    while report.dropped < drops:
        count = min(at_once, drops - report.dropped)
        await asyncio.gather(*(_leave(address, probe.model, chance, tokens) for _ in range(count)))
        report.dropped += count
        begin = time.perf_counter()
        while True:
            busy = [await metric(address, name) or 0.0 for name in (RUNNING, WAITING)]
            used = await metric(address, CACHE) or 0.0
            if not any(busy) and used <= before + 1e-9:
                report.seconds_until_idle.append(time.perf_counter() - begin)
                break
            if time.perf_counter() - begin > patience:
                report.findings.append(
                    f"after {report.dropped} drops: {busy[0]:g} running, {busy[1]:g} waiting, cache {used:.4f} "
                    f"(before {before:.4f}) for {patience:g} s"
                )
                return report
            await asyncio.sleep(0.005)
    if why := await probe.wrong():
        report.findings.append(f"afterwards: {why}")
    return report


async def _leave(address: Address, model: str, chance: random.Random, tokens: int) -> None:
    """Ask for a long answer and hang up: in the middle of the body, before the answer, or during it."""
    route = chance.choice(("/v1/completions", "/v1/chat/completions"))
    body = good(model)[route] | {
        "max_tokens": tokens, "ignore_eos": True, "stream": chance.random() < 0.7, "n": chance.choice((1, 1, 2)),
        "temperature": 1.0,
    }  # fmt: skip
    if route.endswith("chat/completions") and chance.random() < 0.3:
        body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    request = request_bytes(address, "POST", route, json.dumps(body).encode())
    if chance.random() < 0.1:
        request = request[: -chance.randrange(1, 20)]
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=address.tls)
    try:
        writer.write(request)
        await writer.drain()
        await asyncio.sleep(chance.choice((0.0, 0.001, 0.01, 0.05, 0.2, 0.5)) * chance.random() * 2)
    except ConnectionError:
        pass
    finally:
        if chance.random() < 0.5:
            writer.transport.abort()  # a reset instead of a good-bye
        else:
            writer.close()
