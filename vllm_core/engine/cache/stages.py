"""The caches of one pipeline stage: groups and page numbers are the whole model's, tensors are its own layers'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from vllm_core.engine.cache.sizing import CachePlanError
from vllm_core.interfaces.cache import CachePlan, CacheSpec, DeclaredCache

__all__ = ["plan_of_stage", "stage_caches"]


def stage_caches(caches: CachePlan, declared: Sequence[DeclaredCache]) -> CachePlan:
    """What remains of the plan of all caches where only ``declared`` ones are.

    Page ids, block tables and block sizes stay as they are, so that one plan of a step serves all stages. A group
    may be left without caches; the longest one says how many tensors there are.
    """
    here = {cache.name for cache in declared}
    for cache in declared:
        if cache.shared_with is not None and cache.shared_with not in here:
            raise CachePlanError(
                f"{cache.name} reads the cache of {cache.shared_with}, which is on another pipeline stage.\n"
                "  instead --pipeline-layers that keep the two together, or --pipeline-parallel-size 1"
            )
    owned = {cache.name: cache.spec for cache in declared if cache.shared_with is None}
    known = {name: group.spec for group in caches.groups for name in group.names}
    for name, spec in owned.items():
        if known.get(name) != spec:
            raise CachePlanError(
                f"cache {name!r} is {spec} on this pipeline stage, and {known.get(name, 'not there')} in the plan of"
                " all stages"
            )
    groups = tuple(attrs.evolve(g, names=tuple(name for name in g.names if name in owned)) for g in caches.groups)
    return attrs.evolve(caches, groups=groups, num_tensors=max((len(g.names) for g in groups), default=0))


def plan_of_stage(caches: CachePlan) -> Callable[..., CachePlan]:
    """In the place of ``plan_caches`` on a stage: the plan was made, over all stages."""

    def plan(
        declared: Sequence[DeclaredCache],
        block_size: int | None = None,
        accepted_block_sizes: Mapping[str | CacheSpec, Sequence[int]] | None = None,
        stored: Mapping[CacheSpec, int] | None = None,
    ) -> CachePlan:
        return stage_caches(caches, declared)

    return plan
