"""A piece of attention work: what a step repeats in every layer, prepared once."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from vllm_plugin_cpu_attention.scores import capped, flash

Buffer = Callable[[str, Tensor, Tensor], Tensor]
"""(name, pages, index) -> the pages at ``index``, in memory that the next call of that name overwrites."""


@attrs.frozen(kw_only=True)
class Work:
    """S sequences with Q queries each, padded to L keys.

    Their pages are copied next to each other first. Reading pages where they lie would need
    tokens at one stride across pages, and torch's kernel then reads each head of a token from
    elsewhere: it was slower than the copy at 1,000 and at 4,000 keys.
    """

    rows: slice | Tensor  # which of the step's T tokens these are: S * Q of them
    sequences: int  # S
    queries: int  # Q
    keys: int  # L
    mask: Tensor | None  # added to scores: [S, 1, Q, L], or [S, 1, G * Q, L] if ``fold``
    fold: bool  # queries of one KV head, G heads times Q, side by side; without it S is 1
    causal: bool  # Q == L and each query sees the keys up to its own
    pages: Tensor  # int64 [S * blocks]
    room: int  # keys of a sequence in the copy: blocks * B
    unwritten: Tensor | None  # int64, keys of the copy (of S * blocks * B) that belong to no token of the sequence

    def run(self, q: Tensor, k_pages: Tensor, v_pages: Tensor, scale: float, buffer: Buffer) -> Tensor:
        """q [S * Q, H, D]; pages [P, B, KV, D] -> [S * Q, H, D]."""
        return self.attend(q, self._copy("k", k_pages, buffer), self._copy("v", v_pages, buffer), scale)

    def run_with_lse(
        self, q: Tensor, k_pages: Tensor, v_pages: Tensor, scale: float, soft_cap: float | None, buffer: Buffer
    ) -> tuple[Tensor, Tensor]:
        """The same, values of any size -> [S * Q, H, v_dim] and float32 log-sum-exp [S * Q, H]."""
        heads, kv_heads, v_dim = q.shape[1], k_pages.shape[2], v_pages.shape[3]
        k, v = self._copy("k", k_pages, buffer), self._copy("v", v_pages, buffer)
        q = q.view(self.sequences, self.queries, kv_heads, heads // kv_heads, -1).permute(0, 2, 3, 1, 4)
        if soft_cap is None:
            q, k, v = same_size(q, k, v)
            out, lse = flash(q, k, v, self.mask, self.fold, self.causal, scale)
        else:
            out, lse = capped(q, k, v, self.mask, self.causal, scale, soft_cap)
        # [S, KV, G, Q, ...] -> tokens, heads
        out = out[..., :v_dim].permute(0, 3, 1, 2, 4).reshape(-1, heads, v_dim)
        return out, lse.permute(0, 3, 1, 2).reshape(-1, heads)

    def _copy(self, name: str, pages: Tensor, buffer: Buffer) -> Tensor:
        """pages [P, B, KV, D] -> [S, KV, L, D]."""
        # A page's keys are one row: the copy is fastest when it need not look inside.
        tokens = buffer(name, pages.flatten(1), self.pages).view(-1, *pages.shape[2:])
        if self.unwritten is not None:
            # A masked score is -inf and its weight 0, but 0 * NaN is NaN, and a page may hold anything.
            tokens.index_fill_(0, self.unwritten, 0)
        return tokens.unflatten(0, (self.sequences, self.room))[:, : self.keys].transpose(1, 2)

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


def same_size(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros at the end of the smaller heads: scores stay as they are, and so does what is left of the result."""
    more = k.shape[-1] - v.shape[-1]
    if more < 0:
        return pad(q, (0, -more)), pad(k, (0, -more)), v
    return (q, k, pad(v, (0, more))) if more else (q, k, v)
