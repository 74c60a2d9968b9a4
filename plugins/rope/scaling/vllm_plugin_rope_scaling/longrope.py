"""LongRoPE (arXiv 2402.13753), as Phi-3 and later use it."""

from __future__ import annotations

import math
from typing import Any

import torch

from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers import inverse_frequencies
from vllm_plugin_rope_scaling.tables import filled, made


def long_rope(head_dim: int, params: dict[str, Any], max_position: int, device: torch.device) -> RotaryTable:
    """Each frequency divided by its ``long_factor`` or ``short_factor``.

    A model has one set for sequences within ``original_max_position_embeddings`` and one for longer
    sequences. Keys in the cache are rotated once, so one table serves all: the long one if
    ``longest_sequence``, the longest that is served, exceeds the original length.
    """
    params = filled(params)
    original = params["original_max_position_embeddings"]
    which = "long" if params["longest_sequence"] > original else "short"
    factors = torch.tensor(params[f"{which}_factor"], dtype=torch.float32, device=device)
    frequencies = inverse_frequencies(head_dim, params, device) / factors
    return made(frequencies, params, max_position, _attention_factor(params, which))


def _attention_factor(params: dict[str, Any], which: str) -> float:
    """Given (``attention_factor``; ``long_mscale`` or ``short_mscale`` in PhiMoE), or the paper's for ``factor``."""
    for name in (f"{which}_mscale", "attention_factor"):
        if name in params:
            return params[name]
    original = params["original_max_position_embeddings"]
    factor = params.get("factor") or params["max_position_embeddings"] / original
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
