"""Rotary position embedding (arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.ops.table import op


@op
def rotary(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Rotate each pair of the first R elements of every head; the others pass through.

    x          [T, heads, D], heads at any stride; may be overwritten (callers use the result).
    cos, sin   float32 [T, R / 2], the rows of the tokens' positions, R <= D even.
    Pair i is (x[i], x[i + R/2]), or (x[2i], x[2i + 1]) if ``interleaved``; it becomes
    (a cos - b sin, b cos + a sin). Computed in float32 and rounded once.
    Query      head_dim=D, rotary_dim=R, interleaved.
    """
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    size = 2 * cos.shape[-1]
    # All of it to float32 at once: mixed operands are converted anew by every op.
    turned = (x[..., :size] if size < x.shape[-1] else x).to(torch.promote_types(x.dtype, cos.dtype))
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned.chunk(2, dim=-1)
    first = torch.addcmul(a * cos, b, sin, value=-1)
    second = torch.addcmul(b * cos, a, sin)
    if interleaved:
        out = torch.stack((first, second), dim=-1).flatten(-2)
    else:
        out = torch.cat((first, second), dim=-1)
    out = out.to(x.dtype)
    return out if size == x.shape[-1] else torch.cat((out, x[..., size:]), dim=-1)
