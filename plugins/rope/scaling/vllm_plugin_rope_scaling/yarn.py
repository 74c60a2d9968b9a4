"""YaRN (arXiv 2309.00071): frequencies by how often they turn over the context of pre-training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers import inverse_frequencies
from vllm_plugin_rope_scaling.tables import filled, made


def yarn_rope(head_dim: int, params: dict[str, Any], max_position: int, device: torch.device) -> RotaryTable:
    """``factor`` left out is the ratio of the two lengths; fields and defaults as in transformers.

    The attention factor is ``attention_factor``; without it, of ``mscale`` and ``mscale_all_dim``
    if neither is 0 or left out; else that of the paper. Of jquesnelle/yarn there are also
    ``extrapolation_factor``, ``attn_factor``, which multiplies the result, and
    ``apply_yarn_scaling``: false for 1 in place of the paper's.
    """
    params = filled(params)
    factor, trained = _factor(params), _trained(params)
    mscale, all_dim = params.get("mscale"), params.get("mscale_all_dim")
    if not params.get("apply_yarn_scaling", True):
        scaling = 1.0
    elif "attention_factor" in params:
        scaling = params["attention_factor"]
    elif mscale and all_dim:
        scaling = magnitude(factor, mscale) / magnitude(factor, all_dim)
    else:
        scaling = magnitude(factor)
    frequencies = _ramped(head_dim, params, factor, trained, device)
    return made(frequencies, params, max_position, scaling * params.get("attn_factor", 1.0))


def deepseek_yarn_rope(head_dim: int, params: dict[str, Any], max_position: int, device: torch.device) -> RotaryTable:
    """As modeling_deepseek.py of the checkpoints: ``mscale`` defaults to 1, ``mscale_all_dim`` to 0, which count so."""
    params = filled(params)
    factor = _factor(params)
    scaling = magnitude(factor, params.get("mscale", 1.0)) / magnitude(factor, params.get("mscale_all_dim", 0.0))
    frequencies = _ramped(head_dim, params, factor, _trained(params), device)
    return made(frequencies, params, max_position, scaling * params.get("attn_factor", 1.0))


def magnitude(factor: float, weight: float = 1.0) -> float:
    """By what attention over ``factor`` times as many tokens has to be sharper: the square root of the paper's 1/t."""
    return 0.1 * weight * math.log(factor) + 1.0


def _trained(params: dict[str, Any]) -> float:
    return params.get("original_max_position_embeddings") or params["max_position_embeddings"]


def _factor(params: dict[str, Any]) -> float:
    return params.get("factor") or max(1.0, params["max_position_embeddings"] / _trained(params))


def _ramped(head_dim: int, params: dict[str, Any], factor: float, trained: float, device: torch.device) -> Tensor:
    """Frequencies [R / 2]: kept where they turn more than ``beta_fast`` times over ``trained`` positions, divided by
    ``factor`` where fewer than ``beta_slow`` times, and between them a mixture that is linear in the index.
    """
    frequencies = inverse_frequencies(head_dim, params, device)
    pairs, theta = frequencies.shape[0], params["rope_theta"]

    def index_of(turns: float) -> float:
        return pairs * math.log(trained / (turns * 2 * math.pi)) / math.log(theta)

    low, high = index_of(params.get("beta_fast", 32)), index_of(params.get("beta_slow", 1))
    if params.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)  # as upstream: not pairs - 1
    width = high - low if high != low else 0.001
    ramp = ((torch.arange(pairs, dtype=torch.float32, device=device) - low) / width).clamp(0, 1)
    keep = (1 - ramp) * params.get("extrapolation_factor", 1.0)
    return frequencies / factor * (1 - keep) + frequencies * keep
