"""How a product of few tokens is cut into pieces for one GPU. Plain numbers, no torch."""

from __future__ import annotations

import attrs

DTYPES = ("bfloat16", "float16")
LEAST = 8  # rows of weights that the smallest tile has
ONCE_LIMIT = 100 * 1024  # bytes: up to this, all weights of a block are under way at once
RING = 72 * 1024  # bytes of weights on their way to one block otherwise; 30 KiB hide the latency, the rest barriers
WARPS = 8  # of a block, about
UNIT_COST = 3200  # bytes that could be read while a unit's sums are added up over warps, about 0.1 us


def shape_limits(in_size: int, out_size: int, dtype: str) -> str:
    """Why there is no such product here, or ""."""
    if dtype not in DTYPES:
        return f"{dtype} is not multiplied here, {' and '.join(DTYPES)} are"
    if in_size % 8 or out_size < LEAST:
        return f"{in_size} -> {out_size}: inputs must be a multiple of 8, outputs {LEAST} or more"
    return ""


@attrs.frozen(kw_only=True)
class Problem:
    """y [T, out_size] of x [T, in_size]; with ``gate``, weights have 2 ``out_size`` rows."""

    in_size: int
    out_size: int
    gate: bool = False
    scale_bytes: int = 0  # of an element of the norm's weight; 0: no norm
    tokens: int = 8  # 8 or 16: the most


@attrs.frozen(kw_only=True)
class Tiling:
    """The defines of cuda/small.cu (explained there), the blocks, and the shared memory they need."""

    warps: int
    tiles: int
    steps: int
    depth: int
    span: int
    once: bool
    stream: bool
    grid: int
    problem: Problem

    def shared(self, tokens: int) -> int:
        """Bytes a block needs."""
        p, inputs = self.problem, self.steps * self.warps * 32
        stride = inputs if inputs % 64 else inputs + 32
        ring = self.depth * self.warps * self.tiles * 512
        return ring + (0 if self.stream else tokens * stride * 2) + p.in_size * p.scale_bytes + self._sums(tokens)

    def _sums(self, tokens: int) -> int:
        return max(128, self.warps * self.tiles * tokens * 32)


def choose(problem: Problem, multiprocessors: int, most_shared: int) -> Tiling | None:
    """The cut with the least work on the busiest multiprocessor that fits ``most_shared`` bytes a block, or None."""
    rows = [(tiles, 8 * tiles // (1 + problem.gate)) for tiles in ((2, 4, 6) if problem.gate else (1, 2, 3, 4))]
    cuts = []
    for tiles, height in rows:
        if height > problem.out_size:
            continue
        units = -(-problem.out_size // height)
        rounds = -(-units // multiprocessors)
        cost = rounds * (tiles * 16 * problem.in_size + UNIT_COST)
        cuts.append((cost, -tiles, tiles, min(units, multiprocessors), rounds))
    for _, _, tiles, grid, rounds in sorted(cuts):
        if (found := _fit(problem, tiles, grid, rounds, most_shared)) is not None:
            return found
    return None


def _fit(problem: Problem, tiles: int, grid: int, rounds: int, most_shared: int) -> Tiling | None:
    chunks = -(-problem.in_size // 32)
    # The number of warps that shares the steps most evenly.
    warps = min(range(WARPS // 2, WARPS * 3 // 2 + 1), key=lambda w: (-(-chunks // w) * w, abs(w - WARPS), -w))
    steps, halves = -(-chunks // warps), problem.tokens // 8
    step_bytes = warps * tiles * 512
    once = rounds == 1 and steps > 1 and steps * step_bytes <= ONCE_LIMIT
    for stream in (False,) if problem.scale_bytes else (True, False) if rounds == 1 else (False, True):
        span = _divisor(steps, (12 if halves == 1 else 8) if once else 4 // (halves if stream else 1))
        if stream and span == 1 and steps > 1 and not once:
            continue
        one = Tiling(
            warps=warps, tiles=tiles, steps=steps, span=span,
            depth=steps if once else max(2, min(RING // step_bytes, rounds * steps)),
            once=once, stream=stream, grid=grid, problem=problem,
        )  # fmt: skip
        while not one.once and one.depth > 2 and one.shared(problem.tokens) > most_shared:
            one = attrs.evolve(one, depth=one.depth - 1)
        if one.shared(problem.tokens) <= most_shared:
            return one
    return None


def _divisor(number: int, most: int) -> int:
    return max(d for d in range(1, max(1, min(number, most)) + 1) if number % d == 0)
