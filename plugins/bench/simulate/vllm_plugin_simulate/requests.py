"""The requests of a simulation: when they come, how long they are, what they begin with."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from vllm_core.commands import UsageError

__all__ = ["Sketch", "ids_of", "poisson", "read_trace", "synthetic"]

FIELDS = {
    "arrival": ("arrival", "timestamp"),
    "input_tokens": ("input_tokens", "input_length", "prompt_len"),
    "output_tokens": ("output_tokens", "output_length", "output_len"),
}
"""What a line of a trace says, under each of the names that it may have."""

COMMON, OWN = 1, 2  # token ids: of what prompts have in common, and of what they have not
FIRST = 10  # ids from here on tell requests apart


@attrs.frozen
class Sketch:
    """A request that has not come yet."""

    arrival: float  # seconds
    input_tokens: int
    output_tokens: int
    shared_tokens: int = 0  # of the prompt's beginning, the same in all requests


def ids_of(sketch: Sketch, index: int) -> list[int]:
    """Token ids of a prompt that shares its first ``shared_tokens`` with every other, and nothing behind them."""
    own = sketch.input_tokens - sketch.shared_tokens
    return [COMMON] * sketch.shared_tokens + [FIRST + index] + [OWN] * (own - 1)


def poisson(count: int, rate: float, chance: random.Random) -> list[float]:
    """Seconds of ``count`` arrivals, ``rate`` a second, the last at count / rate; inf: all at once."""
    if math.isinf(rate):
        return [0.0] * count
    at, times = 0.0, []
    for _ in range(count):
        at += chance.expovariate(rate)
        times.append(at)
    return [time * (count / rate) / at for time in times]


def synthetic(
    count: int, rate: float, input_len: int, output_len: int, *, ratio: float = 0.0, prefix_len: int = 0, seed: int = 0
) -> list[Sketch]:
    """Lengths from length * (1 - ratio) to length * (1 + ratio), prompts behind a common prefix."""
    chance = random.Random(seed)

    def length(mean: int) -> int:
        return max(1, chance.randint(round(mean * (1 - ratio)), round(mean * (1 + ratio))))

    lengths = [(length(input_len), length(output_len)) for _ in range(count)]
    times = poisson(count, rate, chance)
    return [Sketch(at, prefix_len + i, o, prefix_len) for at, (i, o) in zip(times, lengths, strict=True)]


def read_trace(path: Path, rate: float | None, count: int | None, seed: int = 0) -> list[Sketch]:
    """A line of JSON each: arrival (seconds), input_tokens, output_tokens. In the order of arrival, from 0 on.

    rate    requests a second of a Poisson process, in place of the lines' arrivals; needed if they have none
    count   requests, if not all; lengths without arrivals are taken again from the start if there are fewer
    """
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}\n  where   --trace") from None
    entries = [_entry(path, number, line) for number, line in enumerate(lines, 1)]
    if not entries:
        raise UsageError(f"{path} holds no request\n  where   --trace")
    if rate is not None:
        wanted = count or len(entries)
        lengths = [entries[i % len(entries)] for i in range(wanted)]
        times = poisson(wanted, rate, random.Random(seed))
        return [Sketch(at, one[1], one[2]) for at, one in zip(times, lengths, strict=True)]
    if lacking := next((i for i, one in enumerate(entries, 1) if one[0] is None), 0):
        raise UsageError(
            f"line {lacking} of {path} has no arrival.\n"
            "  instead --request-rate RATE lets lengths come as a Poisson process"
        )
    if count is not None and count > len(entries):
        raise UsageError(f"--num-prompts {count}: {path} has {len(entries)} requests")
    sketches = sorted((Sketch(*one) for one in entries), key=lambda one: one.arrival)[:count]  # type: ignore[arg-type]
    first = sketches[0].arrival
    return [attrs.evolve(one, arrival=one.arrival - first) for one in sketches]


def _entry(path: Path, number: int, line: str) -> tuple[float | None, int, int]:
    where = f"line {number} of {path}"
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}\n  where   --trace") from None
    if not isinstance(entry, dict):
        raise UsageError(f'{where} is no table; {{"arrival": 0.5, "input_tokens": 100, "output_tokens": 20}} would be')
    arrival = _field(entry, "arrival")
    if arrival is not None and (type(arrival) not in (int, float) or not (math.isfinite(arrival) and arrival >= 0)):
        raise UsageError(f"{where}: arrival must be seconds from 0, not {arrival!r}")
    lengths = [_field(entry, name) for name in ("input_tokens", "output_tokens")]
    for name, value in zip(("input_tokens", "output_tokens"), lengths, strict=True):
        if type(value) is not int or value < 1:
            raise UsageError(f"{where}: {name} must be a whole number above 0, not {value!r}")
    return arrival, lengths[0], lengths[1]


def _field(entry: dict[str, Any], name: str) -> Any:
    names: Sequence[str] = FIELDS[name]
    return next((entry[one] for one in names if one in entry), None)
