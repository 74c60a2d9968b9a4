"""The contract of attention backends: paged, ragged, prefill and decode in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@attrs.frozen(kw_only=True)
class AttentionConfig:
    """One group of attention layers that share a backend instance."""

    num_heads: int  # of this rank
    num_kv_heads: int  # of this rank
    k_dim: int
    v_dim: int
    scale: float  # scores are q . k * scale
    causal: bool = True
    window: int | None = None  # tokens a query sees, itself included
    soft_cap: float | None = None  # scores become cap * tanh(scores / cap)
    sinks: bool = False  # a learned extra logit a head joins the softmax and adds no value
    dtype: torch.dtype
    kv_dtype: torch.dtype
    device: torch.device
    block_size: int  # tokens a page
    page_layout: str  # "NHD": [page, token, head, dim]; "HND": [page, head, token, dim]; or a plugin's
    options: Mapping[str, Any] = attrs.field(factory=dict, eq=False)  # of the offer that won


@attrs.define(slots=True, kw_only=True)
class AttentionStep:
    """One step as one cache group sees it: S sequences, T tokens in all, sequence after sequence.

    Tensors are on the device; the host lists are exact for query lengths and upper bounds for
    cache lengths (drafts may have been rejected), so a kernel must take lengths from ``kv_lens``.

    ``static``: the step is captured into a graph that runs again with other lengths in the same
    tensors. Then the host lists are empty, sequences may have no query at all, and only T, S, the
    two largest lengths and what the device knows may be used; asked only of backends with the
    capabilities "graph" and "device_metadata".
    """

    num_tokens: int  # T
    query_lens: Sequence[int]  # host, S entries, sum = T
    kv_bounds: Sequence[int]  # host, S entries
    query_starts: Tensor  # int32 [S + 1]
    kv_lens: Tensor  # int32 [S], this step's tokens included
    block_table: Tensor  # int32 [S, blocks], page of each block; NULL_PAGE where freed
    slots: Tensor  # int64 [T], page * block_size + offset that token t is written to; 0 in recurrent and cross groups
    longest_query: int = attrs.field()  # tokens; bound of query lengths; 1: nobody has more (or, if static, fewer)
    longest_kv: int = attrs.field()  # tokens; bound of kv_lens
    static: bool = False

    @longest_query.default
    def _of_queries(self) -> int:
        return max(self.query_lens, default=0)

    @longest_kv.default
    def _of_bounds(self) -> int:
        return max(self.kv_bounds, default=0)


class AttentionBackend(Protocol):
    """Made once a cache group of an engine. ``begin_step`` runs once a step, ``attend`` once a layer."""

    def __init__(self, config: AttentionConfig) -> None: ...

    def begin_step(self, step: AttentionStep) -> Any:
        """Metadata for ``attend``: whatever saves work shared by the group's layers."""

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, Tensor], step: AttentionStep) -> None:
        """Store k [T, KV, k_dim] and v [T, KV, v_dim] at ``step.slots``."""

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, Tensor],
        step: AttentionStep,
        metadata: Any,
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor:
        """Attention of q [T, H, k_dim] over the pages; returns [T, H, v_dim].

        The i-th query of a sequence with L cached tokens and Q queries stands at position
        L - Q + i. ``pages`` are views [P, ...] of keys and values in ``page_layout``.

        ``lse``: float32 [T, H], given only to backends whose offer has the capability "lse", and
        filled with the natural logarithm of the sum of exp(score) over the keys that a query
        sees: scores scaled and capped, the head's sink counted as one more. -inf where it sees none.

        Whatever lies in a page beyond L, behind the window or in NULL_PAGE is never used, not even a
        NaN, and nothing but the result and ``lse`` is changed.
        """


class BoundAttention(Protocol):
    """What a layer keeps: its backend, its pages and its group, ready to call.

    A fused layer may take it apart: ``backend.attend(q, pages, *of(batch))`` is what a call does
    after writing.
    """

    backend: Any  # AttentionBackend
    pages: tuple[Tensor, ...]  # another tuple when the caches were made anew
    layout: str  # of the pages: in "NHD" and "HND" a layer may write them itself, as ``backend.write`` does

    def of(self, batch: Any) -> tuple[AttentionStep, Any]:
        """This layer's view of the step, and its backend's metadata."""

    def __call__(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, batch: Any, sinks: Tensor | None = None
    ) -> Tensor:
        """Write k and v (None: another layer already did), attend; [T, H, v_dim]."""
