"""Pieces of attention work: what a step repeats in every layer, prepared once."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Buffer = Callable[[str, Tensor, Tensor], Tensor]
"""(name, pages, index) -> the pages at ``index``, in memory that the next call of that name overwrites."""


@attrs.frozen(kw_only=True)
class Work:
    """S sequences with Q queries each, padded to L keys."""

    rows: slice | Tensor  # which of the step's T tokens these are: S * Q of them
    sequences: int  # S
    queries: int  # Q
    keys: int  # L
    mask: Tensor | None  # added to scores: [S, 1, Q, L], or [S, 1, G * Q, L] if ``fold``
    fold: bool  # queries of one KV head, G heads times Q, side by side
    causal: bool = False  # Q == L and each query sees the keys up to its own

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q [S * Q, H, D]; k, v [S, KV, L, D] -> [S * Q, H, D]."""
        size, heads, dim = q.shape
        if not self.fold:
            q = q.view(self.sequences, self.queries, heads, dim).transpose(1, 2)
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=self.mask, is_causal=self.causal, scale=scale, enable_gqa=heads != k.shape[1]
            )
            return out.transpose(1, 2).reshape(size, heads, dim)
        # The kernel works by head: one KV head's queries together read its keys once.
        kv_heads = k.shape[1]
        group = heads // kv_heads
        if self.queries == 1:
            folded = q.unflatten(1, (kv_heads, group))
        else:
            folded = q.view(self.sequences, self.queries, kv_heads, group, dim).permute(0, 2, 3, 1, 4)
            folded = folded.reshape(self.sequences, kv_heads, group * self.queries, dim)
        out = scaled_dot_product_attention(folded, k, v, attn_mask=self.mask, scale=scale)
        if self.queries == 1:
            return out.reshape(size, heads, dim)
        out = out.unflatten(2, (group, self.queries)).permute(0, 3, 1, 2, 4)
        return out.reshape(size, heads, dim)


@attrs.frozen(kw_only=True)
class InPlace(Work):
    """One sequence whose pages lie in a row."""

    first: int  # place of its first key, counted in tokens over all pages

    def run(self, q: Tensor, k_pages: Tensor, v_pages: Tensor, scale: float, buffer: Buffer) -> Tensor:
        return self.attend(q, self._view(k_pages), self._view(v_pages), scale)

    def _view(self, pages: Tensor) -> Tensor:
        """[P, B, KV, D] -> [1, KV, L, D], without a copy unless pages end in padding."""
        page, token, head, one = pages.stride()
        block = pages.shape[1]
        if page != block * token:
            stop = -(-(self.first + self.keys) // block)
            return pages[self.first // block : stop].flatten(0, 1)[: self.keys].transpose(0, 1).unsqueeze(0)
        shape = (1, pages.shape[2], self.keys, pages.shape[3])
        return pages.as_strided(shape, (0, head, token, one), pages.storage_offset() + self.first * token)


@attrs.frozen(kw_only=True)
class Gathered(Work):
    """Sequences whose pages are copied next to each other first."""

    pages: Tensor  # int64 [S * blocks]
    unwritten: Tensor | None  # int64, keys of the copy (of S * blocks * B) that belong to no token of the sequence
    room: int  # blocks * B
    joint: bool  # a token's values follow its keys: one copy takes both

    def run(self, q: Tensor, k_pages: Tensor, v_pages: Tensor, scale: float, buffer: Buffer) -> Tensor:
        num_pages, block, kv_heads, dim = k_pages.shape
        if self.joint:
            rows = k_pages.as_strided((num_pages, block * 2 * kv_heads * dim), (k_pages.stride(0), 1))
            both = self._copy("kv", rows, buffer).unflatten(2, (2, kv_heads, dim))
            k, v = both[:, :, 0], both[:, :, 1]
        else:
            k = self._copy("k", k_pages.flatten(2), buffer).unflatten(2, (kv_heads, dim))
            v = self._copy("v", v_pages.flatten(2), buffer).unflatten(2, (kv_heads, dim))
        return self.attend(q, k.transpose(1, 2), v.transpose(1, 2), scale)

    def _copy(self, name: str, pages: Tensor, buffer: Buffer) -> Tensor:
        """pages [P, ...] of B tokens -> [S, L, elements of a token]."""
        tokens = buffer(name, pages, self.pages).view(self.sequences, self.room, -1)
        if self.unwritten is not None:
            # A masked score is -inf and its weight 0, but 0 * NaN is NaN, and a page may hold anything.
            tokens.flatten(0, 1).index_fill_(0, self.unwritten, 0)
        return tokens[:, : self.keys]
