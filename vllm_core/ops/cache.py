"""Storing keys and values in pages, and copying pages."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.ops.table import op


@op
def write_kv(k: Tensor, v: Tensor, k_pages: Tensor, v_pages: Tensor, slots: Tensor, head_axis: int = 2) -> None:
    """Put token t's keys and values into slot ``slots[t]``, page ``slots[t] // B``, place ``slots[t] % B``.

    k, v               [T, KV, k_dim] and [T, KV, v_dim]; heads at any stride.
    k_pages, v_pages   [P, B, KV, dim] (``head_axis`` 2) or [P, KV, B, dim] (``head_axis`` 1),
                       any strides but the last (1); cast to their dtype if it differs.
    slots              int64 [T], all different, except that slots of page 0 may repeat
                       (page 0 belongs to nobody).
    Query              num_kv_heads=KV, k_dim, v_dim, head_axis, kv_dtype.
    """
    block = k_pages.shape[3 - head_axis]
    page, place = slots // block, slots % block
    if head_axis == 2:
        k_pages[page, place] = k.to(k_pages.dtype)
        v_pages[page, place] = v.to(v_pages.dtype)
    else:
        # Two index tensors with a slice between them put the indexed axis first: [T, KV, dim].
        k_pages[page, :, place] = k.to(k_pages.dtype)
        v_pages[page, :, place] = v.to(v_pages.dtype)


@op
def copy_pages(pages: Tensor, sources: Tensor, targets: Tensor) -> None:
    """pages[targets[i]] = pages[sources[i]], as if all were read before any is written.

    pages              [P, ...], pages contiguous.
    sources, targets   int64 [N]; targets all different.
    """
    pages[targets] = torch.index_select(pages, 0, sources)
