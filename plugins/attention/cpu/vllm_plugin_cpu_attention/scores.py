"""Attention of one piece of work with the logarithm of its softmax's sum, which torch's public function keeps back.

q [S, KV, G, Q, D] are the G query heads of each key/value head, k and v [S, KV, L, D];
results are [S, KV, G, Q, v_dim] and float32 [S, KV, G, Q].
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORES_BYTES = 8 << 20  # of scores at a time, where they are made in memory


def flash(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, fold: bool, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Through torch's kernel. ``mask`` [S, 1, G * Q, L] if ``fold``, else [1, 1, Q, L]; D == v_dim."""
    shape = q.shape[:-1]
    if fold:
        q = q.flatten(2, 3)  # one KV head's queries together read its keys once
    else:
        q = q[0]  # one sequence: KV heads stand where the kernel has a batch, and a group reads the same keys
        k, v = (x[0].unsqueeze(1).expand(-1, q.shape[1], -1, -1) for x in (k, v))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
    return out.reshape(*shape, -1), lse.reshape(shape)


def capped(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float, cap: float
) -> tuple[Tensor, Tensor]:
    """Scores become cap * tanh(scores / cap), which the kernel cannot: they are made in memory, in float32."""
    size, kv_heads, group, queries, _ = q.shape
    length, dtype = k.shape[2], q.dtype
    out = torch.empty((*q.shape[:-1], v.shape[-1]), dtype=dtype)
    lse = torch.empty(q.shape[:-1])
    k, v = k.float(), v.float()
    chunk = max(1, SCORES_BYTES // (4 * size * kv_heads * group * length))
    for start in range(0, queries, chunk):
        stop = min(queries, start + chunk)
        seen = stop if causal else length  # keys that any of these queries sees
        part = q[:, :, :, start:stop].float().flatten(2, 3)
        scores = torch.matmul(part, k[:, :, :seen].mT).unflatten(2, (group, stop - start))
        scores.mul_(scale / cap).tanh_().mul_(cap)
        if mask is not None:  # its first Q rows: the others repeat them for each head of a group
            scores += mask[:, :, None, start:stop, :seen]
        elif causal:
            scores.masked_fill_(torch.arange(seen) > torch.arange(start, stop)[:, None], float("-inf"))
        total = torch.logsumexp(scores, -1, keepdim=True)
        weights = scores.sub_(total).exp_().flatten(2, 3)
        out[:, :, :, start:stop] = torch.matmul(weights, v[:, :, :seen]).unflatten(2, (group, stop - start)).to(dtype)
        lse[:, :, :, start:stop] = total.squeeze(-1)
    return out, lse
