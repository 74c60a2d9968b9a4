"""Rope types that divide all frequencies or make their base larger. R: elements of a head that are rotated."""

from __future__ import annotations

import math
from typing import Any

import torch

from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers import inverse_frequencies
from vllm_plugin_rope_scaling.tables import filled, made


def linear_rope(head_dim: int, params: dict[str, Any], max_position: int, device: torch.device) -> RotaryTable:
    """Positions count 1 / ``factor`` each (arXiv 2306.15595)."""
    params = filled(params)
    return made(inverse_frequencies(head_dim, params, device) / params["factor"], params, max_position)


def ntk_rope(head_dim: int, params: dict[str, Any], max_position: int, device: torch.device) -> RotaryTable:
    """Two ways to spread ``factor`` over the frequencies (kexue.fm/archives/9706).

    Without ``mixed_b``   the base times ``factor``, then all frequencies over factor ** (2 / R): the slowest is
                          divided by ``factor`` exactly
    with ``mixed_b`` = b  frequency m = 1 .. R/2 over exp(a * m ** b), a such that the last is divided by ``factor``
    """
    params = filled(params)
    factor, b = float(params["factor"]), params.get("mixed_b")
    if b is None:
        wider = inverse_frequencies(head_dim, {**params, "rope_theta": params["rope_theta"] * factor}, device)
        return made(wider / factor ** (1 / wider.shape[0]), params, max_position)
    frequencies = inverse_frequencies(head_dim, params, device)
    rank = torch.arange(1, frequencies.shape[0] + 1, dtype=torch.float32, device=device)
    return made(frequencies / factor ** ((rank / frequencies.shape[0]) ** b), params, max_position)


def dynamic_rope(head_dim: int, params: dict[str, Any], max_position: int, device: torch.device) -> RotaryTable:
    """Dynamic NTK: the base grows with the sequence, or is multiplied once, by ``alpha`` (Hunyuan).

    By ``factor``, a sequence longer than the model was made for has a base of its own, as in
    _compute_dynamic_ntk_parameters of transformers. Keys in the cache are rotated once, with one
    table: it is the one for ``longest_sequence``, the longest that is served.
    """
    params = filled(params)
    size = 2 * inverse_frequencies(head_dim, params, device).shape[0]
    if "alpha" in params:
        stretch = params["alpha"]
    else:
        trained = params.get("original_max_position_embeddings") or params["max_position_embeddings"]
        longest = max(params["longest_sequence"], trained)
        stretch = params["factor"] * longest / trained - (params["factor"] - 1)
    theta = params["rope_theta"] * math.pow(stretch, size / (size - 2))
    return made(inverse_frequencies(head_dim, {**params, "rope_theta": theta}, device), params, max_position)
