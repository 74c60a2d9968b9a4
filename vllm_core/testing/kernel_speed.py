"""How fast a kernel is against the core's plain version of its op, in one run on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import attrs
import torch

from vllm_core.ops import OPS
from vllm_core.testing.kernel_run import Made
from vllm_core.testing.kit import Measured

ROWS = 256
ROUNDS, CALLS = 7, 5  # the two take turns, so that what slows the machine slows both


def speed(made: Made) -> Measured:
    """The ratio of medians, with the same arguments."""
    call, reference = made.a_call(ROWS), OPS[made.query.op].reference
    times: dict[str, list[float]] = {"kernel": [], "reference": []}
    with torch.inference_mode():
        ours, plain = made.arguments(call), attrs.evolve(made, kernel=reference).arguments(call)
        for _ in range(ROUNDS + 1):
            times["kernel"].append(_seconds(made.kernel, ours, made.device))
            times["reference"].append(_seconds(reference, plain, made.device))
    ratio = median(times["reference"][1:]) / median(times["kernel"][1:])  # the first rounds compile and allocate
    what = f"{made.query.op}, {ROWS} rows, {made.case.name} sizes, {made.query.dtype}"
    return Measured(what, ratio, "times as fast as the core's plain version")


def _seconds(kernel: Callable[..., Any], args: list[Any], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    for _ in range(CALLS):
        kernel(*args)
    wait()
    return time.perf_counter() - start
