"""What is said about a list of measured values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["busy", "decode_rate", "percentile", "percentiles", "spread", "table"]

PERCENTAGES = (10, 25, 50, 75, 90, 99)  # those of vLLM's benchmarks

QUIET = 0.15  # cores that others may use without a word


def percentile(values: Sequence[float], percent: float) -> float:
    """Between neighbours on a straight line, as numpy does."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    return {str(percent): percentile(values, percent) for percent in PERCENTAGES}


def spread(values: Sequence[float]) -> dict[str, float]:
    """mean, median, p50, p90, p99, min and max; empty of no values."""
    if not values:
        return {}
    ranks = {f"p{percent}": percentile(values, percent) for percent in (50, 90, 99)}
    mean = sum(values) / len(values)
    return {"mean": mean, "median": ranks["p50"], **ranks, "min": min(values), "max": max(values)}


def busy(cores: float | None) -> str:
    """A line of warning if others used the machine while it was measured, else ""."""
    if cores is None or cores < QUIET:
        return ""
    return f"Other processes used {cores:.1f} cores meanwhile: speeds are lower than they could be."


def decode_rate(length: int, seconds: float, seconds_for_one: float) -> float | None:
    """Tokens a second after the first; None if there are none, or the clock saw no difference."""
    return (length - 1) / (seconds - seconds_for_one) if length > 1 and seconds > seconds_for_one else None


def table(rows: Mapping[str, str]) -> str:
    """A line for each figure."""
    width = max(map(len, rows), default=0)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows.items())
