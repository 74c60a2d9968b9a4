"""What the tests of engines in other processes share."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from vllm_core import SamplingParams

ROOT = Path(__file__).parents[2]
LONG = SamplingParams(temperature=0, max_tokens=2000, ignore_eos=True)


def greedy(tokens):
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)


async def last(outputs):
    async for found in outputs:  # noqa: B007
        pass
    return found


async def first(outputs):
    """The iteration, after its first output."""
    return await anext(outputs)


async def until(condition, seconds=20.0):
    """Wait until it holds; whether it does."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return condition()


async def idle(llm, seconds=10.0):
    """Wait until nothing runs, waits or holds pages that nobody can take."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stats = await llm.stats()
        if (stats.running, stats.waiting, stats.cache_usage) == (0, 0, 0):
            return True
        await asyncio.sleep(0.01)
    return False


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)
