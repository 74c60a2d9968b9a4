"""How a product of few tokens is cut into pieces for one GPU. Plain numbers, no torch."""

from __future__ import annotations

import attrs

DTYPES = ("bfloat16", "float16")
LEAST = 8  # rows of weights that a tile has
ONCE_LIMIT = 100 * 1024  # bytes: up to this, all weights of a block are under way at once
ONCE_WARPS, RING_WARPS = 8, 16  # of a block, about; on an H200 16 read long rows up to 1.5 times faster than 8
RING = 96 * 1024  # bytes of weights on their way to one block otherwise; 48 KiB were a quarter slower
LEAST_RING = 40 * 1024
ONCE_KEPT, RING_KEPT = 64, 16  # registers of a thread for its part of the tokens, if they are kept there
READ_AGAIN = 3  # tokens that may as well be read from the L2 cache for each tile
IN_L1 = 64 * 1024  # bytes of tokens that stay in the L1 cache beside a ring: reading them there was faster than staging
LONG = 32 << 20  # bytes of weights from which evenly loaded multiprocessors matter more than an early start
UNIT = 3200  # adding a unit's sums up over warps, about 0.1 us: bytes that one multiprocessor could read meanwhile
MOST_BYTES = 512 << 20  # of weights: a GiB took torch's product 240 us, and 251 here; 297 MiB take both 75
# Elements of x up to which this was faster than torch's products with the ops beside them (H200, bfloat16).
MOST_NORMED, MOST_PLAIN = 16 * 1024, 48 * 1024


def shape_limits(in_size: int, out_size: int, dtype: str) -> str:
    """Why there is no such product here, or ""."""
    if dtype not in DTYPES:
        return f"{dtype} is not multiplied here, {' and '.join(DTYPES)} are"
    if in_size % 8 or out_size < LEAST:
        return f"{in_size} -> {out_size}: inputs must be a multiple of 8, outputs {LEAST} or more"
    if 2 * in_size * out_size > MOST_BYTES:
        return f"weights of {in_size * out_size >> 19:,} MiB: beyond {MOST_BYTES >> 20} torch's product reads faster"
    return ""


@attrs.frozen(kw_only=True)
class GPU:
    multiprocessors: int
    most_shared: int  # bytes a block

    @property
    def more_than_half(self) -> int:
        """Bytes of shared memory that two blocks of one multiprocessor cannot both have; each takes 1 KiB besides."""
        return self.most_shared // 2 + 1024


@attrs.frozen(kw_only=True)
class Problem:
    """y [T, out_size] of x [T, in_size]; with ``gate``, weights have 2 ``out_size`` rows."""

    in_size: int
    out_size: int
    gate: bool = False
    scale_bytes: int = 0  # of an element of the norm's weight; 0: no norm
    tokens: int = 8  # 8 or 16: the most

    @property
    def is_long(self) -> bool:
        """Whether its weights take much longer to read than the kernel before takes to end, as a head's do."""
        return not self.scale_bytes and 2 * self.in_size * self.out_size * (1 + self.gate) >= LONG

    @property
    def worth(self) -> int:
        """Tokens up to which it pays, at most ``tokens``."""
        return min(self.tokens, (MOST_NORMED if self.scale_bytes else MOST_PLAIN) // self.in_size)


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
    least_shared: int = 0  # bytes a block takes at least

    @property
    def kept(self) -> bool:
        """Whether a thread keeps its part of the tokens in registers."""
        return self.span == self.steps

    def shared(self, tokens: int) -> int:
        """Bytes a block needs."""
        inputs = self.steps * self.warps * 32
        staged = 0 if self.stream else tokens * (inputs if inputs % 64 else inputs + 32) * 2
        sums = max(256, self.warps * self.tiles * tokens * 32)
        needed = self.depth * self.warps * 512 + staged + self.problem.in_size * self.problem.scale_bytes + sums
        return max(needed, self.least_shared)


def choose(problem: Problem, gpu: GPU) -> Tiling | None:
    """The cut with the least work on the busiest multiprocessor that fits, or None."""
    cuts = []
    for tiles in (2, 4, 6, 8) if problem.gate else (1, 2, 3, 4, 6, 8):
        height = 8 * tiles // (1 + problem.gate)
        if height > problem.out_size:
            continue
        units = -(-problem.out_size // height)
        rounds = -(-units // gpu.multiprocessors)
        cost = rounds * (tiles * 16 * problem.in_size + UNIT)
        cuts.append((cost, tiles, min(units, gpu.multiprocessors), rounds))
    for _, tiles, grid, rounds in sorted(cuts):
        found = [_fit(problem, gpu, tiles, grid, rounds, stream) for stream in (False, True)]
        staged, streamed = found[0], None if problem.scale_bytes else found[1]
        near = problem.worth <= READ_AGAIN or 2 * problem.worth * problem.in_size <= IN_L1
        if streamed is not None and (streamed.kept or tiles * rounds == 1 or near):
            return streamed
        if staged is not None or streamed is not None:
            return staged or streamed
    return None


def _fit(p: Problem, gpu: GPU, tiles: int, grid: int, rounds: int, stream: bool) -> Tiling | None:
    chunks = -(-p.in_size // 32)
    once = rounds == 1 and tiles * _padded(chunks, ONCE_WARPS) * 512 <= ONCE_LIMIT
    about = ONCE_WARPS if once else RING_WARPS
    # The number of warps that shares the steps most evenly.
    warps = min(range(about // 2, min(about * 3 // 2, 16) + 1), key=lambda w: (_padded(chunks, w), abs(w - about), -w))
    steps = -(-chunks // warps)
    kept = steps * p.tokens // 2 <= (ONCE_KEPT if once else RING_KEPT) and steps <= 12
    one = Tiling(
        warps=warps, tiles=tiles, steps=steps, once=once, stream=stream,
        span=steps if kept else _divisor(steps, 6 if once else 4),
        depth=steps * tiles if once else max(2, min(RING // (warps * 512), rounds * tiles * steps)),
        # While the norm before a head still runs on one multiprocessor, which is set up for little shared memory, the
        # block of the head that should run there goes where another is already, and the two share one's bandwidth.
        grid=grid, problem=p, least_shared=gpu.more_than_half if p.is_long else 0,
    )  # fmt: skip
    least = 2 if rounds * tiles * steps <= one.depth else min(LEAST_RING, gpu.most_shared // 4) // (warps * 512)
    while not one.once and one.depth > max(2, least) and one.shared(p.worth) > gpu.most_shared:
        one = attrs.evolve(one, depth=one.depth - 1)
    return one if one.shared(p.worth) <= gpu.most_shared else None


def _padded(chunks: int, warps: int) -> int:
    return -(-chunks // warps) * warps


def _divisor(number: int, most: int) -> int:
    return max(d for d in range(1, max(1, min(number, most)) + 1) if number % d == 0)
