"""R1 and R2: every hostile request is answered as it should be, and the server lives on and says the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from vllm_plugin_server.testing.case import CLOSED, Case
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

__all__ = ["Finding", "HostileReport", "attack", "missing_routes"]

PATIENCE = 20.0  # seconds for one answer; a schema may take its time limit


@attrs.frozen
class Finding:
    """One case that went wrong."""

    name: str
    why: str
    cve: tuple[str, ...] = ()


@attrs.define
class HostileReport:
    findings: list[Finding] = attrs.field(factory=list)
    passed: int = 0
    left_out: int = 0  # of routes that the server does not have
    cves: set[str] = attrs.field(factory=set)  # advisories that were replayed
    statuses: Counter[int] = attrs.field(factory=Counter)
    slowest: tuple[float, str] = (0.0, "")  # seconds, of which case

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed, "failed": len(self.findings), "left_out": self.left_out,
            "advisories_replayed": sorted(self.cves), "statuses": dict(sorted(self.statuses.items())),
            "slowest_seconds": self.slowest[0], "slowest_case": self.slowest[1],
            "findings": [attrs.asdict(finding) for finding in self.findings],
        }  # fmt: skip


async def missing_routes(address: Address, cases: Sequence[Case]) -> set[str]:
    """Routes that cases need and that the server does not know: they answer GET with 404."""
    missing = set()
    for route in sorted({case.needs for case in cases if case.needs}):
        reply = await send(address, request_bytes(address, "GET", route), seconds=PATIENCE)
        if reply.status == 404:
            missing.add(route)
    return missing


async def attack(
    address: Address,
    cases: Sequence[Case],
    probe: Probe | None,
    tell: Callable[[str], None] = lambda line: None,
    *,
    probe_every: int = 1,
) -> HostileReport:
    """Send every case, one after the other, and probe after each, or after every so many and at the end.

    Without a probe only the answers are judged.
    """
    report = HostileReport()
    missing = await missing_routes(address, cases)
    if probe and (why := await probe.wrong()):
        raise Unanswered(f"the server is not well before anything was sent: {why}")
    for number, case in enumerate(cases, 1):
        if case.needs in missing:
            report.left_out += 1
            continue
        name = f"{case.group}/{case.name}"
        begin = time.perf_counter()
        why = await _one(address, case, report)
        took = time.perf_counter() - begin
        report.slowest = max(report.slowest, (took, name))
        if not why and probe and (number % probe_every == 0 or number == len(cases)):
            why = await probe.wrong()
        report.cves.update(case.cve)
        if why:
            report.findings.append(Finding(name, why, case.cve))
            tell(f"FAIL {name}: {why}")
        else:
            report.passed += 1
    return report


async def _one(address: Address, case: Case, report: HostileReport) -> str:
    try:
        reply = await send(address, case.bytes_for(address), seconds=PATIENCE, half_close=case.half_close)
    except Unanswered as error:
        closed = CLOSED in case.want and "no answer within" not in str(error)
        report.statuses[CLOSED] += 1
        return "" if closed else str(error)
    report.statuses[reply.status] += 1
    return case.wrong(reply)
