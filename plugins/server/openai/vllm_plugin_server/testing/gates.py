"""Each gate as its command runs it: (whether it passed, what it reports)."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from functools import partial
from typing import Any

import attrs

from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.beside import Beside, compare
from vllm_plugin_server.testing.burst import burst
from vllm_plugin_server.testing.case import Case
from vllm_plugin_server.testing.cases import all_cases
from vllm_plugin_server.testing.cases.auth import tricks
from vllm_plugin_server.testing.drops import drop_each
from vllm_plugin_server.testing.fuzz import fuzz
from vllm_plugin_server.testing.hostile import attack
from vllm_plugin_server.testing.large import Large, large_bodies
from vllm_plugin_server.testing.late import held_loop
from vllm_plugin_server.testing.overload import overload
from vllm_plugin_server.testing.probe import Probe, served_model, wait_until_ready
from vllm_plugin_server.testing.streams import hold_streams
from vllm_plugin_server.testing.timing import stopping, timing
from vllm_plugin_server.testing.vanish import CACHE, vanish
from vllm_plugin_server.testing.watch import Held, held, lateness, metric, resident_each
from vllm_plugin_server.testing.wire import Address, Unanswered, address_of, request_bytes

__all__ = [
    "auth",
    "echo",
    "hostile",
    "memory",
    "run_burst",
    "run_fuzz",
    "run_loop",
    "run_streams",
    "run_timing",
    "run_vanish",
]

Result = tuple[bool, dict[str, Any]]

WARM = 100  # requests before memory is measured
FIRST = ("schema", "together")  # groups of the set that are among them
GROWTH = 0.05  # of the memory after these
FREE_GROWTH = 64 << 20  # bytes
MOST_EACH = 64_000  # bytes a stream
MOST_ADDED = 0.05  # seconds between two tokens, above the echo engine's own
QUIET, MUTANTS = 15.0, 2000  # seconds of the quiet run; mutated requests after the set
MOST_GAP = 2.0  # of neighbours' p99 gap between tokens in a quiet run


async def _begin(args: argparse.Namespace) -> tuple[Address, Probe]:
    address = address_of(args.url, api_key=args.api_key)
    await wait_until_ready(address, args.ready)
    return address, Probe(address, await served_model(address))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def hostile(args: argparse.Namespace) -> Result:
    address, probe = await _begin(args)
    cases = [case for case in all_cases(probe.model) if not args.group or case.group in args.group]
    if args.neighbours:
        return await _neighbours(args, address, probe, cases)
    late: list[float] = []
    beside = asyncio.create_task(lateness(address, late))
    report = await attack(address, cases, None if args.no_probe else probe, _tell)
    beside.cancel()
    found = report.as_dict() | {
        "health_seconds": {"p50": percentile(late, 50), "p99": percentile(late, 99), "most": max(late, default=0.0)}
    }
    return not report.findings, found


async def _neighbours(args: argparse.Namespace, address: Address, probe: Probe, cases: list[Case]) -> Result:
    """R4: the set, and then mutants, beside streams that were heard alone before."""
    headers = dict(address.headers)
    async with Beside(args.url, headers, probe.model) as alone:
        await asyncio.sleep(QUIET)
        quiet = await alone.heard()
    os.nice(10)  # who attacks would have a machine of his own
    async with Beside(args.url, headers, probe.model) as beside:
        report = await attack(address, cases, None, _tell)
        fuzzed = await fuzz(address, probe, seed=1, indexes=range(MUTANTS), tell=_tell)
        heard = await beside.heard()
    findings, figures = compare(quiet, heard, MOST_GAP)
    well = not (findings or report.findings or fuzzed.findings)
    return well, report.as_dict() | {"mutants": fuzzed.as_dict(), "neighbours": figures}


async def run_loop(args: argparse.Namespace) -> Result:
    address, probe = await _begin(args)
    cases = all_cases(probe.model)
    asked = [(f"{case.group}/{case.name}", partial(case.bytes_for, address), case.half_close) for case in cases]
    asked += [(large.name, partial(_large_request, address, large), False) for large in large_bodies(probe.model)]
    report = await held_loop(address, [one for one in asked if args.only in one[0]], _tell)
    return not report.findings, report.as_dict()


def _large_request(address: Address, large: Large) -> bytes:
    return request_bytes(address, "POST", large.target, large.body())


async def auth(args: argparse.Namespace) -> Result:
    if not args.api_key:
        raise ValueError("the key that the server was started with is needed: --api-key KEY")
    address, probe = await _begin(args)
    report = await attack(address, tricks(address, args.api_key, probe.model), None, _tell)
    return not report.findings, report.as_dict()


async def run_timing(args: argparse.Namespace) -> Result:
    """The door's comparison, and one that tells: were that not found, the measurement would be worth nothing."""
    report = timing(comparisons=args.comparisons, seed=args.seed)
    planted = timing(stopping, comparisons=args.comparisons, seed=args.seed)
    return not report.findings and bool(planted.findings), {"door": report.as_dict(), "planted": planted.as_dict()}


