"""How late the event loop is, told only while requests are open."""

from __future__ import annotations

import asyncio
import time

from vllm_plugin_server.lag import EVERY, Lag


def looked(seconds_held: float, turns: int) -> tuple[list[float], int]:
    """What is told while the loop is held once, and how much more after all has ended."""

    async def run():
        told: list[float] = []
        busy = {1}
        lag = Lag(busy, told.append)
        lag.begin()
        lag.begin()
        for _ in range(turns):
            await asyncio.sleep(EVERY)
        time.sleep(seconds_held)  # holds the loop, and is no waiting for a processor
        await asyncio.sleep(EVERY)
        busy.clear()
        await asyncio.sleep(5 * EVERY)
        count = len(told)
        await asyncio.sleep(20 * EVERY)
        return told, len(told) - count

    return asyncio.run(run())


def test_a_loop_that_is_held_is_told():
    told, _ = looked(0.3, turns=3)
    assert max(told) > 0.25
    assert min(told) >= 0.0


def test_waiting_for_a_processor_is_no_lag(monkeypatch):
    waited = iter((0.0, 0.3))  # when the timer was set, and when it rang
    monkeypatch.setattr(Lag, "_waited", lambda self: next(waited, 0.3))

    told, _ = looked(0.3, turns=0)
    assert told[0] < 0.25


def test_nobody_looks_once_the_last_request_has_ended():
    told, after = looked(0.0, turns=20)
    assert len(told) >= 5
    assert after == 0


def test_a_server_tells_it_in_its_metrics(server):
    server.post("/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 64, "ignore_eos": True})

    lines = server.get("/metrics").text.splitlines()
    count = next(line for line in lines if line.startswith("vllm:event_loop_lag_seconds_count"))
    assert float(count.split()[1]) >= 1
    assert any(line.startswith('vllm:event_loop_lag_seconds_bucket{le="0.05"}') for line in lines)
