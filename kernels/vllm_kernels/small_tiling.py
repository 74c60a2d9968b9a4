"""How a product of few tokens is cut into pieces for one GPU. Plain numbers, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import attrs

DTYPES = ("bfloat16", "float16")
LEAST = 8  # rows of weights that the smallest tile has
WARPS = 8  # of a block, about
ONCE_LIMIT = 100 * 1024  # bytes: up to this, all weights of a block are under way at once
RING = 96 * 1024  # bytes of weights on their way to one block otherwise; 30 KiB hide the latency, the rest barriers
LEAST_RING = 40 * 1024
SUMS = 64  # registers of a thread for sums at most; twice as many where tokens are not staged
KEPT = 64  # registers of a thread for its part of the tokens, if they are kept
# What is not the reading of weights, in bytes that could be read meanwhile by one multiprocessor (32 a ns):
UNIT = 3200  # adding a unit's sums up over warps, about 0.1 us
CLUSTERED_UNIT = 12800  # and over the blocks of a cluster
STAGED = 16000  # a barrier of the cluster more, where tokens are normed
SCATTERED = 0.25  # reading is so much slower where what is on its way lies in many rows rather than in eight
CACHE = 1.35  # how much faster than memory the L2 cache is


def shape_limits(in_size: int, out_size: int, dtype: str) -> str:
    """Why there is no such product here, or ""."""
    if dtype not in DTYPES:
        return f"{dtype} is not multiplied here, {' and '.join(DTYPES)} are"
    if in_size % 8 or out_size < LEAST:
        return f"{in_size} -> {out_size}: inputs must be a multiple of 8, outputs {LEAST} or more"
    return ""


@attrs.frozen(kw_only=True)
class GPU:
    multiprocessors: int
    most_shared: int  # bytes a block
    clusters: bool  # has clusters of blocks


@attrs.frozen(kw_only=True)
class Problem:
    """y [T, out_size] of x [T, in_size]; with ``gate``, weights have 2 ``out_size`` rows."""

    in_size: int
    out_size: int
    gate: bool = False
    scale_bytes: int = 0  # of an element of the norm's weight; 0: no norm
    tokens: int = 8  # 8, 16, 32 or 64: the most


@attrs.frozen(kw_only=True)
class Tiling:
    """The defines of cuda/small.cu (explained there), the blocks, and the shared memory they need."""

    warps: int
    tiles: int
    group: int
    cluster: int
    steps: int
    depth: int
    span: int
    once: bool
    stream: bool
    grid: int
    problem: Problem

    def shared(self, tokens: int) -> int:
        """Bytes a block needs."""
        inputs, sums = self.steps * self.warps * 32, self.tiles * tokens * 32
        ring = self.depth * self.warps * self.group * 512
        staged = 0 if self.stream else tokens * (inputs if inputs % 64 else inputs + 32) * 2
        exchanged = 4 * self.cluster * tokens + (2 * (sums + 8 * self.cluster) if self.cluster > 1 else 0)
        return ring + staged + inputs * self.problem.scale_bytes + max(128, self.warps * sums) + exchanged


def choose(problem: Problem, gpu: GPU) -> Tiling | None:
    """The cut with the least work on the busiest multiprocessor that fits, or None."""
    for cut in sorted(_cuts(problem, gpu)):
        if (found := _fit(problem, gpu, cut)) is not None:
            return found
    return None


@attrs.frozen(order=True)
class _Cut:
    cost: float  # bytes, as above
    groups: int  # of a unit
    group: int
    cluster: int
    clusters: int
    rounds: int  # units of a cluster
    stream: bool


def _cuts(p: Problem, gpu: GPU) -> Iterator[_Cut]:
    """Each that its registers and the way to shared memory allow."""
    sixteens = max(1, p.tokens // 16)
    for group, groups, cluster, stream in product(
        (1,) if p.tokens <= 8 else (1, 2, 3, 4, 6, 8, 12, 16),
        (1, 2, 3, 4, 6, 8, 12, 16),
        (1, 2, 4) if gpu.clusters else (1,),
        (False,) if p.scale_bytes else (False, True),
    ):
        tiles = group * groups
        height = 8 * tiles // (1 + p.gate)
        if tiles > 16 or height > p.out_size or (p.gate and (tiles % 2 or (tiles // 2 % group and groups > 1))):
            continue
        if group * sixteens * 4 > SUMS * (1 + stream) or (not stream and group < sixteens * 2 / 3.5):
            continue
        # Not all multiprocessors lie so that clusters of four can have them.
        at_once = max(1, gpu.multiprocessors // cluster - (cluster > 2))
        units = -(-p.out_size // height)
        rounds = -(-units // at_once)
        weights = rounds * tiles * 16 * p.in_size / cluster * (1 + SCATTERED * (1 - 1 / group))
        # The smallest size is for one token most of all.
        x = (p.tokens if p.tokens > 8 else 2) * p.in_size / cluster * 2
        streamed = rounds * groups * x if stream else 0
        # Staging is before everything else: a barrier, and the latency of one more reading.
        cost = max(weights, (weights + streamed) / CACHE) + (
            0 if stream else x * (1 + bool(p.scale_bytes)) / CACHE + UNIT
        )
        cost += rounds * (UNIT if cluster == 1 else CLUSTERED_UNIT)
        cost += STAGED if cluster > 1 and p.scale_bytes else 0
        yield _Cut(
            cost=cost,
            groups=groups,
            group=group,
            cluster=cluster,
            clusters=min(units, at_once),
            rounds=rounds,
            stream=stream,
        )


def _fit(p: Problem, gpu: GPU, cut: _Cut) -> Tiling | None:
    chunks = -(-p.in_size // (32 * cut.cluster))
    # The number of warps that shares the steps most evenly.
    warps = min(range(WARPS // 2, WARPS * 3 // 2 + 1), key=lambda w: (-(-chunks // w) * w, abs(w - WARPS), -w))
    steps = -(-chunks // warps)
    slot = warps * cut.group * 512  # bytes
    once = cut.rounds == 1 and steps * cut.groups * slot <= ONCE_LIMIT
    kept = steps * p.tokens // 2 <= KEPT and steps <= 12
    ahead = {8: 4, 16: 4, 32: 2, 64: 1}[p.tokens] if cut.stream else 4
    one = Tiling(
        warps=warps, tiles=cut.group * cut.groups, group=cut.group, cluster=cut.cluster, steps=steps,
        depth=steps * cut.groups if once else max(2, min(RING // slot, cut.rounds * cut.groups * steps)),
        span=steps if kept else _divisor(steps, ahead), once=once, stream=cut.stream,
        grid=cut.clusters * cut.cluster, problem=p,
    )  # fmt: skip
    while not one.once and one.depth > 2 and one.shared(p.tokens) > gpu.most_shared:
        one = attrs.evolve(one, depth=one.depth - 1)
    whole = cut.rounds * cut.groups * steps <= one.depth
    if one.shared(p.tokens) > gpu.most_shared or (
        one.depth * slot < min(LEAST_RING, gpu.most_shared // 4) and not whole
    ):
        return None
    return one


def _divisor(number: int, most: int) -> int:
    return max(d for d in range(1, max(1, min(number, most)) + 1) if number % d == 0)
