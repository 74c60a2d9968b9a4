"""R13: a server that is ended, in ten ways and at random moments, takes everything with it and in time."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.testing.ending_kinds import KINDS, LONGEST, Run
from vllm_plugin_server.testing.marked_server import MarkedServer
from vllm_plugin_server.testing.tiny import write_tiny
from vllm_plugin_server.testing.wire import Unanswered

__all__ = ["EndingsReport", "endings", "next_start", "run_endings"]

START = 60.0  # seconds in which a server gets to the point where it makes its own folder


@attrs.define
class EndingsReport:
    """``seconds`` by kind: from the signal that counts to the end of the last process."""

    runs: int = 0
    seconds: dict[str, list[float]] = attrs.field(factory=dict)
    codes: dict[str, dict[str, int]] = attrs.field(factory=dict)
    left_by_kills: int = 0  # runs after which temporary folders were there, as nobody was left to remove them
    left_after_next_start: int = 0  # of those, runs whose folders the next server did not remove as it started
    findings: list[str] = attrs.field(factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "runs": self.runs,
            "failed": len(self.findings),
            "left_by_kills": self.left_by_kills,
            "left_after_next_start": self.left_after_next_start,
            "kinds": {
                kind: {
                    "runs": len(seconds), "codes": self.codes[kind],
                    "median_seconds": round(statistics.median(seconds), 3), "worst_seconds": round(max(seconds), 3),
                }
                for kind, seconds in self.seconds.items()
            },
            "findings": self.findings[:20],
        }  # fmt: skip


async def endings(
    runs: int, *, seed: int = 1, model: str | None = None, kinds: list[str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> EndingsReport:  # fmt: skip
    """Each kind in turn; every third run has two processes that speak HTTP. ``model``: None for a tiny random one."""
    report, draw = EndingsReport(), random.Random(seed)
    chosen = {name: KINDS[name] for name in kinds or KINDS}
    with tempfile.TemporaryDirectory() as folder:
        model = model or str(write_tiny(Path(folder) / "tiny", LONGEST))
        for number in range(runs):
            name = list(chosen)[number % len(chosen)]
            act, flags = chosen[name]
            if number % 3 == 2:
                flags = (*flags, "--api-server-count", "2")
            async with MarkedServer(model, "--max-model-len", str(LONGEST), *flags) as server:
                run = Run(server, draw)
                begun = time.monotonic()
                try:
                    took = await act(run)
                    report.seconds.setdefault(name, []).append(took)
                    codes = report.codes.setdefault(name, {})
                    codes[str(server.code)] = codes.get(str(server.code), 0) + 1
                    said = f"{took:.2f} s, exit code {server.code}"
                    if name.startswith("killed") and server.leftovers():
                        report.left_by_kills += 1
                        await next_start(report, model, server)
                except Exception as error:
                    said = f"{type(error).__name__}: {error}"
                    report.findings.append(f"run {number}, {name} {' '.join(flags)}: {said}")
                finally:
                    for task in run.streams:
                        task.cancel()
                    await asyncio.gather(*run.streams, return_exceptions=True)
            report.runs += 1
            tell(f"{number + 1}/{runs} {name}: {said} (run: {time.monotonic() - begun:.1f} s)")
    return report


async def next_start(report: EndingsReport, model: str, killed: MarkedServer) -> None:
    """Another server in the same temporary folder removes what a killed one has left. ``Unanswered`` if it does not."""
    left = [killed.folder / name for name in killed.leftovers()]
    async with MarkedServer(model, "--max-model-len", str(LONGEST), folder=killed.folder) as server:
        until = time.monotonic() + START
        while any(path.exists() for path in left) and server.code is None and time.monotonic() < until:
            await asyncio.sleep(0.05)
        server.signal(signal.SIGTERM)
        await server.gone(START)
        if still := server.leftovers():
            report.left_after_next_start += 1
            raise Unanswered(f"left behind by a killed server and by the next one: {still}")


async def run_endings(args: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    """As its command runs it."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    report = await endings(args.runs, seed=args.seed, model=args.model, tell=tell)
    return not report.findings and report.runs > 0, report.as_dict()
