"""How experts are multiplied: by what transformers has, chosen so that no step waits for the device.

transformers looks the function up by ``config._experts_implementation``. Letters: T tokens, K experts a token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vllm_plugin_transformers.interface import NAME

GATHERED = 1 << 28
"""Most elements of experts' matrices that are copied at once, one matrix for each token and expert."""


def experts(module: nn.Module, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """hidden [T, H], index and weights [T, K] -> [T, H].

    Tokens sorted by expert are fast for any T. On CUDA torch does that on the device in bfloat16 only, and reads
    the groups' sizes back in other formats; there each token gets a copy of its experts.
    """
    from transformers.integrations.moe import batched_mm_experts_forward, grouped_mm_experts_forward

    run: Any = module
    if hidden.is_meta:  # there is nothing to sort by
        return batched_mm_experts_forward(run, hidden, index, weights)
    if hidden.device.type != "cuda" or hidden.dtype == torch.bfloat16:
        return grouped_mm_experts_forward(run, hidden, index, weights)
    largest = max(p[0].numel() for p in module.parameters(recurse=False))
    rows = max(1, GATHERED // (largest * index.shape[1]))
    parts = zip(hidden.split(rows), index.split(rows), weights.split(rows), strict=True)
    return torch.cat([batched_mm_experts_forward(run, *part) for part in parts])


def register_experts() -> None:
    from transformers.integrations.moe import ExpertsInterface

    ExpertsInterface.register(NAME, experts)
