"""How many tokens a page holds in each cache group, so that all pages have the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import ceil, lcm
from types import MappingProxyType

from vllm_core.interfaces.cache import CacheSpec, RecurrentCache, SlidingWindowCache, TokenCache

TYPICAL_TOKENS = 4096
"""Length of the sequence whose bytes the choices minimise."""
SMALLEST_BLOCK = 16  # tokens; smaller pages cost more in tables than they save, unless somebody asks
LARGEST_BLOCK = 1024  # tokens tried where nobody says which sizes are accepted
CHECKPOINT_TOKENS = 512  # least distance between two checkpoints of a recurrent state
SECOND_CHOICE = 0.03  # of the memory: what a size that a backend does not like best must save
ALIGNMENT = 16  # bytes; pages begin at its multiples, so that any dtype and vector load fits

Accepted = Mapping[str | CacheSpec, Sequence[int]]
Stored = Mapping[CacheSpec, int]
"""Bytes a token where a page layout stores something else than numbers of the spec's dtype."""
NOTHING_ELSE: Stored = MappingProxyType({})


class CachePlanError(ValueError):
    """The declared caches cannot share a pool as asked."""


def bytes_of_sequence(spec: CacheSpec, stored: Stored = NOTHING_ELSE) -> int:
    """What one cache keeps of a typical sequence."""
    if isinstance(spec, RecurrentCache):
        return spec.bytes_per_state
    tokens = min(spec.window, TYPICAL_TOKENS) if isinstance(spec, SlidingWindowCache) else TYPICAL_TOKENS
    return tokens * _per_token(spec, stored)


def _per_token(spec: CacheSpec, stored: Stored) -> int:
    assert isinstance(spec, TokenCache)
    return stored.get(spec, spec.bytes_per_token)


def choose_sizes(
    counts: Mapping[CacheSpec, int], block_size: int | None, accepted: Accepted, stored: Stored = NOTHING_ELSE
) -> tuple[int, dict[CacheSpec, int]]:
    """Bytes of a page, and tokens a page for each spec. ``counts`` are groups of each spec.

    Tokens a page are inverse to bytes a token where accepted sizes allow it; the rest of a page
    is padding at its end. A recurrent state is one page, so pages grow until they hold one.
    Of all combinations the one wins in which a typical sequence takes the fewest bytes.
    """
    states = [spec for spec in counts if isinstance(spec, RecurrentCache)]
    others = (spec for spec in counts if spec not in states)
    tokens = sorted(others, key=lambda spec: _per_token(spec, stored), reverse=True)
    state_bytes = max((spec.bytes_per_state for spec in states), default=0)
    if not tokens:
        return _aligned(state_bytes), {spec: _distance(spec, 1, accepted) for spec in states}

    best: tuple[float, int, dict[CacheSpec, int]] | None = None
    for base in _base_sizes(tokens[0], block_size, accepted, state_bytes, stored):
        page_bytes = base * _per_token(tokens[0], stored)
        options = [[base], *(_sizes_within(spec, base, page_bytes, accepted, stored) for spec in tokens[1:])]
        if page_bytes < state_bytes:
            continue
        for chosen in product(*options):
            sizes = dict(zip(tokens, chosen, strict=True))
            cost = _cost(counts, sizes, page_bytes, accepted)
            if best is None or cost < best[0]:
                best = cost, page_bytes, sizes
    if best is None:
        raise CachePlanError(_no_size(counts, tokens, block_size, accepted, stored))
    _, page_bytes, sizes = best
    unit = lcm(*sizes.values())
    return _aligned(page_bytes), sizes | {spec: _distance(spec, unit, accepted) for spec in states}


def _accepted(spec: CacheSpec, accepted: Accepted) -> Sequence[int] | None:
    """Sizes that the spec's backend takes, best first; None: any."""
    return accepted.get(spec, accepted.get(spec.kind))


