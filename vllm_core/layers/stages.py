"""Which layers a pipeline stage has: shares of equal cost, next to each other. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from vllm_core.layers.shards import CannotSplit

__all__ = ["stage_ranges"]


def stage_ranges(costs: Sequence[int], stages: int, behind: int = 0, chosen: Sequence[int] = ()) -> list[range]:
    """The layers of each stage, such that the slowest is as fast as it can be.

    costs    of each layer: what a step of few tokens reads of it, say
    behind   cost of what follows the last layer, in the same unit
    chosen   layers of each stage, if somebody said so; they must add up
    """
    layers = len(costs)
    if chosen:
        if len(chosen) != stages or sum(chosen) != layers or min(chosen) < 1:
            raise ValueError(
                f"pipeline_layers is {', '.join(map(str, chosen))}: it must give each of {stages} pipeline stages one"
                f" layer or more, {layers} together.\n  instead {_shown(stage_ranges(costs, stages, behind))}"
                if layers >= stages
                else _too_few(layers, stages)
            )
        ends = list(accumulate(chosen))
        return [range(end - count, end) for end, count in zip(ends, chosen, strict=True)]
    if layers < stages:
        raise CannotSplit(_too_few(layers, stages))
    weights = costs if any(costs) else [1] * layers
    slowest = _best(weights, stages, behind, lambda so_far, stage: max(so_far, stage))[0]

    def square(so_far: float, stage: float) -> float:
        return so_far + stage * stage if stage <= slowest else float("inf")

    ends = _best(weights, stages, behind, square)[1]  # among all that are as fast, the most even
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _best(
    costs: Sequence[int], stages: int, behind: int, join: Callable[[float, float], float]
) -> tuple[float, list[int]]:
    """The least value over all ways to cut, and the stages' ends; of equal ones, the most layers come first."""
    sums = [0, *accumulate(costs)]
    layers = len(costs)
    best: list[tuple[float, list[int]]] = [(0.0, []), *[(float("inf"), list[int]()) for _ in range(layers)]]
    for stage in range(1, stages + 1):
        more = behind if stage == stages else 0
        found: list[tuple[float, list[int]]] = [(float("inf"), [])] * (layers + 1)
        for end in range(stage, layers - (stages - stage) + 1):
            starts = range(end - 1, stage - 2, -1)
            value, start = min((join(best[s][0], sums[end] - sums[s] + more), -s) for s in starts)
            found[end] = value, [*best[-start][1], end]
        best = found
    return best[layers]


def _shown(ranges: Sequence[range]) -> str:
    return f"--pipeline-layers {','.join(str(len(r)) for r in ranges)}, which is what is taken without it"


def _too_few(layers: int, stages: int) -> str:
    return (
        f"{layers} layers cannot be split over {stages} pipeline stages: each needs one at least.\n"
        f"  instead --pipeline-parallel-size {layers} or less"
    )
