"""What a step costs the host: function calls, which do not depend on the machine, and not seconds."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.engine.fake_device import cache_plan
from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.request import Request
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.scheduler import Scheduler
from vllm_core.interfaces.steps import StepResult


def calls_a_step(rows: int, drafts: int, samples: int) -> list[int]:
    """Python and C function calls to schedule and retire each of 60 steps in which ``rows`` requests decode.

    ``samples`` of them have the same prompt.
    """
    cache = CacheManager(cache_plan(16), 20_000, max_model_len=1024, num_drafts=drafts)
    limits = {"max_rows": rows, "max_num_seqs": rows, "max_num_batched_tokens": 8192, "max_model_len": 1024}
    scheduler = Scheduler(cache, num_drafts=drafts, **limits)
    params = SamplingParams(temperature=0, max_tokens=900)
    for i in range(rows):
        scheduler.roster.add(
            Request(
                request_id=str(i),
                sibling_of=str(i // samples * samples),
                token_ids=[i // samples] * 32,
                num_prompt=32,
                sampling=params.for_row(0),
                stop_ids=frozenset([2]),
                max_total=932,
            )
        )
    counts, calls = [], 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    def sampled(flight):
        ids = np.full((len(flight.plan.rows), 1 + drafts), -1, dtype=np.int32)
        ids[:, 0] = 7  # every draft is wrong
        return StepResult(step=flight.plan.step, token_ids=ids)

    flight = scheduler.schedule()
    while len(flight.plan.rows) < rows:  # samples wait for the first of their prompt
        scheduler.retire(sampled(flight))
        flight = scheduler.schedule()
    for _ in range(60):
        result = sampled(flight)
        calls = 0
        sys.setprofile(count)
        flight = scheduler.schedule()
        retired = scheduler.retire(result)
        sys.setprofile(None)
        assert len(retired) == rows
        counts.append(calls)
    return counts


@pytest.mark.parametrize(("drafts", "samples"), [(0, 1), (3, 1), (0, 8)])
def test_a_steps_cost_grows_with_its_rows_and_not_with_what_they_have_written(drafts, samples):
    few, many = calls_a_step(32, drafts, samples), calls_a_step(256, drafts, samples)
    assert np.median(many) < 20 * 256  # calls a row
    assert np.median(many) < 8.5 * np.median(few)
    assert np.median(many[-20:]) <= 1.05 * np.median(many[:20])
