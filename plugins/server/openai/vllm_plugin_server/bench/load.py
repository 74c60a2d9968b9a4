"""Runs a benchmark's requests: each at its time, no more at once than allowed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Sequence

import attrs

from vllm_plugin_server.bench.ask import Outcome, Sample, Wish, ask
from vllm_plugin_server.bench.client import Client

__all__ = ["Run", "offer"]

LAG_EVERY = 0.05  # seconds


@attrs.frozen
class Run:
    outcomes: list[Outcome]  # in the order of the samples
    duration: float  # seconds, from the first request to the last answer
    lags: list[
        float
    ]  # seconds that this process answered itself late: what is above some ms is its own, not the server's


async def offer(
    client: Client,
    wish: Wish,
    samples: Sequence[Sample],
    times: Sequence[float],
    *,
    max_concurrency: int | None = None,
    done: Callable[[], None] = lambda: None,
) -> Run:
    """Send ``samples[i]`` at ``times[i]`` seconds, ask for all to the end."""
    gate = asyncio.Semaphore(max_concurrency) if max_concurrency else contextlib.nullcontext()

    async def one(number: int) -> Outcome:
        arrived = time.perf_counter()
        async with gate:
            outcome = await ask(client, wish, samples[number], number)
        outcome.queue_time = outcome.start_time - arrived
        done()
        return outcome

    lags: list[float] = []
    watch = asyncio.create_task(_watch_lag(lags))
    gc.collect()
    gc.freeze()  # prompts need no look at each collection
    begin = time.perf_counter()
    try:
        tasks = []
        for number, at in enumerate(times):
            wait = begin + at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(one(number)))
        outcomes = await asyncio.gather(*tasks)
        return Run(list(outcomes), time.perf_counter() - begin, lags)
    finally:
        watch.cancel()
        gc.unfreeze()


async def _watch_lag(lags: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(LAG_EVERY)
        lags.append(max(0.0, time.perf_counter() - before - LAG_EVERY))
