"""What a layer may keep between steps: the five kinds of cache, as plain data. No torch.

A layer declares its caches by name while it is bound. Caches with equal specs form groups;
each group has its own block table; pages have the same number of bytes in every group, so
one pool serves all of them.
"""

from __future__ import annotations

from math import prod
from typing import ClassVar

import attrs

BYTES = {
    "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1, "uint8": 1,
    "int32": 4, "float64": 8,
}  # fmt: skip


@attrs.frozen
class TokenCache:
    """A cache that grows with the sequence: so many bytes a token."""

    kind: ClassVar[str]

    @property
    def bytes_per_token(self) -> int:
        raise NotImplementedError


@attrs.frozen(kw_only=True)
class FullAttentionCache(TokenCache):
    """Keys and values of every token."""

    kind: ClassVar[str] = "full"
    num_kv_heads: int
    k_dim: int
    v_dim: int
    dtype: str

    @property
    def bytes_per_token(self) -> int:
        return self.num_kv_heads * (self.k_dim + self.v_dim) * BYTES[self.dtype]


@attrs.frozen(kw_only=True)
class SlidingWindowCache(FullAttentionCache):
    """As full attention, but only the last ``window`` tokens (the query's own included) are read."""

    kind: ClassVar[str] = "sliding_window"
    window: int


@attrs.frozen(kw_only=True)
class LatentCache(TokenCache):
    """One compressed vector a token, shared by all heads (MLA, arXiv 2405.04434)."""

    kind: ClassVar[str] = "latent"
    latent_dim: int
    rope_dim: int
    dtype: str

    @property
    def bytes_per_token(self) -> int:
        return (self.latent_dim + self.rope_dim) * BYTES[self.dtype]


@attrs.frozen(kw_only=True)
class CrossAttentionCache(FullAttentionCache):
    """Keys and values of the encoder's output: written once, its length fixed at admission."""

    kind: ClassVar[str] = "cross"


@attrs.frozen(kw_only=True)
class RecurrentCache:
    """A state of fixed size (Mamba, linear attention): replaced by every token, not appended to.

    ``shapes`` and ``dtypes`` list its tensors. A checkpoint of the state is kept at multiples
    of the group's block size for prefix hits; K drafts need K rollback states.
    """

    kind: ClassVar[str] = "recurrent"
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    @property
    def bytes_per_state(self) -> int:
        return sum(prod(shape) * BYTES[dtype] for shape, dtype in zip(self.shapes, self.dtypes, strict=True))


CacheSpec = FullAttentionCache | SlidingWindowCache | LatentCache | CrossAttentionCache | RecurrentCache


@attrs.frozen(kw_only=True)
class DeclaredCache:
    """A layer's declaration. ``shared_with`` names another cache that this one reads and never owns."""

    name: str  # dotted path of the layer, with a suffix if it has several
    spec: CacheSpec
    shared_with: str | None = None


@attrs.frozen(kw_only=True)
class CacheGroup:
    """Caches with one block table. ``names[j]`` lives in page tensor j."""

    index: int
    spec: CacheSpec
    names: tuple[str, ...]
    block_size: int  # tokens a page; for recurrent caches the distance of checkpoints


@attrs.frozen(kw_only=True)
class CachePlan:
    """How all caches of a model share one pool: tensor j holds ``[num_pages, page_bytes]`` bytes."""

    groups: tuple[CacheGroup, ...]
    page_bytes: int
    num_tensors: int  # the largest group's number of caches

    @property
    def bytes_per_page(self) -> int:
        """Bytes that one page id stands for, over all tensors."""
        return self.page_bytes * self.num_tensors
