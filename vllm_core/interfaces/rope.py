"""The contract of RoPE variants: a table, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@attrs.frozen(kw_only=True)
class RotaryTable:
    """``cos`` and ``sin`` float32 [max_position, rotary_dim / 2], attention scaling multiplied in.

    ``interleaved``: pairs are (0, 1), (2, 3), ... (GPT-J) instead of (i, i + d/2) (NeoX).
    """

    cos: Tensor
    sin: Tensor
    rotary_dim: int
    interleaved: bool = False
    sections: tuple[int, ...] = ()  # M-RoPE: how many frequencies each position axis takes


class RopeVariant(Protocol):
    """A function: ``variant(head_dim, params, max_position, device) -> RotaryTable``."""

    def __call__(
        self, head_dim: int, params: dict[str, Any], max_position: int, device: torch.device
    ) -> RotaryTable: ...
