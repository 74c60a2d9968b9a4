"""The table of plain rotary embeddings (arXiv 2104.09864), and how a table is made from inverse frequencies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.rope import RotaryTable


def rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """The rope parameters of a config.json: its "rope_parameters", or the older "rope_theta" and "rope_scaling".

    "rope_type" and "rope_theta" are always in the result, and "partial_rotary_factor" where the
    config has one beside them. Types that scale by lengths get "max_position_embeddings" and
    "original_max_position_embeddings" too; of the latter the one outside counts, as in transformers.
    """
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    found["rope_type"] = found.pop("type", None) or found.get("rope_type") or "default"
    for key in ("rope_theta", "partial_rotary_factor"):
        if key not in found and config.get(key) is not None:
            found[key] = config[key]
    found.setdefault("rope_theta", 10000.0)
    if found["rope_type"] != "default":
        lengths = ("max_position_embeddings", "original_max_position_embeddings")
        found |= {key: config[key] for key in lengths if config.get(key) is not None}
    return found


def rotary_dim(head_dim: int, params: dict[str, Any]) -> int:
    """Elements of a head that are rotated: all, or ``partial_rotary_factor`` of them."""
    size = int(head_dim * params.get("partial_rotary_factor", 1.0))
    if size <= 0 or size % 2 or size > head_dim:
        raise ValueError(
            f"rope_parameters: partial_rotary_factor {params.get('partial_rotary_factor')!r} of {head_dim}"
            f" elements rotates {size}, which is not an even number from 2 to {head_dim}"
        )
    return size


def inverse_frequencies(head_dim: int, params: dict[str, Any], device: torch.device) -> Tensor:
    """rope_theta ** (-2i / R), float32 [R / 2]."""
    if "rope_theta" not in params:
        raise ValueError(f"rope_parameters lack 'rope_theta'; they have {sorted(params)}")
    size = rotary_dim(head_dim, params)
    exponent = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    return 1.0 / (float(params["rope_theta"]) ** exponent)


def table(frequencies: Tensor, max_position: int, scaling: float = 1.0, interleaved: bool = False) -> RotaryTable:
    """Cosines and sines of position * frequency; ``scaling`` multiplies both (YaRN's attention factor)."""
    positions = torch.arange(max_position, dtype=torch.float32, device=frequencies.device)
    angles = torch.outer(positions, frequencies)
    return RotaryTable(
        cos=angles.cos() * scaling,
        sin=angles.sin() * scaling,
        rotary_dim=2 * frequencies.shape[0],
        interleaved=interleaved,
    )


def default_rope(head_dim: int, params: dict[str, Any], max_position: int, device: torch.device) -> RotaryTable:
    """rope_type "default": nothing but ``rope_theta``, ``partial_rotary_factor`` and ``interleaved``."""
    frequencies = inverse_frequencies(head_dim, params, device)
    return table(frequencies, max_position, interleaved=bool(params.get("interleaved", False)))
