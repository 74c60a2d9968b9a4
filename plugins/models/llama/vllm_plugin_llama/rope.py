"""The RoPE variant of Llama 3.1 and later."""

from __future__ import annotations

import math
from typing import Any

import torch

from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers import inverse_frequencies, table


def llama3_rope(head_dim: int, params: dict[str, Any], max_position: int, device: torch.device) -> RotaryTable:
    """Slow frequencies are divided by ``factor``, fast ones kept, those between interpolated.

    Slow: fewer than ``low_freq_factor`` turns over the ``original_max_position_embeddings``
    positions of pre-training; fast: more than ``high_freq_factor``. As in apply_scaling of
    meta-llama/llama-models, models/llama3/model.py.
    """
    frequencies = inverse_frequencies(head_dim, params, device)
    low, high = float(params["low_freq_factor"]), float(params["high_freq_factor"])
    turns = params["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return table(frequencies * (keep + (1 - keep) / float(params["factor"])), max_position)