async def run_fuzz(args: argparse.Namespace) -> Result:
    address, probe = await _begin(args)
    indexes = range(args.requests) if args.only is None else [args.only]
    report = await fuzz(address, probe, seed=args.seed, indexes=indexes, at_once=args.at_once, tell=_tell)
    return not report.findings, report.as_dict()


async def run_vanish(args: argparse.Namespace) -> Result:
    """Each drop by itself, then in waves, which also end in the middle of a body."""
    address, probe = await _begin(args)
    each = await drop_each(address, probe, drops=args.drops, seed=args.seed)
    waves = await vanish(address, probe, drops=args.waves, seed=args.seed)
    return not each.findings and not waves.findings, {"each": each.as_dict(), "waves": waves.as_dict()}


async def run_burst(args: argparse.Namespace) -> Result:
    address, probe = await _begin(args)
    report = await burst(address, probe, requests=args.requests)
    more = await overload(address, probe, places=args.places, seconds=args.seconds, pid=args.pid)
    well = not report.findings and report.refused > 0 and not more.findings
    return well, {"at_once": report.as_dict(), "overload": more.as_dict()}


async def run_streams(args: argparse.Namespace) -> Result:
    """Against a server that is there, or an echo engine of this command's own."""
    child = None
    if args.url is None:
        child, args.url = await echo(args.gap)
    try:
        address, probe = await _begin(args)
        report = await hold_streams(
            address, probe.model, streams=args.streams, slow=args.slow, silent=args.silent, tokens=args.tokens,
            pid=child.pid if child else args.pid,
        )  # fmt: skip
    finally:
        if child:
            child.terminate()
            await child.wait()
    added = percentile(report.gaps, 99) - args.gap if child else None
    well = not report.failures and (report.bytes_each or 0) < MOST_EACH and (added or 0) < MOST_ADDED
    return well, report.as_dict() | {"p99_added_seconds": added}


async def echo(gap: float) -> tuple[asyncio.subprocess.Process, str]:
    """A server of an echo engine: its process and its address."""
    command = ("-m", "vllm_plugin_server.testing.echo", "--gap", str(gap))
    child = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    assert child.stderr is not None
    while line := (await child.stderr.readline()).decode():
        if found := re.search(r"at (http://\S+),", line):
            return child, found[1]
    raise Unanswered("the echo engine did not start")


async def memory(args: argparse.Namespace) -> Result:
    """What the server and its children hold after the first requests, and after the set and many requests more.

    Among the first are those of the set that make libraries load themselves and start their threads: that is no leak.
    """
    address, probe = await _begin(args)
    cases = all_cases(probe.model)
    first = [case for case in cases if case.group in FIRST]
    await attack(address, first, None)
    await _ask(probe, WARM - len(first))
    await asyncio.sleep(args.rest)
    each = resident_each(args.pid)
    before, pages = held(args.pid), await metric(address, CACHE)
    report = await attack(address, cases, None)
    await _ask(probe, args.requests)
    await asyncio.sleep(args.rest)
    after, kept = held(args.pid), await metric(address, CACHE)
    findings = growth(before, after)
    if kept is None or kept > (pages or 0.0) + 1e-9:
        findings.append(f"the cache's use is {kept}, and was {pages}")
    return not findings, {
        "before": attrs.asdict(before), "after": attrs.asdict(after), "findings": findings, "cache_usage": kept,
        "resident_each": {pid: (each.get(pid), now) for pid, now in resident_each(args.pid).items()},
        "requests": args.requests + report.passed + len(report.findings),
    }  # fmt: skip


async def _ask(probe: Probe, count: int, at_once: int = 8) -> None:
    for _ in range(count // at_once):
        await asyncio.gather(*(probe.ask() for _ in range(at_once)))


def growth(before: Held, after: Held) -> list[str]:
    found = []
    most = max(FREE_GROWTH, GROWTH * before.resident)
    if after.resident - before.resident > most:
        found.append(f"{(after.resident - before.resident) / 2**20:.1f} MiB more memory")
    found += [
        f"{getattr(after, name) - getattr(before, name)} more {name}"
        for name in ("files", "threads", "processes")
        if getattr(after, name) > getattr(before, name)
    ]
    return found
