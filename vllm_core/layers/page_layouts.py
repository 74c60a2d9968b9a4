"""How keys and values lie in raw cache pages: the two layouts that the core knows."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.cache import BYTES, CacheSpec, FullAttentionCache

LAYOUTS = ("NHD", "HND")


class HeadLayout:
    """``CacheLayout``: the keys of a page's tokens, then the values.

    "NHD": views [P, block, heads, dim]; "HND": views [P, heads, block, dim].
    """

    def __init__(self, layout: str) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"page layout {layout!r} is not one of the core's, which are {', '.join(LAYOUTS)}")
        self.layout = layout

    def page_bytes(self, spec: CacheSpec, block_size: int) -> int:
        return attention_spec(spec).bytes_per_token * block_size

    def views(self, pages: Tensor, spec: CacheSpec, block_size: int) -> tuple[Tensor, Tensor]:
        """pages uint8 [P, page_bytes] -> keys, values."""
        spec = attention_spec(spec)
        heads, size = spec.num_kv_heads, BYTES[spec.dtype]
        k_bytes, v_bytes = (block_size * heads * dim * size for dim in (spec.k_dim, spec.v_dim))
        found = []
        for part, dim in ((pages[:, :k_bytes], spec.k_dim), (pages[:, k_bytes : k_bytes + v_bytes], spec.v_dim)):
            shape = (block_size, heads, dim) if self.layout == "NHD" else (heads, block_size, dim)
            found.append(part.view(getattr(torch, spec.dtype)).unflatten(1, shape))
        return found[0], found[1]


def attention_spec(spec: CacheSpec) -> FullAttentionCache:
    """``spec`` if it holds keys and values of heads, else ``TypeError``."""
    if not isinstance(spec, FullAttentionCache):
        raise TypeError(f"a {spec.kind} cache has no keys and values of heads; its pages need a layout of their own")
    return spec
