"""A step without the pages that every query's window has passed."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep


def visible(step: AttentionStep, config: AttentionConfig) -> tuple[Tensor, Tensor, list[int]]:
    """block table int32 [S, W], lengths int32 [S] and the host's bounds, counted from the first page that is seen.

    Kernels multiply masked values with 0 instead of leaving them out, and pages behind the window belong to
    others, or to nobody. Distances between queries and keys stay what they were. No bounds in a static step.
    """
    table, lengths = step.block_table, step.kv_lens
    if config.window is None:
        return table, lengths, list(step.kv_bounds)
    block = config.block_size
    first = (lengths - step.query_starts.diff() - (config.window - 1)).clamp_(min=0) // block
    seen = [config.window - 1 + count + block - 1 for count in (step.longest_query, *step.query_lens)]
    width = min(-(-seen[0] // block), table.shape[1])
    columns = (torch.arange(width, dtype=torch.int32, device=table.device) + first[:, None]).long()
    table = table.gather(1, columns.clamp_(max=table.shape[1] - 1))
    bounds = [min(bound, most) for bound, most in zip(step.kv_bounds, seen[1:], strict=True)]
    return table, lengths - first * block, bounds
