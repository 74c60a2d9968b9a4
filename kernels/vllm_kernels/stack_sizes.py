"""Sizes of the kernel that is all decoder layers: what it is compiled with, and the memory it needs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

WARPS = 8  # that compute
TILE_BYTES = 8 * (2 * 1024 + 64)  # of weights: 8 rows of 1,024 columns, padded
MOST_SHARED = 227 * 1024  # bytes a block may have on sm_90
FEWEST_STAGES = 3
# Most tokens of a step that a variant is compiled for; with more, kernels one by one are faster.
SMALL_VARIANTS, LARGE_VARIANTS = (1,), (1, 4)
SPLIT = 128  # cached tokens that are worth a block of their own
SMALL_LAYER = 40 << 20  # bytes of weights
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh")
MOST_SPLITS = 32


@attrs.frozen(kw_only=True)
class StackShape:
    """Of one rank, in elements and heads."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    rotary: int  # elements of a head that are rotated, 0: none
    interleaved: bool
    qk_norm: bool
    act: int  # index in ACTIVATIONS

    @classmethod
    def of(cls, shape: Mapping[str, Any]) -> StackShape:
        """From the shape of a query for ``decoder_stack``."""
        return cls(
            layers=shape["layers"],
            hidden=shape["attention.hidden"],
            heads=shape["attention.heads"],
            kv_heads=shape["attention.kv_heads"],
            head_dim=shape["attention.head_dim"],
            intermediate=shape["mlp.intermediate"],
            rotary=shape["attention.rotary_dim"] or 0,
            interleaved=shape["attention.interleaved"],
            qk_norm=shape["attention.qk_norm"] is not None,
            act=ACTIVATIONS.index(shape["mlp.act"]),
        )

    @property
    def fewest_units(self) -> int:
        """Pairs of outputs of the smallest product: the most blocks that all have work."""
        return min(self.hidden, (self.heads + 2 * self.kv_heads) * self.head_dim, self.intermediate) // 2

    def fixed_bytes(self, tokens: int) -> int:
        """Shared memory of a block less its ring of tiles."""
        group, batch = self.heads // self.kv_heads, 8 if tokens == 1 else 4
        x = tokens * max(_pitch(self.heads * self.head_dim), _pitch(self.hidden), _pitch(self.intermediate))
        attention = 4 * (2 * (group + 2) * self.head_dim + WARPS * group * (self.head_dim + 2))
        partial = 2 * batch * (WARPS * tokens + 1) * 8 * 4
        others = 112 + self.layers * 112
        others += tokens * (28 * self.kv_heads + 2 * self.hidden + 8 * (self.rotary // 2 + 1) + 4 * WARPS + 16)
        return partial + others + max(x, attention) + 4 * 128  # what alignment takes

    def stages(self, tokens: int) -> int:
        """Tiles that fit into the ring beside the rest."""
        return (MOST_SHARED - self.fixed_bytes(tokens)) // (TILE_BYTES + 16)

    def shared_bytes(self, tokens: int) -> int:
        return self.fixed_bytes(tokens) + self.stages(tokens) * (TILE_BYTES + 16)

    def words(self, tokens: int) -> int:
        """Of 8 bytes, in global memory, through which blocks exchange results."""
        heads = self.heads * self.head_dim
        results = 2 * heads + 2 * self.kv_heads * self.head_dim + 2 * self.hidden + self.intermediate
        partial = self.heads * MOST_SPLITS * (self.head_dim + 2)
        return 16 + tokens * (results // 2 + partial)

    @property
    def is_small(self) -> bool:
        """Whether a layer's weights are read within the time that its exchanges take."""
        heads = self.heads * self.head_dim
        qkv = heads + 2 * self.kv_heads * self.head_dim
        return 2 * (self.hidden * (qkv + heads) + 3 * self.hidden * self.intermediate) < SMALL_LAYER

    @property
    def window(self) -> int:
        """Tiles on their way to a block at a time; one gives half the bandwidth, and exchanges are faster beside it."""
        return 1 if self.is_small else 3

    def variants(self) -> list[int]:
        """Most tokens of each variant whose ring keeps memory busy."""
        sizes = SMALL_VARIANTS if self.is_small else LARGE_VARIANTS
        return [tokens for tokens in sizes if self.stages(tokens) >= FEWEST_STAGES]

    def defines(self, tokens: int) -> dict[str, int]:
        return {
            "LAYERS": self.layers,
            "HIDDEN": self.hidden,
            "HEADS": self.heads,
            "KV_HEADS": self.kv_heads,
            "HEAD_DIM": self.head_dim,
            "INTERMEDIATE": self.intermediate,
            "ROTARY": self.rotary,
            "INTERLEAVED": int(self.interleaved),
            "QK_NORM": int(self.qk_norm),
            "ACT": self.act,
            "TOKENS": tokens,
            "STAGES": self.stages(tokens),
            "SHARED": self.shared_bytes(tokens),
            "WINDOW": self.window,
            "SPLIT": SPLIT,
        }


def _pitch(columns: int) -> int:
    """Bytes between rows of activations: 64 modulo 128, so that rows lie in different banks."""
    return 2 * columns + (0 if 2 * columns % 128 else 64)
