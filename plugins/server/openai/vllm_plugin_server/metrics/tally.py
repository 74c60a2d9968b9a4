"""A histogram as plain numbers, which prometheus_client's multiprocess mode does not add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Tally"]


class Tally:
    """``bounds`` rising; ``counts`` of each bucket alone, and of what is beyond the last; ``total`` the sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = tuple(map(float, bounds)), [0] * (len(bounds) + 1), 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def merge(self, other: Tally) -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def rows(self) -> list[tuple[str, float]]:
        """(upper bound, how many up to it), as Prometheus has them."""
        rows, so_far = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            rows.append((bound, float(so_far)))
        return rows
