"""R7: far more requests than there is room for; the excess is told at once to come back, the others are served."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import attrs

from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.wire import Address, Reply, Unanswered, request_bytes, send

__all__ = ["FULL", "BurstReport", "burst", "wrong_refusal"]

FULL = (429, 503)


@attrs.define
class BurstReport:
    served: int = 0
    refused: int = 0
    refusal_seconds: list[float] = attrs.field(factory=list)
    findings: list[str] = attrs.field(factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "served": self.served, "refused": self.refused, "findings": self.findings,
            "p99_refusal_seconds": percentile(self.refusal_seconds, 99),
        }  # fmt: skip


async def burst(
    address: Address, probe: Probe, *, requests: int, tokens: int = 16, seconds: float = 300
) -> BurstReport:
    """All at the same moment."""
    report = BurstReport()
    if why := await probe.wrong():
        report.findings.append(f"before: {why}")
        return report
    body = {"model": probe.model, "prompt": "Hello", "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    request = request_bytes(address, "POST", "/v1/completions", json.dumps(body).encode())

    async def one() -> None:
        begin = time.perf_counter()
        try:
            reply = await send(address, request, seconds=seconds)
        except Unanswered as error:
            report.findings.append(str(error))
            return
        if reply.status == 200:
            report.served += 1
        elif reply.status in FULL:
            report.refused += 1
            report.refusal_seconds.append(time.perf_counter() - begin)
            if why := wrong_refusal(reply):
                report.findings.append(why)
        else:
            report.findings.append(f"{reply.status}: {reply.body[:120]!r}")

    await asyncio.gather(*(one() for _ in range(requests)))
    if why := await probe.wrong():
        report.findings.append(f"afterwards: {why}")
    return report


def wrong_refusal(reply: Reply) -> str:
    again = reply.headers.get("retry-after", "")
    return "" if again.isdecimal() and int(again) > 0 else f"{reply.status} with Retry-After {again!r}"
