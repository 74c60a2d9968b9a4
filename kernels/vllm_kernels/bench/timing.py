"""Times on the device: one CUDA graph of many launches, over inputs that together exceed the L2 cache."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from vllm_kernels.bench.case import Call

BEYOND_CACHE = 192 << 20  # bytes
MOST_SETS = 48


def microseconds(make: Callable[[], Call], size: int, launches: int = 48, repeats: int = 7) -> float:
    """Of one launch. ``size``: bytes of its inputs and results, by which the number of sets is chosen.

    Where even `MOST_SETS` stay in the cache (a few tokens), so they do in an engine's step.
    """
    sets = min(MOST_SETS, max(2, -(-BEYOND_CACHE // max(1, size))))
    calls = [make() for _ in range(sets)]
    total = max(launches, sets)
    for call in calls:
        call()
    graph = captured(lambda: [calls[i % sets]() for i in range(total)])
    return graph_microseconds(graph, repeats) / total


def captured(run: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def graph_microseconds(graph: torch.cuda.CUDAGraph, repeats: int = 7) -> float:
    """Of one replay, the median."""
    graph.replay()
    found = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) * 1e3)
    return median(found)
