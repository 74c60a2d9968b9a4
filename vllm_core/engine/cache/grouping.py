"""From the caches that layers declared to groups that share one pool of equal pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from vllm_core.engine.cache.sizing import NOTHING_ELSE, CachePlanError, Stored, bytes_of_sequence, choose_sizes
from vllm_core.interfaces.cache import CacheGroup, CachePlan, CacheSpec, DeclaredCache

GROUP_COST = 0.01
"""What another group costs (a block table, metadata each step), as a share of the cache's bytes."""


def plan_caches(
    declared: Sequence[DeclaredCache],
    block_size: int | None = None,
    accepted_block_sizes: Mapping[str | CacheSpec, Sequence[int]] | None = None,
    stored: Stored = NOTHING_ELSE,
) -> CachePlan:
    """Put caches with equal specs into groups and choose how many tokens a page of each holds.

    block_size            Tokens a page of the caches with the most bytes a token; None: choose.
    accepted_block_sizes  What backends take, best first, by spec or else by kind ("full",
                          "recurrent", ...). A kind that is missing takes any size.
    stored                Bytes a token of specs that a page layout stores in its own way.

    Raises ``CachePlanError``, a ``ValueError``, saying which sizes would work.
    """
    owners = owner_names(declared)
    by_spec: dict[CacheSpec, list[str]] = {}
    for cache in declared:
        if owners[cache.name] == cache.name:
            by_spec.setdefault(cache.spec, []).append(cache.name)
    if not by_spec:
        return CachePlan(groups=(), page_bytes=0, num_tensors=0)

    size = group_size({spec: len(names) for spec, names in by_spec.items()}, stored)
    counts = {spec: ceil(len(names) / size) for spec, names in by_spec.items()}
    page_bytes, sizes = choose_sizes(counts, block_size, accepted_block_sizes or {}, stored)
    groups: list[CacheGroup] = []
    for spec, names in by_spec.items():
        for start in range(0, len(names), size):
            part = tuple(names[start : start + size])
            groups.append(CacheGroup(index=len(groups), spec=spec, names=part, block_size=sizes[spec]))
    return CachePlan(groups=tuple(groups), page_bytes=page_bytes, num_tensors=max(len(g.names) for g in groups))


def owner_names(declared: Sequence[DeclaredCache]) -> dict[str, str]:
    """For every declared cache, the one whose pages it uses: its own name, or that of another."""
    by_name: dict[str, DeclaredCache] = {}
    for cache in declared:
        if cache.name in by_name:
            raise CachePlanError(f"cache {cache.name!r} is declared twice; a layer with several gives each a suffix")
        by_name[cache.name] = cache
    owners = {}
    for cache in declared:
        owner, passed = cache, [cache.name]
        while owner.shared_with is not None:
            if owner.shared_with not in by_name:
                raise CachePlanError(
                    f"cache {owner.name!r} is shared with {owner.shared_with!r}, which no layer declares; "
                    f"declared are {', '.join(sorted(by_name))}"
                )
            owner = by_name[owner.shared_with]
            if owner.name in passed:
                raise CachePlanError(
                    f"caches {' -> '.join([*passed, owner.name])} share each other and nobody owns one"
                )
            passed.append(owner.name)
        if owner.spec != cache.spec:
            raise CachePlanError(
                f"cache {cache.name!r} cannot share {owner.name!r}: it is {cache.spec}, the owner's is {owner.spec}"
            )
        owners[cache.name] = owner.name
    return owners


def group_size(counts: Mapping[CacheSpec, int], stored: Stored = NOTHING_ELSE) -> int:
    """How many caches a group has at most, so that little of a page id's tensors lies idle.

    A page id stands for one page in each of ``size`` tensors, whether its group fills them all or
    not. 10 full and 50 sliding-window caches make 1 + 5 groups of 10.
    """
    weights = {spec: bytes_of_sequence(spec, stored) for spec in counts}
    used = sum(weights[spec] * count for spec, count in counts.items())

    def cost(size: int) -> float:
        groups = {spec: ceil(count / size) for spec, count in counts.items()}
        taken = sum(weights[spec] * groups[spec] * size for spec in counts)
        return taken / used + GROUP_COST * sum(groups.values())

    return min(range(1, max(counts.values()) + 1), key=cost)
