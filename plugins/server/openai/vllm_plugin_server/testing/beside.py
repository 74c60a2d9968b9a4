"""R4: good streams in a process of their own, as what sends an attack would hold them up itself.

``python -m vllm_plugin_server.testing.beside`` is that process; ``Beside`` starts it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.testing.watch import Neighbours

__all__ = ["Beside", "Heard", "compare"]


@attrs.frozen
class Heard:
    """What the streams said. ``texts``: of each stream, all its different answers."""

    answers: int
    texts: list[list[str]]
    failures: list[str]
    gaps: int
    p50: float  # seconds between two tokens
    p99: float


class Beside:
    """``async with Beside(...) as beside``: streams run inside, from the first round on; ``heard`` ends them."""

    def __init__(self, url: str, headers: Mapping[str, str], model: str) -> None:
        self._told = {"url": url, "headers": dict(headers), "model": model}

    async def __aenter__(self) -> Beside:
        command = (sys.executable, "-m", "vllm_plugin_server.testing.beside")
        pipe = asyncio.subprocess.PIPE
        self._child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 26)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(self._told).encode() + b"\n")
        if await self._child.stdout.readline() != b"begun\n":
            raise RuntimeError("the streams beside the attack did not begin")
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._child.returncode is None:
            self._child.kill()
            await self._child.wait()

    async def heard(self) -> Heard:
        """After the round that runs."""
        told, _ = await self._child.communicate(b"end\n")
        return Heard(**json.loads(told))


def compare(quiet: Heard, beside: Heard, most: float) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with ``beside``, and the figures of both. ``most``: times the quiet p99 gap."""
    findings = [f"a stream failed: {why[:200]}" for why in [*quiet.failures, *beside.failures][:5]]
    changed = sum(bool(set(after) - set(before)) for before, after in zip(quiet.texts, beside.texts, strict=True))
    if changed:
        findings.append(f"{changed} of {len(quiet.texts)} streams said something else than in the quiet run")
    if not quiet.gaps or not beside.gaps:
        findings.append("there are no gaps between tokens to compare")
    elif beside.p99 >= most * quiet.p99:
        findings.append(f"p99 gap {beside.p99 * 1e3:.1f} ms, {beside.p99 / quiet.p99:.2f} x that of the quiet run")
    figures = {
        name: {"answers": run.answers, "failed": len(run.failures), "gaps": run.gaps, "p50_gap_seconds": run.p50,
               "p99_gap_seconds": run.p99}
        for name, run in (("quiet", quiet), ("beside", beside))
    }  # fmt: skip
    return findings, figures | {"changed": changed, "findings": findings}


async def _main() -> None:
    told = json.loads(sys.stdin.readline())
    neighbours = Neighbours(Client(told["url"], told["headers"]), told["model"])
    await neighbours.round()  # the first is not measured: connections begin
    neighbours.gaps.clear()
    print("begun", flush=True)
    end = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    while not end.done():
        await neighbours.round()
    heard = Heard(
        answers=neighbours.answers, texts=[sorted(texts) for texts in neighbours.texts],
        failures=neighbours.failures, gaps=len(neighbours.gaps),
        p50=percentile(neighbours.gaps, 50), p99=percentile(neighbours.gaps, 99),
    )  # fmt: skip
    print(json.dumps(attrs.asdict(heard)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
