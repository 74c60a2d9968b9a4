"""When requests are sent."""

from __future__ import annotations

import math
import random

__all__ = ["arrivals", "ramp_arrivals"]


def arrivals(count: int, rate: float, burstiness: float, chance: random.Random) -> list[float]:
    """Seconds after the start at which each of ``count`` requests is sent.

    rate         requests a second; inf: all at once
    burstiness   1: a Poisson process; below: bursts; above: more even; inf: one every 1/rate seconds. Gaps are
                 gamma-distributed with this shape.

    Times are scaled so that the last is at count/rate: runs with different seeds offer the same load.
    """
    if math.isinf(rate):
        return [0.0] * count
    times = _summed([_gap(rate, burstiness, chance) for _ in range(count)])
    scale = count / rate / times[-1] if times and times[-1] else 1.0
    return [at * scale for at in times]


def ramp_arrivals(
    count: int, strategy: str, first: float, last: float, burstiness: float, chance: random.Random
) -> list[float]:
    """As ``arrivals``, with a rate that grows from ``first`` to ``last`` over the requests. Not scaled."""
    gaps = []
    for i in range(count):
        share = i / max(count - 1, 1)
        rate = first + (last - first) * share if strategy == "linear" else first * (last / first) ** share
        if rate <= 0:
            raise ValueError("a ramp that begins at 0 requests a second never begins; --ramp-up-start-rps 1 does")
        gaps.append(_gap(rate, burstiness, chance))
    return _summed(gaps)


def _gap(rate: float, burstiness: float, chance: random.Random) -> float:
    if math.isinf(burstiness):
        return 1 / rate
    return chance.gammavariate(burstiness, 1 / (rate * burstiness))


def _summed(gaps: list[float]) -> list[float]:
    at, times = 0.0, []
    for gap in gaps:
        at += gap
        times.append(at)
    return times
