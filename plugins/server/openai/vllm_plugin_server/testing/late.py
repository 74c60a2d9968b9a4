"""R19: which requests hold the event loop, by what the server itself says of it in /metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

__all__ = ["LoopReport", "held_loop"]

NAME = "vllm:event_loop_lag_seconds"
MOST = 0.05  # seconds
AGAIN = 3  # times that a request must hold it, each time: other work on the machine holds it, too
PATIENCE = 30.0  # seconds for an answer


@attrs.define
class LoopReport:
    sent: int = 0
    looks: int = 0  # at the loop, while requests were open
    late: dict[str, int] = attrs.field(factory=dict)  # those of them that came more than so many seconds late
    once: list[str] = attrs.field(factory=list)  # held it, and did not when they were asked again
    findings: list[str] = attrs.field(factory=list)
    slowest_seconds: float = 0.0
    slowest: str = ""

    def as_dict(self) -> dict[str, Any]:
        return attrs.asdict(self)


async def held_loop(
    address: Address,
    asked: Sequence[tuple[str, Callable[[], bytes], bool]],
    tell: Callable[[str], None] = lambda line: None,
) -> LoopReport:
    """Send each one after the other. A finding is what holds the loop each time.

    asked   name, what makes its bytes, and whether the client then says that it sends no more
    """
    report = LoopReport()
    begin = before = await _lags(address)
    for name, make, half_close in asked:
        tries, late = 0, 1
        while late and tries < AGAIN:
            tries += 1
            took = await _send(address, make(), half_close, name, report)
            report.slowest_seconds, report.slowest = max((report.slowest_seconds, report.slowest), (took, name))
            after = await _lags(address)
            late, before = _above(before, after, MOST), after
            if late:
                tell(f"{name}: {late} looks of the loop were more than {MOST * 1e3:g} ms late")
        if late:
            report.findings.append(f"{name} holds the event loop for more than {MOST * 1e3:g} ms each time")
        elif tries > 1:
            report.once.append(name)
    report.looks = before[float("inf")] - begin[float("inf")]
    report.late = {f"{bound:g}": _above(begin, before, bound) for bound in begin if bound != float("inf")}
    return report


async def _send(address: Address, raw: bytes, half_close: bool, name: str, report: LoopReport) -> float:
    """Seconds that it took."""
    begin = time.perf_counter()
    try:
        await send(address, raw, seconds=PATIENCE, half_close=half_close)
    except Unanswered as error:
        if "no answer within" in str(error):
            report.findings.append(f"{name}: {error}")
    report.sent += 1
    took = time.perf_counter() - begin
    await asyncio.sleep(0.02)  # what is freed after the answer counts
    return took


def _above(before: dict[float, int], after: dict[float, int], bound: float) -> int:
    infinite = float("inf")
    return after[infinite] - before[infinite] - (after[bound] - before[bound])


async def _lags(address: Address) -> dict[float, int]:
    """How many looks were at most so late, by seconds."""
    reply = await send(address, request_bytes(address, "GET", "/metrics"))
    found = {}
    for line in reply.body.decode("utf-8", "replace").splitlines():
        if line.startswith(f"{NAME}_bucket{{"):
            found[float(line.split('le="')[1].split('"')[0])] = int(float(line.rsplit(" ", 1)[1]))
    if MOST not in found or float("inf") not in found:
        raise Unanswered(f"/metrics has no {NAME} with a bucket of {MOST:g} s")
    return found
