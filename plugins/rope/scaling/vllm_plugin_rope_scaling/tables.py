"""From parameters and frequencies to a table."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers import table


def filled(params: dict[str, Any]) -> dict[str, Any]:
    """Without those that are null: they count as left out."""
    return {name: value for name, value in params.items() if value is not None}


def made(frequencies: Tensor, params: dict[str, Any], max_position: int, scaling: float = 1.0) -> RotaryTable:
    return table(frequencies, max_position, scaling, interleaved=params.get("interleaved", False))
