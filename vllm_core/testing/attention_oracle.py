"""What attention backends are held against: softmax in float64, over keys that were never in pages."""

from __future__ import annotations

import torch
from torch import Tensor


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    causal: bool,
    window: int | None,
    soft_cap: float | None,
    sinks: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One sequence, its last Q of L tokens as queries: q [Q, H, k_dim], k [L, KV, k_dim], v [L, KV, v_dim], sinks [H].

    Returns [Q, H, v_dim] and the logarithms of the sums of exp(score), [Q, H], all float64.
    """
    length, group = len(k), q.shape[1] // k.shape[1]
    q, k, v = (x.double().transpose(0, 1) for x in (q, k, v))  # heads first
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)  # query head h reads KV head h // group
    scores = q @ k.mT * scale  # [H, Q, L]
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    position = torch.arange(length - q.shape[1], length, device=q.device)[:, None]
    behind = position - torch.arange(length, device=q.device)  # keys after the query: below 0
    if causal:
        scores = scores.masked_fill(behind < 0, -torch.inf)
    if window is not None:
        scores = scores.masked_fill(behind >= window, -torch.inf)
    total = torch.logsumexp(scores, -1)
    if sinks is not None:
        total = torch.logaddexp(total, sinks.double()[:, None])
    out = torch.exp(scores - total[..., None]) @ v
    return out.transpose(0, 1), total.T
