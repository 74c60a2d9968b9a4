"""Attention over paged keys and values: the plain version, and with it the meaning of every option."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vllm_core.ops.table import op


@op
def paged_attention(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    block_table: Tensor,
    query_lens: Sequence[int],
    kv_lens: Tensor,
    kv_bounds: Sequence[int],
    *,
    scale: float,
    causal: bool = True,
    window: int | None = None,
    soft_cap: float | None = None,
    sinks: Tensor | None = None,
    lse: Tensor | None = None,
    head_axis: int = 2,
) -> Tensor:
    """softmax(q k^T * scale) v for S sequences whose keys and values lie in pages; [T, H, v_dim].

    q                  [T, H, k_dim], sequence after sequence; query i of a sequence with L cached
                       tokens and Q queries stands at position L - Q + i.
    k_pages, v_pages   [P, B, KV, dim] (``head_axis`` 2) or [P, KV, B, dim] (1); H a multiple of KV,
                       query head h reads KV head h // (H / KV).
    block_table        int32 [S, blocks]: token j of sequence s is in page block_table[s, j // B].
    query_lens         host, S lengths Q, sum T.
    kv_lens            int32 [S] on the device: L, this step's tokens included. Never read by the host.
    kv_bounds          host, S upper bounds of ``kv_lens``.
    causal             key j is seen from position p if j <= p (and, always, j < L).
    window             besides, only if p - j < window: tokens seen, the query's own included.
    soft_cap           scores become soft_cap * tanh(scores / soft_cap), before masking.
    sinks              [H]: one more logit a head that joins the softmax and adds no value.
    lse                float32 [T, H], to be filled with log(sum(exp(score))) over the keys that a query
                       sees, scaled and capped, and its head's sink; -inf where it sees none.
    Accumulates in float32 (float64 for float64 input). What lies in a page beyond L, or outside
    the window, is never used, not even a NaN. A query that sees no key gives zeros.
    """
    tokens, heads, _ = q.shape
    if head_axis == 1:
        k_pages, v_pages = k_pages.transpose(1, 2), v_pages.transpose(1, 2)
    block, kv_heads, v_dim = v_pages.shape[1:]
    groups = heads // kv_heads
    high = torch.promote_types(q.dtype, torch.float32)
    out = q.new_empty(tokens, heads, v_dim)
    start = 0
    for s, (count, bound) in enumerate(zip(query_lens, kv_bounds, strict=True)):
        if count == 0:
            continue
        stop = start + count
        pages = block_table[s, : -(-bound // block)].long()
        keys = torch.arange(len(pages) * block, device=q.device)
        positions = kv_lens[s] - count + torch.arange(count, device=q.device)
        seen = (keys < kv_lens[s]).expand(count, -1)  # [Q, L]
        if causal:
            seen = seen & (keys <= positions[:, None])
        if window is not None:
            seen = seen & (positions[:, None] - keys < window)
        k = k_pages[pages].flatten(0, 1).to(high)  # [L, KV, k_dim]
        v = v_pages[pages].flatten(0, 1).to(high).masked_fill(~seen.any(0)[:, None, None], 0)
        query = q[start:stop].to(high).unflatten(1, (kv_heads, groups))
        scores = torch.einsum("qkgd,lkd->kgql", query, k) * scale
        if soft_cap is not None:
            scores = soft_cap * torch.tanh(scores / soft_cap)
        scores = scores.masked_fill(~seen, float("-inf"))
        if sinks is not None:
            sink = sinks.to(high).view(kv_heads, groups, 1, 1).expand(-1, -1, count, 1)
            scores = torch.cat((scores, sink), dim=-1)
        # The row of a query that sees nothing is all -inf, and its softmax NaN.
        if lse is not None:
            total = torch.logsumexp(scores, -1).masked_fill(~seen.any(1), float("-inf"))  # [KV, G, Q]
            lse[start:stop] = total.flatten(0, 1).T
        weights = torch.softmax(scores, dim=-1)[..., : len(keys)].masked_fill(~seen.any(1, keepdim=True), 0)
        out[start:stop] = torch.einsum("kgql,lkd->qkgd", weights, v).flatten(1, 2).to(q.dtype)
        start = stop
    return out
