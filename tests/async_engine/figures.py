"""How fast dropped requests give pages back, and how fast a killed engine is noticed and back.

``python -m tests.async_engine.figures [DROPS KILLS]`` prints the figures of docs/async_engine.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.async_engine.helpers import LONG, greedy, last, until
from tests.loading.checkpoints import tiny_model, write
from vllm_core import AsyncLLM

IDLE = 10  # seconds


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def line(what, values, unit="ms", times=1000):
    values = sorted(times * value for value in values)
    p99 = values[min(len(values) - 1, round(0.99 * len(values)))]
    print(f"{what:<34} median {values[len(values) // 2]:7.1f}  p99 {p99:7.1f}  worst {values[-1]:7.1f} {unit}")


async def sleep(llm):
    pids = {"front": os.getpid(), "engine": llm.pid}
    before = {name: processor_seconds(pid) for name, pid in pids.items()}
    await asyncio.sleep(IDLE)
    used = {name: processor_seconds(pid) - before[name] for name, pid in pids.items()}
    print(f"processor time of {IDLE} s without requests  " + ", ".join(f"{n} {s:.2f} s" for n, s in used.items()))


async def drop(llm, count, chance):
    """Seconds from a cancelled request to an engine without one, and without a page taken."""
    found = []
    for i in range(count):
        prompt = {"prompt_token_ids": [3 + (i * 7 + j) % 390 for j in range(20 + i % 300)]}
        task = asyncio.create_task(last(llm.generate(prompt, LONG)))
        await asyncio.sleep(0.03 * chance.random())
        task.cancel()
        begun = time.perf_counter()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        while (stats := await llm.stats()).running or stats.waiting or stats.cache_usage:
            pass
        found.append(time.perf_counter() - begun)
    return found


async def kill(llm, count, chance):
    seen, over, ready = [], [], []
    for _ in range(count):
        tasks = [asyncio.create_task(last(llm.generate(f"Number {i}", LONG))) for i in range(8)]
        await asyncio.sleep(0.05 + 0.5 * chance.random())
        os.kill(llm.pid, signal.SIGKILL)
        begun = time.perf_counter()
        await llm.state_change()
        seen.append(time.perf_counter() - begun)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, Exception) for error in errors)
        over.append(time.perf_counter() - begun)
        assert await until(lambda: llm.state == "ready", 60)
        ready.append(time.perf_counter() - begun)
    return seen, over, ready


async def main(llm, drops, kills):
    chance = random.Random(1)
    await last(llm.generate("Once", greedy(3)))
    await sleep(llm)
    line(f"{drops} dropped requests, pages back", await drop(llm, drops, chance))
    for what, seconds in zip(
        ("noticed", "8 streams ended", "ready again"), await kill(llm, kills, chance), strict=True
    ):
        line(f"{kills} killed engines, {what}", seconds, "s", 1)


if __name__ == "__main__":
    drops, kills = map(int, sys.argv[1:3] if len(sys.argv) > 2 else (1000, 20))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = str(write(Path(folder), tiny_model(max_position_embeddings=4096)))
        engine = AsyncLLM(checkpoint, dtype="float32", max_num_seqs=32, max_num_batched_tokens=128, restarts=kills)
        asyncio.run(main(engine, drops, kills))
        engine.shutdown()
