"""Seconds that a step of decoding rows costs the host. Run as ``python -m tests.engine.step_seconds [rows]``.

Medians over 300 steps, in milliseconds:

    schedule   Scheduler.schedule
    retire     Scheduler.retire, ids of the step included
    prepare    Rows.apply and inputs.prepare, on the CPU
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from tests.engine.fake_device import cache_plan
from vllm_core.engine.cache import CacheManager, table_widths
from vllm_core.engine.request import Request
from vllm_core.engine.scheduler import Scheduler
from vllm_core.interfaces.steps import RowSampling, StepResult
from vllm_core.runner.inputs import prepare
from vllm_core.runner.rows import Rows

STEPS, BLOCK = 300, 16


def measure(num_rows: int, drafts: int) -> dict[str, float]:
    """Median milliseconds by stage."""
    plan = cache_plan(BLOCK)
    cache = CacheManager(plan, 40_000, max_model_len=2048, num_drafts=drafts)
    limits = {"max_rows": num_rows, "max_num_seqs": num_rows, "max_num_batched_tokens": 16_384, "max_model_len": 2048}
    scheduler = Scheduler(cache, num_drafts=drafts, **limits)
    for i in range(num_rows):
        scheduler.roster.add(
            Request(
                request_id=str(i),
                token_ids=[i] * (32 + i % BLOCK),  # pages are full in different steps
                num_prompt=32 + i % BLOCK,
                sampling=RowSampling(),
                stop_ids=frozenset([2]),
                max_total=2000,
            )
        )
    rows = Rows(
        num_rows, 2048, drafts, [BLOCK], torch.device("cpu"), table_widths(plan, max_model_len=2048, num_drafts=drafts)
    )
    seconds: dict[str, list[float]] = {"schedule": [], "retire": [], "prepare": []}
    flights = [scheduler.schedule()]
    for _ in range(STEPS):
        sampled = np.full((num_rows, 1 + drafts), -1, dtype=np.int32)
        sampled[:, 0] = 7
        marks = [time.perf_counter()]
        flights.append(scheduler.schedule())  # one step ahead, as the overlapped loop is
        marks.append(time.perf_counter())
        rows.apply(flights[-1].plan)
        prepare(flights[-1].plan, rows)
        marks.append(time.perf_counter())
        scheduler.retire(StepResult(step=flights.pop(0).plan.step, token_ids=sampled))
        marks.append(time.perf_counter())
        for stage, begin, end in zip(("schedule", "prepare", "retire"), marks[:-1], marks[1:], strict=True):
            seconds[stage].append(end - begin)
    return {stage: 1e3 * float(np.median(values)) for stage, values in seconds.items()}


def main() -> None:
    torch.set_num_threads(1)
    num_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    for drafts in (0, 3):
        found = measure(num_rows, drafts)
        stages = ", ".join(f"{stage} {value:.3f}" for stage, value in found.items())
        print(f"{num_rows} rows, {drafts} drafts: {stages}; together {sum(found.values()):.3f} ms a step")


if __name__ == "__main__":
    main()
