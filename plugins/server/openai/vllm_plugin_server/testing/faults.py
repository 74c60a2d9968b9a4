"""R12: /health turns red within two seconds of whatever gets stuck, and is never red under load.

A server of its own, with streams that run all the time; `inject` brings the faults into its processes. Red is any
status but 200, and no answer within a second. What must stay green may take three seconds to answer: where all
processors are taken, whoever asks gets as little of them as the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from vllm_plugin_server.testing.fault_greens import GREENS
from vllm_plugin_server.testing.fault_reds import REDS
from vllm_plugin_server.testing.fault_stage import Kind, Stage
from vllm_plugin_server.testing.inject import server_env
from vllm_plugin_server.testing.own_server import OwnServer
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.tiny import write_tiny
from vllm_plugin_server.testing.wire import Unanswered

__all__ = ["KINDS", "run_faults"]

KINDS = [*REDS, *GREENS]
LIMIT = 2.0  # seconds until red
CALM = 5.0  # seconds that must stay green
ANSWER, CALM_ANSWER = 1.0, 3.0  # seconds, at most
PATIENCE = 60.0  # seconds until green again
POLL = 0.03  # seconds
FLAGS = (
    "--engine-restarts", "1000", "--max-num-seqs", "16", "--dtype", "float32",
    "--structured-outputs-config", '{"backend": "xgrammar"}',  # it compiles in a process apart
)  # fmt: skip


async def _look(
    stage: Stage, seconds: float, until: Callable[[int], bool], answer: float = ANSWER
) -> tuple[float, int] | None:
    """When a look at /health found so, in seconds from now, and its status; 0: no answer."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        if until(status := await stage.server.health(answer)):
            return time.perf_counter() - begin, status
        await asyncio.sleep(POLL)
    return None


async def _try(kind: Kind, stage: Stage, probe: Probe) -> dict[str, Any]:
    await stage.load(kind.load)
    await asyncio.sleep(1.0 if kind.load else 0.3)
    found: dict[str, Any] = {"expected": "red" if kind.red else "green", "well": False}
    undo = None
    looks: asyncio.Task[Any]
    try:
        if kind.red:
            looks = asyncio.create_task(_look(stage, kind.allowed + 3 * LIMIT, lambda status: status != 200))
            await asyncio.sleep(0)
            undo = await kind.act(stage)
            red = await looks
            found["seconds"] = None if red is None else round(red[0] - kind.allowed, 2)
            found["status"] = None if red is None else red[1]
            found["well"] = red is not None and red[0] - kind.allowed <= LIMIT
        else:
            looks = asyncio.create_task(_look(stage, CALM, lambda status: status != 200, CALM_ANSWER))
            undo = await kind.act(stage)
            while not looks.done():
                await asyncio.sleep(0.1)
            if looks.result() is not None:
                found["red_seconds"], found["status"] = looks.result()
            found["well"] = looks.result() is None
    except (Unanswered, OSError, RuntimeError, StopIteration) as error:
        found |= {"well": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        if undo is not None:
            undo()
        await stage.rest()
    back = await _look(stage, PATIENCE, lambda status: status == 200)
    found["green_again_seconds"] = None if back is None else round(back[0], 2)
    try:
        wrong = "" if back is None else await probe.wrong()
    except Unanswered as error:
        wrong = str(error)
    if back is None or wrong:
        found |= {"well": False, "after": wrong or f"/health was not 200 within {PATIENCE:g} s"}
    return found


@contextlib.asynccontextmanager
async def staged(model: str | None, fronts: int, *flags: str) -> AsyncIterator[tuple[Stage, Probe]]:
    """A server whose processes obey, and what it says when nothing is wrong."""
    with tempfile.TemporaryDirectory(prefix="f-") as name:
        folder, temporary = Path(name) / "on", Path(name) / "tmp"
        folder.mkdir()
        temporary.mkdir()
        served = model or str(write_tiny(Path(name) / "tiny", 4096))
        count = ("--api-server-count", str(fronts)) if fronts > 1 else ()
        env = {**server_env(folder), "TMPDIR": str(temporary)}
        flags = (*FLAGS, *count, "--served-model-name", "served", *flags)
        async with OwnServer(served, *flags, env=env) as server:
            stage = Stage(server, folder, "served")
            probe = Probe(server.address, "served", 8)
            await probe.ask()
            if wrong := await probe.wrong():
                raise Unanswered(wrong)
            yield stage, probe


async def run_faults(args: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    """Each kind that was asked for, on servers that live through all of them."""
    chosen = [kind for kind in KINDS if not args.kind or kind.name in args.kind]
    if unknown := set(args.kind or ()) - {kind.name for kind in KINDS}:
        raise ValueError(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(k.name for k in KINDS)}")
    report: dict[str, Any] = {}
    for fronts in sorted({kind.fronts for kind in chosen}):
        async with staged(args.model, fronts) as (stage, probe):
            for kind in (kind for kind in chosen if kind.fronts == fronts):
                report[kind.name] = {"what": kind.text, **await _try(kind, stage, probe)}
                print(
                    kind.name, {k: v for k, v in report[kind.name].items() if k != "what"}, file=sys.stderr, flush=True
                )
    reds = [found["seconds"] for found in report.values() if found.get("seconds") is not None]
    return all(found["well"] for found in report.values()), {
        "kinds": len(report),
        "not_well": [name for name, found in report.items() if not found["well"]],
        "most_seconds_until_red": max(reds, default=None),
        "faults": report,
    }
