"""How large pages may be: what attention backends take, and what page layouts of plugins need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from vllm_core.engine.cache.sizing import SMALLEST_BLOCK
from vllm_core.interfaces.cache import CacheSpec, DeclaredCache
from vllm_core.layers.page_layouts import LAYOUTS
from vllm_core.plugins.errors import PluginError

__all__ = ["Layouts", "accepted_sizes", "stored_bytes"]

Layouts = dict[CacheSpec, tuple[str, Any]]
"""Of caches that are attended to: the layout's name, and a ``CacheLayout``."""


def accepted_sizes(chosen: Mapping[str, Any], known: Mapping[str, DeclaredCache]) -> dict[CacheSpec, list[int]]:
    """For each spec, the block sizes that all backends reading it accept, in the first one's order."""
    readers: dict[CacheSpec, dict[str, tuple[int, ...]]] = {}
    for path, winner in chosen.items():
        if winner.block_sizes is not None:
            readers.setdefault(known[path].spec, {})[winner.name] = winner.block_sizes
    found = {}
    for spec, limits in readers.items():
        first, *others = limits.values()
        found[spec] = [size for size in first if all(size in other for other in others)]
        if not found[spec]:
            listed = "; ".join(f'"{name}" takes {", ".join(map(str, sizes))}' for name, sizes in limits.items())
            raise PluginError(f"the attention backends of {spec.kind} caches share no block size.", known=listed)
    return found


def stored_bytes(
    layouts: Layouts, block_size: int | None, accepted: Mapping[CacheSpec, Sequence[int]]
) -> dict[CacheSpec, int]:
    """Bytes a token in layouts of plugins, in the smallest pages that there may be."""
    found = {}
    for spec, (name, layout) in layouts.items():
        if name not in LAYOUTS:
            tokens = block_size or min(accepted.get(spec, ()), default=SMALLEST_BLOCK)
            found[spec] = ceil(layout.page_bytes(spec, tokens) / tokens)
    return found
