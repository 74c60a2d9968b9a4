"""R3: no mutated request gives a 5xx, a drop or a stall."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from vllm_plugin_server.testing.case import error_shape
from vllm_plugin_server.testing.hostile import Finding
from vllm_plugin_server.testing.mutate import FIELDS, mutant
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

__all__ = ["FuzzReport", "fields_of", "fuzz"]

PATIENCE = 30.0  # seconds for an answer; more is a drop


@attrs.define
class FuzzReport:
    sent: int = 0
    findings: list[Finding] = attrs.field(factory=list)
    statuses: Counter[int] = attrs.field(factory=Counter)
    slowest_refusal: float = 0.0  # seconds
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return attrs.asdict(self) | {"statuses": dict(sorted(self.statuses.items()))}


async def fields_of(address: Address) -> tuple[str, ...]:
    """Names of fields that the server's own /openapi.json has, and those that all servers have."""
    found = set(FIELDS)
    try:
        reply = await send(address, request_bytes(address, "GET", "/openapi.json"))
    except Unanswered:
        return FIELDS

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("properties"), dict):
                found.update(value["properties"])
            for inner in value.values():
                visit(inner)
        elif isinstance(value, list):
            for inner in value:
                visit(inner)

    visit(reply.json())
    return tuple(sorted(found))


async def fuzz(
    address: Address,
    probe: Probe,
    *,
    seed: int,
    indexes: Sequence[int],
    at_once: int = 4,
    stall: float = 1.0,
    tell: Callable[[str], None] = lambda line: None,
) -> FuzzReport:
    """Send mutants, ``at_once`` of them together, and ask a good question every 200.

    stall   seconds that refusing a request may take; what is served takes as long as it computes
    """
    report = FuzzReport()
    fields = await fields_of(address)
    waiting = iter(indexes)
    begin = time.perf_counter()
    if why := await probe.wrong():
        raise Unanswered(f"the server is not well before anything was sent: {why}")

    def find(index: int, about: str, why: str) -> None:
        report.findings.append(Finding(f"seed {seed}, {index}: {about}", why))
        tell(f"FAIL {seed}/{index} {about}: {why}")

    async def worker() -> None:
        for index in waiting:
            made = mutant(address, probe.model, seed, index, fields)
            started = time.perf_counter()
            try:
                reply = await send(address, made.request, seconds=PATIENCE, half_close=not made.must_answer)
            except Unanswered as error:
                if made.must_answer or "no answer within" in str(error):
                    find(index, made.about, str(error))
                report.statuses[0] += 1
            else:
                took = time.perf_counter() - started
                report.statuses[reply.status] += 1
                why = ""
                if reply.status >= 500 and (made.must_answer or reply.status not in (501, 505)):
                    why = f"{reply.status}: {reply.body[:200]!r}"
                elif 400 <= reply.status < 500:
                    report.slowest_refusal = max(report.slowest_refusal, took)
                    if took > stall:
                        why = f"{reply.status} after {took:.1f} s"
                    elif made.must_answer and not made.request.startswith(b"HEAD "):
                        why = error_shape(made.about.split(":")[0], reply)
                elif reply.status not in (200, 204):
                    why = f"{reply.status}, which says nothing"
                if why:
                    find(index, made.about, why)
            report.sent += 1
            if report.sent % 200 == 0 and (why := await probe.wrong()):
                find(index, "after it", why)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    if why := await probe.wrong():
        find(-1, "at the end", why)
    report.seconds = time.perf_counter() - begin
    return report