def _base_sizes(
    spec: CacheSpec, block_size: int | None, accepted: Accepted, state_bytes: int, stored: Stored
) -> Iterator[int]:
    sizes = _accepted(spec, accepted)
    if block_size is not None:
        yield from [block_size] if sizes is None or block_size in sizes else []
    elif sizes is not None:
        yield from sizes
    else:
        largest = max(LARGEST_BLOCK, state_bytes // _per_token(spec, stored) + SMALLEST_BLOCK)
        yield from range(SMALLEST_BLOCK, largest + 1, SMALLEST_BLOCK)


def _sizes_within(spec: CacheSpec, base: int, page_bytes: int, accepted: Accepted, stored: Stored) -> list[int]:
    """The fullest size, and the fullest that is a multiple of ``base`` (more prefixes then fit both)."""
    most = page_bytes // _per_token(spec, stored)
    sizes = _accepted(spec, accepted)
    fitting = sorted(size for size in (range(1, most + 1) if sizes is None else sizes) if size <= most)
    even = [size for size in fitting if size % base == 0]
    return sorted({*fitting[-1:], *even[-1:]})


def _cost(
    counts: Mapping[CacheSpec, int], sizes: Mapping[CacheSpec, int], page_bytes: int, accepted: Accepted
) -> float:
    pages = 0.0
    for spec, size in sizes.items():
        kept = min(spec.window, TYPICAL_TOKENS) if isinstance(spec, SlidingWindowCache) else TYPICAL_TOKENS
        pages += counts[spec] * (kept / size + 0.5)  # on average the last page is half full
    pages += sum(count for spec, count in counts.items() if isinstance(spec, RecurrentCache))
    unit = lcm(*sizes.values())  # prefixes are found in these steps
    second_choices = sum(size not in (_accepted(spec, accepted) or [size])[:1] for spec, size in sizes.items())
    return pages * page_bytes * (1 + unit / (2 * TYPICAL_TOKENS)) * (1 + SECOND_CHOICE * second_choices)


def _distance(spec: RecurrentCache, unit: int, accepted: Accepted) -> int:
    """Tokens between two checkpoints: a multiple of the pages' tokens if the kernels can do that."""
    sizes = _accepted(spec, accepted)
    if sizes is None:
        return ceil(CHECKPOINT_TOKENS / unit) * unit
    return min(sizes, key=lambda size: (size % unit != 0, size < CHECKPOINT_TOKENS, abs(size - CHECKPOINT_TOKENS)))


def _aligned(num_bytes: int) -> int:
    return ceil(num_bytes / ALIGNMENT) * ALIGNMENT


def _no_size(
    counts: Mapping[CacheSpec, int], tokens: list[CacheSpec], block_size: int | None, accepted: Accepted, stored: Stored
) -> str:
    """What every cache needs and takes, and what would do, as found by the same arithmetic."""
    lines = ["no number of tokens a cache page suits every cache of this model."]
    for spec in tokens:
        sizes = _accepted(spec, accepted)
        takes = "any number of" if sizes is None else ", ".join(map(str, sizes)) or "no"
        size = _per_token(spec, stored)
        lines.append(f"  {spec.kind:15} {size:,} bytes a token, its backend takes {takes} tokens a page")
    for spec in counts:
        if isinstance(spec, RecurrentCache):
            lines.append(f"  {spec.kind:15} {spec.bytes_per_state:,} bytes a state, all in one page")
    if block_size is not None:
        lines.append(f"  asked for       --block-size {block_size}")
        try:
            _, sizes_found = choose_sizes(counts, None, accepted, stored)
            lines.append(f"This works: --block-size {sizes_found[tokens[0]]}, or leave the flag out.")
            return "\n".join(lines)
        except CachePlanError:
            lines.append("No other --block-size works.")
    _, sizes_found = choose_sizes(counts, None, {}, stored)
    wanted = ", ".join(f"{sizes_found[spec]} ({spec.kind})" for spec in tokens)
    lines.append(f"An attention backend (--attention-backend) would do that takes these tokens a page: {wanted}.")
    return "\n".join(lines)
